"""The entropy model: its architecture, its training, and the entropies it gives every byte of a document."""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.entropy.config import PRESETS, EntropyModelConfig
    from bltdata.entropy.interop import export_patcher, import_patcher, patcher_config, patcher_state
    from bltdata.entropy.model import EntropyModel
    from bltdata.entropy.pretraining import pretrain
    from bltdata.entropy.scoring import Score

__all__ = [
    "PRESETS",
    "EntropyModel",
    "EntropyModelConfig",
    "Score",
    "export_patcher",
    "import_patcher",
    "patcher_config",
    "patcher_state",
    "pretrain",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EntropyModel": "bltdata.entropy.model",
        "EntropyModelConfig": "bltdata.entropy.config",
        "PRESETS": "bltdata.entropy.config",
        "Score": "bltdata.entropy.scoring",
        "export_patcher": "bltdata.entropy.interop",
        "import_patcher": "bltdata.entropy.interop",
        "patcher_config": "bltdata.entropy.interop",
        "patcher_state": "bltdata.entropy.interop",
        "pretrain": "bltdata.entropy.pretraining",
    },
)
