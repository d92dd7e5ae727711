"""The torch blocks that the entropy model and the BLT share: norm, rotary positions, masked attention, feed-forward."""

from bltdata.nn.attention import AttentionMask, attend, banded_mask, dense_mask
from bltdata.nn.initialisation import initialise_linear, truncated_normal_
from bltdata.nn.machine import autocast, moved, one_thread, prepare_allocator, resolve_device, resolve_precision
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
    "initialise_linear",
    "moved",
    "one_thread",
    "prepare_allocator",
    "resolve_device",
    "resolve_precision",
    "rotary_table",
    "rotate",
    "rotations",
    "truncated_normal_",
]
