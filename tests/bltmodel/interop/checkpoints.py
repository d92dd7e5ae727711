"""BLTs that say what they were trained on, and checkpoints for transformers made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bltdata.config import to_mapping
from bltdata.entropy import EntropyModel
from bltdata.patching import PatchRule
from bltdata.shards import round_entropies
from bltmodel.interop import export_blt
from bltmodel.model import BLT
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt


def data(rule: PatchRule = RULE, **changes: Any) -> dict[str, Any]:
    """What `config.json` of a trained BLT says of its shards."""
    described = {"fingerprint": entropy_model().fingerprint, "context": {"window": entropy_model().config.window}}
    return {"entropy_model": described, "patch_rule": to_mapping(rule), "entropy_precision": "grid", **changes}


def saved(folder: Path, model: BLT | None = None, described: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """Folders of a BLT and of its entropy model."""
    (model or opinionated_blt()).save(folder / "blt", {} if described is None else {"data": described})
    entropy_model().save(folder / "entropy-model")
    return folder / "blt", folder / "entropy-model"


def exported(out: Path) -> Path:
    """A checkpoint with a patcher."""
    blt, patcher = saved(out.with_name(f"{out.name}-made-of"), described=data())
    export_blt(blt, out, entropy_model=patcher)
    return out


def patches(document: bytes, model: EntropyModel, rule: PatchRule, precision: Any) -> tuple[Sequence[int], np.ndarray]:
    """Patch lengths of a document as a dataset has them, and its entropies before they are rounded."""
    (entropies,) = model.score([document])
    return rule.lengths(document, round_entropies(entropies, precision)).tolist(), entropies
