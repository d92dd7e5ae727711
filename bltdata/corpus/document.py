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
