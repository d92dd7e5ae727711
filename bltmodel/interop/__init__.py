"""BLTs to and from transformers' `BltForCausalLM`; transformers itself isn't needed.

Both are the same arithmetic under other names, so a tensor goes over as it is, the fused table of all hashed n-grams too (hash
function by hash function, size by size). What one of them can't express is refused. Known of the other side, as of transformers 5.23:

- its cache is wrong, so the settings that are written switch it off: `use_cache` stays False;
- it pads on the right only, and knows no documents: rows of several, or padded on the left, give other logits than here;
- it patches where an entropy is above one threshold, and without a patcher it takes every byte for a patch unless it is given
  `patch_lengths`: 1 for BOS, then those of the document.
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltmodel.interop.architecture import transformers_config, transformers_names
    from bltmodel.interop.exporting import Exported, export_blt
    from bltmodel.interop.importing import Imported, import_blt
    from bltmodel.interop.thresholds import rule_of_threshold, unrounded_threshold
    from bltmodel.interop.tokenizer import build_tokenizer

__all__ = [
    "Exported",
    "Imported",
    "build_tokenizer",
    "export_blt",
    "import_blt",
    "rule_of_threshold",
    "transformers_config",
    "transformers_names",
    "unrounded_threshold",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Exported": "bltmodel.interop.exporting",
        "Imported": "bltmodel.interop.importing",
        "build_tokenizer": "bltmodel.interop.tokenizer",
        "export_blt": "bltmodel.interop.exporting",
        "import_blt": "bltmodel.interop.importing",
        "rule_of_threshold": "bltmodel.interop.thresholds",
        "transformers_config": "bltmodel.interop.architecture",
        "transformers_names": "bltmodel.interop.architecture",
        "unrounded_threshold": "bltmodel.interop.thresholds",
    },
)
