"""From raw bytes to what a Byte Latent Transformer reads: entropies, patches, Parquet shards and their statistics.

The names below are loaded when they are first used, so that `import bltdata` costs nothing and brings no torch with it:

>>> import bltdata
>>> rule = bltdata.PatchRule(scheme="fixed", stride=4)
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.corpus import Corpus, Document, open_corpus
    from bltdata.entropy import EntropyModel
    from bltdata.errors import BltError
    from bltdata.patching import Patches, PatchRule, patch
    from bltdata.shards import ShardDataset, open_shards

__version__ = "0.1.0"

__all__ = [
    "BltError",
    "Corpus",
    "Document",
    "EntropyModel",
    "PatchRule",
    "Patches",
    "ShardDataset",
    "__version__",
    "open_corpus",
    "open_shards",
    "patch",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BltError": "bltdata.errors",
        "Corpus": "bltdata.corpus",
        "Document": "bltdata.corpus",
        "EntropyModel": "bltdata.entropy",
        "PatchRule": "bltdata.patching",
        "Patches": "bltdata.patching",
        "ShardDataset": "bltdata.shards",
        "open_corpus": "bltdata.corpus",
        "open_shards": "bltdata.shards",
        "patch": "bltdata.patching",
    },
)
