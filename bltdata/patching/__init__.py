"""Patches: from the entropies of a document to where its patches start.

    rule = PatchRule(threshold=1.335)              which rule, with every parameter
    rule.starts(data, entropy_nats)                positions, or rule.lengths for lengths
    rule.lengths_of_documents(...)                 many documents that lie end to end, as a shard's columns do
    rule.stepper().step(entropy, byte)             one position at a time, while generating
    PatchingConfig(...).rule()                     a rule in other words, with the newline reset of rule and scoring in one
    patch(data, entropy_nats, rule)                a `Patches` to look at
    calibrate(documents, rule, 4.5)                the threshold that makes patches of 4.5 bytes on average
    calibrate_sources(read, rule, 4.5)             the same for each source, of documents that are too many to keep
    SourceRules(default=rule, by_source={...})     a rule for each source; `count_patches` says what they make of documents

`schemes` defines the rules, `boundaries` and `kernels` make them fast. No torch here.
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.patching.batch import DocumentBatch
    from bltdata.patching.calibration import Calibration, CalibrationReport, calibrate, calibrate_sources
    from bltdata.patching.config import PatchingConfig
    from bltdata.patching.patches import Patches, patch
    from bltdata.patching.rule import PatchRule, starts_of_lengths
    from bltdata.patching.schemes import SCHEMES
    from bltdata.patching.sources import PatchCounts, SourceRules, count_patches
    from bltdata.patching.stepper import PatchStepper

__all__ = [
    "SCHEMES",
    "Calibration",
    "CalibrationReport",
    "DocumentBatch",
    "PatchCounts",
    "PatchRule",
    "PatchStepper",
    "Patches",
    "PatchingConfig",
    "SourceRules",
    "calibrate",
    "calibrate_sources",
    "count_patches",
    "patch",
    "starts_of_lengths",
]

# The settings of a rule are options of commands, and their help mustn't wait for numba.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SCHEMES": "bltdata.patching.schemes",
        "Calibration": "bltdata.patching.calibration",
        "CalibrationReport": "bltdata.patching.calibration",
        "DocumentBatch": "bltdata.patching.batch",
        "PatchCounts": "bltdata.patching.sources",
        "PatchRule": "bltdata.patching.rule",
        "PatchStepper": "bltdata.patching.stepper",
        "Patches": "bltdata.patching.patches",
        "PatchingConfig": "bltdata.patching.config",
        "SourceRules": "bltdata.patching.sources",
        "calibrate": "bltdata.patching.calibration",
        "calibrate_sources": "bltdata.patching.calibration",
        "count_patches": "bltdata.patching.sources",
        "patch": "bltdata.patching.patches",
        "starts_of_lengths": "bltdata.patching.rule",
    },
)
