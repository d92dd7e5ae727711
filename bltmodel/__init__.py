"""The Byte Latent Transformer (arXiv:2412.09871), trained on the shards that `bltdata` writes.

The names below are loaded when they are first used, so that `import bltmodel` costs nothing and brings no torch with it.
"""

from typing import TYPE_CHECKING

from bltdata import __version__
from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltmodel.config import BLTConfig
    from bltmodel.model import BLT
    from bltmodel.reader import ShardReader

__all__ = ["BLT", "BLTConfig", "ShardReader", "__version__"]

__getattr__, __dir__ = lazy_names(__name__, {"BLT": "bltmodel.model", "BLTConfig": "bltmodel.config", "ShardReader": "bltmodel.reader"})
