"""The torch blocks that the entropy model and the BLT share: norm, rotary positions, masked attention, feed-forward."""

from bltdata.nn.attention import AttentionMask, attend, banded_mask, dense_mask
from bltdata.nn.initialisation import draw_weights, initialise_linear, take_weights, truncated_normal_, without_weights
from bltdata.nn.machine import autocast, moved, one_thread, prepare_cpu, resolve_device, resolve_precision
from bltdata.nn.norm import RMSNorm
from bltdata.nn.rope import rotary_table, rotate, rotations
from bltdata.nn.transformer import KeysValues, TransformerBlock

__all__ = [
    "AttentionMask",
    "KeysValues",
    "RMSNorm",
    "TransformerBlock",
    "attend",
    "autocast",
    "banded_mask",
    "dense_mask",
    "draw_weights",
    "initialise_linear",
    "moved",
    "one_thread",
    "prepare_cpu",
    "resolve_device",
    "resolve_precision",
    "rotary_table",
    "rotate",
    "rotations",
    "take_weights",
    "truncated_normal_",
    "without_weights",
]
