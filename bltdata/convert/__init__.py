"""From and to the Arrow files of the BLT's reference implementation, which its trainer reads.

A row of theirs is a document's name `sample_id`, its `text`, and `entropies`: one for each of its `n + 2` tokens, BOS, the bytes and EOS.
Value `i` is computed after token `i` was read and is about the token after it. So value 0, after BOS, is about the first byte, and

    theirs[i] = entropy_nats[i]     for i in 0 ... n; both are in nats, and the last of these is about the end of the document
    theirs[n + 1]                   is about what follows the document: shards have no such value

The last one is 0 in the files that are written, and is dropped when files are read: it would decide about a token after EOS, and documents
are cut one by one. Bytes, names and entropies therefore come back as they were. Patch lengths, source and negative log-likelihood
have no place in such a file, nor has what says which entropy model made it: patches are cut anew, sources are named anew, and the
rest is unknown.
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.convert.config import FromArrowConfig, ToArrowConfig
    from bltdata.convert.from_arrow import arrow_to_shards
    from bltdata.convert.to_arrow import ArrowDataset, ArrowReporter, shards_to_arrow

__all__ = ["ArrowDataset", "ArrowReporter", "FromArrowConfig", "ToArrowConfig", "arrow_to_shards", "shards_to_arrow"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ArrowDataset": "bltdata.convert.to_arrow",
        "ArrowReporter": "bltdata.convert.to_arrow",
        "FromArrowConfig": "bltdata.convert.config",
        "ToArrowConfig": "bltdata.convert.config",
        "arrow_to_shards": "bltdata.convert.from_arrow",
        "shards_to_arrow": "bltdata.convert.to_arrow",
    },
)
