"""What every source yields and every later stage takes: a document."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """Some bytes that belong together, and where they came from."""

    doc_id: str
    """`SOURCE/LOCAL`, unique in its corpus and the same in every run over the same files, e.g. `wiki/a/b.txt:17`."""
    source: str
    """The label of the source, by which statistics are kept and mixtures weighted."""
    data: bytes
    """The raw bytes: any, none, valid UTF-8 or not."""


Record = tuple[str, bytes] | str
"""What a source reads: the id of a document within the source, and its bytes. Or the reason why a record is left out, which whoever reads
it counts; it is given at all so that a plan, which counts records, needn't look into them."""
