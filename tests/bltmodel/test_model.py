import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import CheckpointError, ConfigError, PatchingError
from bltdata.nn.loss import negative_log_likelihood_sum
from bltmodel.model import BLT
from tests.bltmodel.documents import configs, pack, random_document, tiny_config


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_logits_of_a_document(rng):
    model = BLT(tiny_config())
    document = random_document(rng, 20)
    logits = model.logits(document.data, document.lengths.tolist())
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((21, 260), torch.float32, False)
    torch.testing.assert_close(logits, model(pack([[document]]))[0])


@pytest.mark.parametrize(("data", "lengths"), [(b"", [1]), (b"x", [2]), (b"x", [1, 1]), (b"a" * 300, [301]), (b"a" * 300, [1] * 301)])
def test_extreme_documents(data, lengths):
    logits = BLT(tiny_config()).logits(data, lengths)
    assert logits.shape == (len(data) + 1, 260)
    assert logits.isfinite().all()


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(PatchingError, match="The patch lengths sum to 3, but a document of 3 bytes needs 4"):
        BLT(tiny_config()).logits(b"abc", [3])


@settings(max_examples=max(settings().max_examples // 10, 1))
@given(config=configs(), seed=st.integers(0, 2**32 - 1))
def test_packed_rows_equal_documents_alone(config, seed):
    model, rng = BLT(config), np.random.default_rng(seed)
    rows = [[random_document(rng, num_bytes) for num_bytes in sizes] for sizes in ((5, 0, 30), (1, 17), (40,))]
    batch = pack(rows, 45)
    for logits in (model(batch), model(batch, num_patches=60)):
        for packed, row in zip(logits, rows, strict=True):
            alone = torch.cat([model.logits(document.data, document.lengths) for document in row])
            torch.testing.assert_close(packed[: len(alone)], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"pooling": "mean", "encoder_layers": 2, "encoder_cross_attention": "all"}, {"pooling": "min"}])
def test_training_step(rng, precision, options):
    model = BLT(tiny_config(**options))
    batch = pack([[random_document(rng, 20), random_document(rng, 9)], [random_document(rng, 25)]])
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = model(batch)
        loss = negative_log_likelihood_sum(logits, batch.targets_BT)
    assert logits.dtype == torch.float32
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_bfloat16_is_close_to_float32(rng):
    model, batch = BLT(tiny_config()), pack([[random_document(rng, 40)]])
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(batch)
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_padding_has_no_gradient(rng):
    document = random_document(rng, 20)
    gradients = []
    for num_tokens in (21, 40):
        model, batch = BLT(tiny_config()), pack([[document]], num_tokens)
        negative_log_likelihood_sum(model(batch), batch.targets_BT).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for without, with_padding in zip(*gradients, strict=True):
        torch.testing.assert_close(with_padding, without)


def test_training_on_one_document_learns_it(rng):
    model, batch = BLT(tiny_config()), pack([[random_document(rng, 30)]])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = negative_log_likelihood_sum(model(batch), batch.targets_BT) / 31
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 4
    assert losses[-1] < 0.5


def test_a_seed_fixes_the_weights_and_touches_nothing_else():
    before = torch.get_rng_state()
    first, again, other = BLT(tiny_config(), seed=1), BLT(tiny_config(), seed=1), BLT(tiny_config(), seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, other.state_dict()[name]) == name.endswith("norm.weight")


def test_initial_weights_have_the_deviations_of_the_released_models():
    # Cut at three deviations, a normal distribution keeps 0.9866 of its deviation.
    model = BLT(tiny_config(local_dim=64, local_ffn_dim=256, latent_dim=96))
    for weight, size in [
        (model.embedding.tokens.weight, 64),
        (model.embedding.ngrams.weight, 64),
        (model.head.weight, 64),
        (model.encoder.layers[0].ffn.down_proj.weight, 256),
        (model.latent.patch_proj.weight, 128),
        (model.decoder.patch_proj.weight, 96),
    ]:
        assert weight.std().item() == pytest.approx(0.9866 * size**-0.5, rel=0.04)
        assert weight.abs().max() <= 3 * size**-0.5


def test_presets():
    model = BLT.from_preset("tiny")
    assert sum(model.num_parameters().values()) == sum(parameter.numel() for parameter in model.parameters())
    with pytest.raises(ConfigError, match="There is no BLT preset 'tony'; the nearest is 'tiny'"):
        BLT.from_preset("tony")


def test_a_large_model_can_be_described_without_memory():
    with torch.device("meta"):
        model = BLT.from_preset("8b")
    assert all(parameter.is_meta for parameter in model.parameters())


def test_save_and_load(tmp_path, rng):
    model, document = BLT(tiny_config(ngram_sizes=(2, 4)), seed=9), random_document(rng, 15)
    model.save(tmp_path / "model", {"note": "kept"})
    loaded = BLT.load(tmp_path / "model")
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded.logits(document.data, document.lengths), model.logits(document.data, document.lengths))
    assert '"note": "kept"' in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")


def test_loading_draws_no_weights(tmp_path, monkeypatch):
    model = BLT(tiny_config())
    model.save(tmp_path)
    for module in ("bltdata.nn.initialisation", "bltmodel.embeddings"):
        monkeypatch.setattr(f"{module}.truncated_normal_", lambda *_: pytest.fail("Weights were drawn to be written over."))
    loaded = BLT.load(tmp_path)
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_model_saved_before_pooling_was_a_choice_loads(tmp_path):
    model = BLT(tiny_config(encoder_layers=2))
    model.save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["config"]
    assert stored.keys().isdisjoint({"pooling", "encoder_cross_attention"})
    asked = [f"encoder.{name}" for name in BLT.load(tmp_path).encoder.state_dict() if "cross" in name]
    parts = ("query_norm", "key_norm", "q_proj", "k_proj", "v_proj", "o_proj")
    assert asked == [f"encoder.cross_attention.{part}.weight" for part in parts]


@pytest.mark.parametrize("pooling", ["max", "mean", "min"])
def test_patches_are_pooled_once_and_refined_after_each_layer(rng, pooling):
    model = BLT(tiny_config(encoder_layers=3, encoder_cross_attention="all", pooling=pooling), seed=2)
    document = random_document(rng, 9, 0.5)
    seen = []
    encoder = model.encoder
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(output[0][0]))
    encoder.register_forward_hook(lambda module, args, output: seen.append(output[1][0]))
    model.logits(document.data, document.lengths)
    *states, patches = seen
    reduce = {"max": lambda x: x.amax(0), "mean": lambda x: x.mean(0), "min": lambda x: x.amin(0)}[pooling]
    # BOS is a patch of its own, and what begins with the end of the document holds no byte that is seen.
    ends = np.cumsum([1, *document.lengths])
    for patch, (begin, end) in enumerate(itertools.pairwise([0, *ends.clip(max=10)])):
        vectors = encoder.patch_proj(reduce(states[0][begin:end])).view(2, -1) if end > begin else None
        for x_TD, cross_attention in zip(states, [*encoder.earlier_cross_attentions, encoder.cross_attention], strict=True):
            if vectors is not None:
                vectors = cross_attention(vectors, x_TD[begin:end], attend_to_all)
        if vectors is not None:
            torch.testing.assert_close(patches[patch], vectors.detach().flatten())


def attend_to_all(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = torch.einsum("qhk,thk->qht", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("qht,thk->qhk", weights, v)


def test_load_refuses_what_is_no_blt(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model"):
        BLT.load(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "bltdata.EntropyModel", "format_version": 1, "config": {}}')
    with pytest.raises(CheckpointError, match=r"holds bltdata.EntropyModel, but bltmodel.BLT is wanted here"):
        BLT.load(tmp_path)
