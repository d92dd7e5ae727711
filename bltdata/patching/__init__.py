"""Patches: from the entropies of a document to where its patches start.

    rule = PatchRule(threshold=1.335)              which rule, with every parameter
    rule.starts(data, entropy_nats)                positions, or rule.lengths for lengths
    rule.lengths_of_documents(...)                 many documents that lie end to end, as a shard's columns do
    rule.stepper().step(entropy, byte)             one position at a time, while generating
    PatchingConfig(...).rule()                     a rule in other words, with the newline reset of rule and scoring in one
    patch(data, entropy_nats, rule)                a `Patches` to look at
    calibrate(documents, rule, 4.5)                the threshold that makes patches of 4.5 bytes on average

`schemes` defines the rules, `boundaries` and `kernels` make them fast. No torch here.
"""

from bltdata.patching.calibration import Calibration, calibrate
from bltdata.patching.config import PatchingConfig
from bltdata.patching.patches import Patches, patch
from bltdata.patching.rule import PatchRule, starts_of_lengths
from bltdata.patching.schemes import SCHEMES
from bltdata.patching.stepper import PatchStepper

__all__ = ["SCHEMES", "Calibration", "PatchRule", "PatchStepper", "Patches", "PatchingConfig", "calibrate", "patch", "starts_of_lengths"]
