"""Continuing prompts: with caches or without, side by side, drawn or searched for, whole or as a stream."""

from bltmodel.generation.cached import CachedDecoding
from bltmodel.generation.decoding import Decoding, NextByteModel, PlainDecoding
from bltmodel.generation.generate import generate, new_bytes
from bltmodel.generation.patches import Patches, PatchesOfRule
from bltmodel.generation.settings import GenerationSettings, NewByte
from bltmodel.generation.streaming import as_text, in_characters

__all__ = [
    "CachedDecoding",
    "Decoding",
    "GenerationSettings",
    "NewByte",
    "NextByteModel",
    "Patches",
    "PatchesOfRule",
    "PlainDecoding",
    "as_text",
    "generate",
    "in_characters",
    "new_bytes",
]
