"""Random documents with random patches, and rows packed from them the slow, obvious way."""

import typing
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from bltdata.vocab import BOE_ID, BOS_ID, BYTE_OFFSET, EOS_ID
from bltmodel.config import BLTConfig, CrossAttendedLayers, Pooling
from bltmodel.masks import PackedBatch


class Patched(NamedTuple):
    """A document and whether a patch starts at each of its positions 0 ... n."""

    data: bytes
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(np.append(np.flatnonzero(self.starts), len(self.starts)))


def tiny_config(**changes) -> BLTConfig:
    fields = {
        "local_dim": 16, "encoder_layers": 1, "decoder_layers": 2, "local_heads": 2, "local_ffn_dim": 24, "window": 16,
        "latent_dim": 24, "latent_layers": 2, "latent_heads": 2, "latent_ffn_dim": 32, "queries_per_patch": 2, "hash_rows": 101,
    }  # fmt: skip
    return BLTConfig(**{**fields, **changes})


@st.composite
def configs(draw: st.DrawFn, **fixed: typing.Any) -> BLTConfig:
    """Tiny models of any kind that the settings allow; `fixed` settings aren't drawn."""
    queries = draw(st.integers(1, 4))
    fields = {
        "encoder_layers": st.integers(1, 3),
        "decoder_layers": st.integers(1, 3),
        "local_heads": st.sampled_from([1, 2, 4]),
        "window": st.sampled_from([1, 2, 7, 16, 64]),
        # Equal to the size of an encoded patch, there is no projection.
        "latent_dim": st.sampled_from([16 * queries, 24, 40]),
        "latent_layers": st.integers(1, 2),
        "latent_heads": st.sampled_from([1, 2, 4]),
        "queries_per_patch": st.just(queries),
        "ngram_sizes": st.sets(st.integers(1, 9), min_size=1, max_size=4).map(lambda sizes: tuple(sorted(sizes))),
        "hash_rows": st.sampled_from([1, 10, 101]),
        "hash_functions": st.integers(1, 3),
        "rope_theta": st.sampled_from([10_000.0, 500_000.0]),
        "norm_eps": st.sampled_from([1e-6, 1e-5, 1e-2]),
        "pooling": st.sampled_from(typing.get_args(Pooling)),
        "encoder_cross_attention": st.sampled_from(typing.get_args(CrossAttendedLayers)),
    }
    return tiny_config(**{name: draw(values) for name, values in fields.items() if name not in fixed}, **fixed)


def random_document(rng: np.random.Generator, num_bytes: int, start_probability: float = 0.3) -> Patched:
    starts = rng.random(num_bytes + 1) < start_probability
    starts[0] = True
    return Patched(rng.integers(0, 256, num_bytes, dtype=np.uint8).tobytes(), starts)


@st.composite
def packings(draw: st.DrawFn) -> list[list[Patched]]:
    """Rows of several documents of any patches, some of them empty. Sizes and a seed shrink."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    lengths = draw(st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=4), min_size=1, max_size=3))
    return [[random_document(rng, length, rng.random()) for length in row] for row in lengths]


def with_new_suffix(document: Patched, first: int, rng: np.random.Generator) -> Patched:
    """Another document: every byte from `first` on differs, and patch starts after `first` are drawn anew."""
    data = np.frombuffer(document.data, dtype=np.uint8).copy()
    data[first:] += rng.integers(1, 256, len(data) - first, dtype=np.uint8)
    starts = document.starts.copy()
    starts[first + 1 :] = rng.random(len(starts) - first - 1) < rng.random()
    return Patched(data.tobytes(), starts)


def pack(rows: list[list[Patched]], num_tokens: int | None = None) -> PackedBatch:
    """Rows of whole documents, padded to `num_tokens` or the longest row."""
    num_tokens = num_tokens or max(sum(len(document.starts) for document in row) for row in rows)
    filled = [_pack_row(row, num_tokens) for row in rows]
    return PackedBatch(*(torch.tensor(column) for column in zip(*filled, strict=True)))


def _pack_row(row: list[Patched], num_tokens: int) -> tuple[list, ...]:
    ids, targets, visible_from, starts, next_starts = [], [], [], [], []
    for data, document_starts in row:
        first = len(ids)
        ids += [BOS_ID, *(byte + BYTE_OFFSET for byte in data)]
        targets += [*(byte + BYTE_OFFSET for byte in data), EOS_ID]
        visible_from += [first] * (len(data) + 1)
        starts += [True, *document_starts[:-1].tolist()]
        next_starts += document_starts.tolist()
    padding = range(len(ids), num_tokens)
    ids += [BOE_ID for _ in padding]
    targets += [-1 for _ in padding]
    visible_from += padding
    starts += [False for _ in padding]
    next_starts += [False for _ in padding]
    return ids, targets, visible_from, starts, next_starts
