"""Nothing leaks: not from the future, not from another document; and the checks that say so find planted leaks."""

import collections
import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bltmodel.decoder
import bltmodel.embeddings
import bltmodel.encoder
import bltmodel.model
from bltdata.nn import AttentionMask, banded_mask, dense_mask, rotary_table
from bltdata.nn.recompute import checkpoint_activations
from bltmodel.config import BLTConfig
from bltmodel.hashing import ngram_rows
from bltmodel.masks import PackedBatch, own_patches, patch_layout
from bltmodel.model import BLT
from bltmodel.patch_budget import join_surplus
from bltmodel.pooling import attend_over_bytes, attend_over_queries, pool
from tests.bltmodel.documents import Patched, configs, pack, packings, random_document, tiny_config
from tests.bltmodel.leaks import future_leaks, gradient_leaks, neighbour_leaks, row_leaks

CONFIGS = {
    "usual": tiny_config(),
    "equal sizes, several encoder layers": tiny_config(encoder_layers=2, latent_dim=32),
    "many queries, long window": tiny_config(queries_per_patch=4, window=64, hash_functions=3, ngram_sizes=(2, 5)),
    "one query, short window": tiny_config(queries_per_patch=1, window=3, decoder_layers=1),
    "mean, asked after every layer": tiny_config(pooling="mean", encoder_layers=3, encoder_cross_attention="all"),
    "min": tiny_config(pooling="min", encoder_layers=2),
}


@functools.cache
def model_of(config: BLTConfig) -> BLT:
    return BLT(config, seed=1)


def usual_model() -> BLT:
    return model_of(CONFIGS["usual"])


# ------------------------------------------------------------------------------------------------------------ the parts
# Each as a function of packed rows; what belongs to a patch is shown where the decoder may first know it.


def hashes(batch: PackedBatch) -> Tensor:
    return ngram_rows(batch.ids_BT, batch.visible_from_BT, (1, 3, 8), 2, 1009)


def embeddings(batch: PackedBatch) -> Tensor:
    return usual_model().embedding(batch.ids_BT, batch.visible_from_BT)


def byte_states(batch: PackedBatch) -> Tensor:
    return encoded(batch)[0]


def pooled_patches(batch: PackedBatch) -> Tensor:
    layout = patch_layout(batch)
    return where_known(bltmodel.encoder.pool(embeddings(batch), layout.own_BT, layout.num_patches), layout.complete_BT)


def encoded_patches(batch: PackedBatch) -> Tensor:
    return where_known(encoded(batch)[1], patch_layout(batch).complete_BT)


def latent_patches(batch: PackedBatch) -> Tensor:
    model, layout = usual_model(), patch_layout(batch)
    rope = rotary_table(layout.num_patches, 12, 500_000.0)
    return where_known(model.latent(encoded(batch)[1], rope, bltmodel.model.dense_mask(layout.visible_from_BP)), layout.complete_BT)


def decoded_states(batch: PackedBatch) -> Tensor:
    """The decoder alone: its patches are the pooled embeddings, so that all else is known to be causal."""
    model, layout = usual_model(), bltmodel.model.patch_layout(batch)
    x_BTD = embeddings(batch)
    patches = pool(x_BTD, layout.own_BT, layout.num_patches)[..., torch.arange(24) % 16]
    num_tokens = batch.ids_BT.shape[1]
    mask = bltmodel.model.banded_mask(batch.visible_from_BT, 16)
    return model.decoder(x_BTD, patches, rotary_table(num_tokens, 8, 500_000.0), mask, layout.complete_BT)


def encoded(batch: PackedBatch) -> tuple[Tensor, Tensor]:
    model, layout = usual_model(), patch_layout(batch)
    mask = bltmodel.model.banded_mask(batch.visible_from_BT, 16)
    rope = rotary_table(batch.ids_BT.shape[1], 8, 500_000.0)
    return model.encoder(embeddings(batch), rope, mask, layout.own_BT, layout.num_patches)


def where_known(patches_BPD: Tensor, complete_BT: Tensor) -> Tensor:
    return patches_BPD.gather(1, complete_BT[..., None].expand(-1, -1, patches_BPD.shape[-1]))


def whole_model(batch: PackedBatch) -> Tensor:
    return usual_model()(batch)


PARTS = [hashes, embeddings, byte_states, pooled_patches, encoded_patches, latent_patches, decoded_states]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("check", [future_leaks, neighbour_leaks])
def test_no_part_leaks(part, check):
    assert not check(part)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("check", [future_leaks, neighbour_leaks])
def test_the_whole_model_does_not_leak(config, training, check):
    model = model_of(config).train(training)
    with torch.set_grad_enabled(training):
        assert not check(model)


EXAMPLES = settings(max_examples=max(settings().max_examples // 10, 1))
"""A tenth of the usual number: each checks many documents."""


def within(budget: int | None, model: BLT) -> Callable[[PackedBatch], Tensor]:
    """The model on rows of no more than so many patches, as it is trained."""

    def logits(batch: PackedBatch) -> Tensor:
        if budget is None:
            return model(batch)
        batch, _ = join_surplus(batch, budget)
        return model(batch, max(budget, int(own_patches(batch).max()) + 1))

    return logits


@pytest.mark.parametrize(("training", "recomputed"), [(True, False), (True, True), (False, False)], ids=["train", "recomputed", "eval"])
@EXAMPLES
@given(
    config=configs(), rows=packings(), budget=st.none() | st.integers(1, 40), sparse_tables=st.booleans(), seed=st.integers(0, 2**32 - 1)
)
def test_no_choice_of_settings_leaks(training, recomputed, config, rows, budget, sparse_tables, seed):
    model = BLT(config, seed=seed % 100).train(training)
    checkpoint_activations(model, recomputed)
    model.embedding.ngrams.sparse = sparse_tables
    logits = within(budget, model)
    with torch.set_grad_enabled(training):
        assert not future_leaks(logits, seed, trials=4)
        assert not row_leaks(logits, rows, seed, patches_are_own=budget is None)
        if budget is None:
            assert not neighbour_leaks(logits, seed, trials=3)
    assert not gradient_leaks(model, logits, pack(rows * 3), seed)


SIZES = {"local_dim", "local_ffn_dim", "latent_ffn_dim"}
"""Settings that are the same in all random models: they change no wiring."""


def test_every_setting_of_the_model_is_chosen_at_random():
    seen = collections.defaultdict(set)

    @settings(database=None)
    @given(configs())
    def look(config: BLTConfig) -> None:
        for name, value in vars(config).items():
            seen[name].add(value)

    look()
    assert {name for name, values in seen.items() if len(values) == 1} == SIZES


# -------------------------------------------------------------------------------------------------------- planted leaks


def open_mask(mask: AttentionMask) -> AttentionMask:
    """A mask that hides nothing."""
    return dataclasses.replace(mask, visible=torch.ones_like(mask.visible), bias=torch.zeros_like(mask.bias))


def one_row_later(own_BT: Tensor) -> Tensor:
    """Each patch with the first byte of the next."""
    return torch.cat((own_BT[:, :1], own_BT[:, :-1]), dim=1)


def own_instead_of_complete(batch: PackedBatch, num_patches: int | None = None):
    layout = patch_layout(batch, num_patches)
    return layout._replace(complete_BT=layout.own_BT)


def starts_from_the_future(batch: PackedBatch, num_patches: int | None = None):
    return patch_layout(batch._replace(next_starts_BT=batch.next_starts_BT.roll(-1, 1)), num_patches)


def starts_of_the_next_token_of_the_row(batch: PackedBatch, num_patches: int | None = None):
    return patch_layout(batch._replace(next_starts_BT=batch.starts_BT.roll(-1, 1)), num_patches)


def one_document_of_patches(batch: PackedBatch, num_patches: int | None = None):
    layout = patch_layout(batch, num_patches)
    return layout._replace(visible_from_BP=torch.zeros_like(layout.visible_from_BP))


FROM_THE_FUTURE = {
    "n-grams placed at their first byte": (bltmodel.embeddings, "ngram_rows", lambda *args: ngram_rows(*args).roll(-2, 1)),
    "bytes see later bytes": (bltmodel.model, "banded_mask", lambda *args: open_mask(banded_mask(*args))),
    "patches see later patches": (bltmodel.model, "dense_mask", lambda *args: open_mask(dense_mask(*args))),
    "pooling over the neighbour's byte": (bltmodel.encoder, "pool", lambda x, own, *args: pool(x, one_row_later(own), *args)),
    "patches ask the neighbour's byte": (
        bltmodel.encoder,
        "attend_over_bytes",
        lambda q, k, v, own: attend_over_bytes(q, k, v, one_row_later(own)),
    ),
    "bytes ask the next patch": (
        bltmodel.decoder,
        "attend_over_queries",
        lambda q, k, v, patches: attend_over_queries(q, k, v, (patches + 1).clamp(max=k.shape[1] - 1)),
    ),
    "the decoder knows its own patch": (bltmodel.model, "patch_layout", own_instead_of_complete),
    "starts from the future": (bltmodel.model, "patch_layout", starts_from_the_future),
}

FROM_NEIGHBOURS = {
    "n-grams reach over the boundary": (
        bltmodel.embeddings,
        "ngram_rows",
        lambda ids, visible_from, *args: ngram_rows(ids, torch.zeros_like(visible_from), *args),
    ),
    "bytes see the document before": (bltmodel.model, "banded_mask", lambda visible_from, *args: banded_mask(visible_from * 0, *args)),
    "patches see the document before": (bltmodel.model, "patch_layout", one_document_of_patches),
    "the next document's start": (bltmodel.model, "patch_layout", starts_of_the_next_token_of_the_row),
}


def rows_of_documents() -> list[list[Patched]]:
    rng = np.random.default_rng(0)
    return [[random_document(rng, num_bytes, 0.4) for num_bytes in (12, 0, 20, 7)] for _ in range(16)]


ASKED_AFTER_EVERY_LAYER = CONFIGS["mean, asked after every layer"]


@pytest.mark.parametrize("config", [CONFIGS["usual"], ASKED_AFTER_EVERY_LAYER], ids=["usual", "asked after every layer"])
@pytest.mark.parametrize("leak", FROM_THE_FUTURE.values(), ids=FROM_THE_FUTURE)
def test_a_planted_leak_from_the_future_is_found(leak, config, monkeypatch):
    monkeypatch.setattr(*leak)
    assert future_leaks(model_of(config))
    assert row_leaks(model_of(config), rows_of_documents())


@pytest.mark.parametrize("leak", FROM_NEIGHBOURS.values(), ids=FROM_NEIGHBOURS)
def test_a_planted_leak_from_a_neighbour_is_found(leak, monkeypatch):
    monkeypatch.setattr(*leak)
    assert neighbour_leaks(whole_model)
    assert row_leaks(whole_model, rows_of_documents())


# What is read at a wrong place, as n-grams and starts are, has no gradient.
WITH_GRADIENTS = [
    "bytes see later bytes",
    "patches see later patches",
    "pooling over the neighbour's byte",
    "patches ask the neighbour's byte",
    "bytes ask the next patch",
    "the decoder knows its own patch",
    "bytes see the document before",
    "patches see the document before",
]


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_a_planted_leak_has_gradients(name, monkeypatch):
    model, batch = usual_model(), pack(rows_of_documents())
    assert not gradient_leaks(model, model, batch)
    monkeypatch.setattr(*(FROM_THE_FUTURE | FROM_NEIGHBOURS)[name])
    assert gradient_leaks(model, model, batch)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (embeddings, "n-grams placed at their first byte"),
        (byte_states, "bytes see later bytes"),
        (pooled_patches, "pooling over the neighbour's byte"),
        (encoded_patches, "patches ask the neighbour's byte"),
        (latent_patches, "patches see later patches"),
        (decoded_states, "bytes ask the next patch"),
        (decoded_states, "the decoder knows its own patch"),
        (decoded_states, "starts from the future"),
    ],
)
def test_a_leak_planted_in_a_part_is_found_there(part, name, monkeypatch):
    monkeypatch.setattr(*FROM_THE_FUTURE[name])
    assert future_leaks(part)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (embeddings, "n-grams reach over the boundary"),
        (byte_states, "bytes see the document before"),
        (decoded_states, "the next document's start"),
    ],
)
def test_a_leak_between_documents_planted_in_a_part_is_found_there(part, name, monkeypatch):
    monkeypatch.setattr(*FROM_NEIGHBOURS[name])
    assert neighbour_leaks(part)
