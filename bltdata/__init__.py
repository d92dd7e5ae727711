"""From raw bytes to what a Byte Latent Transformer reads: entropies, patches, Parquet shards and their statistics.

The names below are loaded when they are first used, so that `import bltdata` costs nothing and brings no torch with it:

>>> import bltdata
>>> rule = bltdata.PatchRule(scheme="fixed", stride=4)
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.corpus import Corpus, Document, open_corpus
    from bltdata.entropy import EntropyModel, EntropyModelConfig, pretrain
    from bltdata.errors import BltError
    from bltdata.patching import Patches, PatchingConfig, PatchRule, calibrate, patch
    from bltdata.shards import ShardDataset, open_shards
    from bltdata.training.config import TrainingConfig
    from bltdata.verification import verify_dataset

__version__ = "0.1.0"

__all__ = [
    "BltError",
    "Corpus",
    "Document",
    "EntropyModel",
    "EntropyModelConfig",
    "PatchRule",
    "Patches",
    "PatchingConfig",
    "ShardDataset",
    "TrainingConfig",
    "__version__",
    "calibrate",
    "open_corpus",
    "open_shards",
    "patch",
    "pretrain",
    "verify_dataset",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BltError": "bltdata.errors",
        "Corpus": "bltdata.corpus",
        "Document": "bltdata.corpus",
        "EntropyModel": "bltdata.entropy",
        "EntropyModelConfig": "bltdata.entropy",
        "PatchRule": "bltdata.patching",
        "Patches": "bltdata.patching",
        "PatchingConfig": "bltdata.patching",
        "ShardDataset": "bltdata.shards",
        "TrainingConfig": "bltdata.training.config",
        "calibrate": "bltdata.patching",
        "open_corpus": "bltdata.corpus",
        "open_shards": "bltdata.shards",
        "patch": "bltdata.patching",
        "pretrain": "bltdata.entropy",
        "verify_dataset": "bltdata.verification",
    },
)
