"""Documents that two datasets share, as diagnostics report them; `verification.documents` says which documents are the same."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """How many documents of a dataset are in another one too."""

    other: str
    """The folder of the other one."""
    num_shared: int
    """Documents, the empty one not counted, whose bytes are those of a document of the other dataset."""
    num_documents: int
    """Documents of the dataset."""
