import itertools
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bltdata.corpus import open_corpus
from bltdata.entropy import EntropyModel, scoring
from bltdata.entropy.scoring import bits_per_byte, entropy_and_nll
from bltdata.entropy.training import train_entropy_model
from bltdata.errors import CheckpointError
from bltdata.nn.attention import AttentionMask, banded_mask
from bltdata.vocab import EOS_ID, MAX_ENTROPY_NATS, VOCAB_SIZE, encode
from tests.bltdata.small import Documents, architecture, opinionated_model, random_documents, training

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "entropies.json").read_text())["cases"]
TOLERANCE = 1e-5
LENGTHS = (0, 1, 2, 40, 0, 7, 150, 1, 8, 9, 0)
"""With a window of 8 and chunks of 16 and so on: empty documents, documents within a chunk, over one border and over many."""

MODEL = opinionated_model()
DOCUMENTS = [np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes() for length in LENGTHS]


def entropies_of(logits: Tensor) -> np.ndarray:
    probabilities = logits.double().softmax(-1)
    return -(probabilities * probabilities.log()).sum(-1).detach().numpy()


def in_one_pass(model: EntropyModel, data: bytes) -> tuple[np.ndarray, float]:
    """Entropies and negative log-likelihood of a document that is alone in one row."""
    ids = torch.from_numpy(encode(data, bos=True))[None]
    targets = [*encode(data).tolist(), EOS_ID]
    with torch.no_grad():
        logits = model.eval()(ids, torch.zeros_like(ids))[0]
    return entropies_of(logits), -float(logits.double().log_softmax(-1)[range(len(targets)), targets].sum())


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 9, 16, 41, 64, 1000])
def test_the_stream_is_one_pass_over_each_document(monkeypatch, chunk):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", chunk)
    scores = list(MODEL.score_with_nll(DOCUMENTS))
    assert [len(score.entropy_nats) for score in scores] == [length + 1 for length in LENGTHS]
    for data, score in zip(DOCUMENTS, scores, strict=True):
        expected, nll = in_one_pass(MODEL, data)
        assert score.entropy_nats.dtype == np.float32
        np.testing.assert_allclose(score.entropy_nats, expected, atol=TOLERANCE, rtol=0)
        assert score.nll_nats == pytest.approx(nll, rel=1e-6, abs=1e-6)


def test_the_model_of_these_tests_has_opinions():
    # Otherwise everything here would hold for whatever is computed.
    entropies = np.concatenate(list(MODEL.score(DOCUMENTS)))
    assert entropies.std() > 0.15
    assert in_one_pass(MODEL, DOCUMENTS[6])[0].std() > 0.15


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 2))
@settings(max_examples=25)
def test_any_documents_in_any_chunks(documents, chunk, model_seed):
    model = opinionated_model(model_seed, window=5, num_layers=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_TOKENS", chunk)
        for data, entropies in zip(documents, model.score(documents), strict=True):
            np.testing.assert_allclose(entropies, in_one_pass(model, data)[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("window", [200, 10**9])
def test_a_window_longer_than_any_document_changes_nothing(monkeypatch, window):
    # Nor does it cost what it could hold, or the longer of these would need more memory than there is.
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    long, longer = (opinionated_model(window=window) for window in (151, window))
    together = zip(DOCUMENTS, long.score(DOCUMENTS), longer.score(DOCUMENTS), strict=True)
    for data, expected, entropies in together:
        np.testing.assert_allclose(entropies, expected, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(entropies, in_one_pass(longer, data)[0], atol=TOLERANCE, rtol=0)


def test_the_first_chunk_has_the_bits_of_all_others(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    # Each fills a chunk, and sees nothing of the window before it.
    first, second, third = MODEL.score([b"fifteen letters"] * 3)
    assert first.tobytes() == second.tobytes() == third.tobytes()


def test_documents_longer_than_the_real_chunk():
    data = np.random.default_rng(1).integers(0, 256, 2 * scoring.CHUNK_TOKENS + 100, dtype=np.uint8).tobytes()
    before = random_documents(3, 30, seed=2)
    *_, entropies = MODEL.score([*before, data])
    # A token sees two layers of seven tokens before it. So many, alone, and the first of them at position 0, say the same:
    # one pass over everything would not do, because of rotations by a position of 8000 four digits are lost.
    seen = MODEL.config.num_layers * (MODEL.config.window - 1)
    ids = torch.from_numpy(encode(data, bos=True))
    ends = torch.arange(seen, len(ids))
    windows = ids[ends[:, None] + torch.arange(-seen, 1)]
    with torch.no_grad():
        logits = MODEL(windows, torch.zeros_like(windows))[:, -1]
    np.testing.assert_allclose(entropies[seen:], entropies_of(logits), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(entropies[:seen], in_one_pass(MODEL, data[: seen - 1])[0], atol=TOLERANCE, rtol=0)


def test_order_and_neighbours_make_no_difference(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    together = list(MODEL.score(DOCUMENTS))
    backwards = list(MODEL.score(DOCUMENTS[::-1]))[::-1]
    alone = [next(iter(MODEL.score([data]))) for data in DOCUMENTS]
    for one, other, third in zip(together, backwards, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(one, third, atol=TOLERANCE, rtol=0)


def test_the_same_stream_gives_the_same_bits():
    first, second = ([entropies.tobytes() for entropies in MODEL.score(DOCUMENTS)] for _ in range(2))
    assert first == second


def test_documents_are_read_about_a_chunk_ahead(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    read: list[bytes] = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(b"abc")
            yield read[-1]

    scores = MODEL.score(endless())
    for given_back in range(1, 20):
        assert len(next(scores)) == 4
        # A chunk holds four documents.
        assert len(read) - given_back < 4


@pytest.mark.parametrize("error", [ZeroDivisionError("here"), KeyboardInterrupt()])
@pytest.mark.parametrize("count", [0, 3, len(DOCUMENTS)])
def test_documents_before_one_that_cannot_be_read_have_their_scores(error, count):
    def failing() -> Iterator[bytes]:
        yield from DOCUMENTS[:count]
        raise error

    found = []
    with pytest.raises(type(error)) as caught:
        found.extend(MODEL.score(failing()))
    assert caught.value is error
    # Who interrupts waits for nothing.
    expected = [] if isinstance(error, KeyboardInterrupt) else [*MODEL.score(DOCUMENTS[:count])]
    assert [entropies.tobytes() for entropies in found] == [entropies.tobytes() for entropies in expected]
    # The place where it failed is still seen.
    assert "failing" in [entry.name for entry in caught.traceback]


class Sending:
    """Stands in for a GPU that sends its values: until somebody waits for them there is nothing but NaN to read."""

    def __init__(self) -> None:
        self.num_sent = self.num_awaited = 0
        self.ahead: list[int] = []

    def __call__(self, values: Tensor) -> tuple[Tensor, SimpleNamespace]:
        number, arriving = self.num_sent, torch.full_like(values, math.nan)
        self.num_sent += 1

        def synchronize() -> None:
            assert number == self.num_awaited
            self.num_awaited += 1
            self.ahead.append(self.num_sent - number)
            arriving.copy_(values)

        return arriving, SimpleNamespace(synchronize=synchronize)


@pytest.mark.parametrize("documents", [DOCUMENTS, DOCUMENTS[:3], [b"fifteen letters"], [b"fifteen letters"] * 2, [b"x" * 200], []])
def test_what_a_gpu_sends_is_awaited_when_it_has_the_next_chunk(monkeypatch, documents):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    expected = list(MODEL.score_positions(documents, reset_at_newline=True))
    gpu = Sending()
    monkeypatch.setattr(scoring, "_sent", gpu)
    found = list(MODEL.score_positions(documents, reset_at_newline=True))
    assert [[values.tobytes() for values in scores] for scores in found] == [[values.tobytes() for values in scores] for scores in expected]
    # The last one is followed by none.
    assert gpu.ahead == [2] * (gpu.num_sent - 1) + [1] * min(gpu.num_sent, 1)


@pytest.mark.gpu
@pytest.mark.parametrize("chunk", [16, 64])
def test_a_gpu_has_the_scores_of_a_cpu(monkeypatch, chunk):
    expected = list(MODEL.score(DOCUMENTS))
    monkeypatch.setattr(scoring, "GPU_CHUNK_TOKENS", chunk)
    for entropies, on_cpu in zip(opinionated_model().to("cuda").score(DOCUMENTS), expected, strict=True):
        np.testing.assert_allclose(entropies, on_cpu, atol=1e-4, rtol=0)


def test_on_a_gpu_documents_are_read_two_chunks_ahead(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    monkeypatch.setattr(scoring, "_sent", Sending())
    num_read = 0

    def endless() -> Iterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            yield b"abc"

    scores = MODEL.score(endless())
    for given_back in range(1, 20):
        next(scores)
        # A chunk holds four documents.
        assert num_read - given_back < 8


def test_nothing_to_score():
    assert list(MODEL.score([])) == []


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_entropies_are_possible(scale):
    model = opinionated_model()
    with torch.no_grad():
        model.head.weight.mul_(scale)
    for score in model.score_with_nll(DOCUMENTS):
        assert np.isfinite(score.entropy_nats).all()
        assert score.entropy_nats.min() >= 0
        assert score.entropy_nats.max() <= np.float32(MAX_ENTROPY_NATS)
        assert math.isfinite(score.nll_nats)
        assert score.nll_nats >= 0


@pytest.mark.parametrize("name", ["embedding.weight", "layers.1.ffn.up_proj.weight", "head.weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_damaged_model_has_no_scores(name, value):
    model = opinionated_model()
    with torch.no_grad():
        # Of the embeddings that of the byte 3.
        model.state_dict()[name][7] = value
    with pytest.raises(CheckpointError, match=r"^What the entropy model predicts are no numbers; it is damaged, train it again\.$"):
        list(model.score([b"ab\x03"]))


def test_a_model_that_knows_nothing():
    model = opinionated_model()
    torch.nn.init.zeros_(model.head.weight)
    (score,) = model.score_with_nll([b"hello"])
    np.testing.assert_allclose(score.entropy_nats, math.log(260), rtol=1e-6)
    assert score.nll_nats == pytest.approx(6 * math.log(260))
    # Six predictions, five bytes.
    assert bits_per_byte(score.nll_nats, 5) == pytest.approx(6 / 5 * math.log2(260))


def test_bits_per_byte_of_nothing():
    assert math.isnan(bits_per_byte(1.0, 0))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{len(case['logits'])} logits")
def test_entropies_of_the_vectors(case):
    entropy, nll = entropy_and_nll(torch.tensor([case["logits"]]), torch.tensor([1]))
    assert float(entropy) == pytest.approx(case["expected_nats"], abs=1e-6)
    exact = np.array(case["logits"])
    assert float(nll) == pytest.approx(np.log(np.exp(exact).sum()) - exact[1], abs=1e-5)


@given(st.lists(st.floats(-300, 300), min_size=2, max_size=VOCAB_SIZE))
def test_entropies_of_any_logits(logits):
    values = np.array(logits)
    shifted = values - values.max()
    probabilities = np.exp(shifted) / np.exp(shifted).sum()
    # ln p, without the logarithm of what has vanished.
    expected = float(-(probabilities * (shifted - np.log(np.exp(shifted).sum()))).sum())
    entropy, nll = entropy_and_nll(torch.tensor([logits], dtype=torch.float64), torch.tensor([0]))
    assert float(entropy) == pytest.approx(expected, abs=1e-4)
    assert float(nll) == pytest.approx(-(shifted[0] - np.log(np.exp(shifted).sum())), abs=1e-3, rel=1e-5)


class Allocations(TorchDispatchMode):
    """The bytes of all memory that operations ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {tensor.data_ptr() for tensor in args if isinstance(tensor, Tensor)}
        if isinstance(out, Tensor) and out.data_ptr() not in given:
            self.sizes.append(out.untyped_storage().nbytes())
        return out


def test_entropies_take_the_memory_of_the_logits_twice():
    logits, targets = torch.randn(50, 260), torch.zeros(50, dtype=torch.int64)
    expected = -(logits.log_softmax(-1).exp() * logits.log_softmax(-1)).sum(-1)
    with Allocations() as allocations:
        entropy, _ = entropy_and_nll(logits, targets)
    assert [size for size in allocations.sizes if size >= logits.nbytes] == [logits.nbytes] * 2
    assert torch.equal(entropy, expected)


def test_half_precision_is_near():
    exact = list(MODEL.score_with_nll(DOCUMENTS))
    coarse = list(MODEL.score_with_nll(DOCUMENTS, torch.bfloat16))
    errors = np.concatenate([abs(a.entropy_nats - b.entropy_nats) for a, b in zip(exact, coarse, strict=True)])
    # It is another computation, and not a bad one: a bfloat16 has 8 bits.
    assert 0 < errors.mean() < 0.02
    assert errors.max() < 0.2
    assert sum(b.nll_nats for b in coarse) == pytest.approx(sum(a.nll_nats for a in exact), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_model_in_half_precision_is_scored_in_its_own(monkeypatch, dtype, precision):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    exact = list(MODEL.score(DOCUMENTS))
    coarse = list(opinionated_model().to(dtype).score_with_nll(DOCUMENTS, precision))
    errors = np.concatenate([abs(a - b.entropy_nats) for a, b in zip(exact, coarse, strict=True)])
    assert coarse[0].entropy_nats.dtype == np.float32
    assert 0 < errors.mean() < 0.02


def test_half_precision_moves_few_boundaries_of_real_text(tmp_path):
    documents = [document.data[:4000] for document in itertools.islice(open_corpus("python-docs"), 20)]
    config = training(steps=150, row_tokens=256, batch_rows=4, evaluate_every=150)
    stores = Documents(documents[2:]), Documents(documents[:2])
    train_entropy_model(architecture(dim=32, window=32), config, *stores, tmp_path, data={}, device=torch.device("cpu"))
    model = EntropyModel.load(tmp_path)
    exact, coarse = (
        np.concatenate([score.entropy_nats for score in model.score_with_nll(documents[:4], precision)])
        for precision in (torch.float32, torch.bfloat16)
    )
    # Patches of about 4.5 bytes. What moves is where entropies lie at the threshold.
    threshold = np.quantile(exact, 1 - 1 / 4.5)
    moved = (exact > threshold) != (coarse > threshold)
    assert exact.std() > 0.3
    assert 0 < moved.mean() < 0.01


def test_memory_does_not_grow_with_more_than_the_result():
    data = bytes(1 << 19)
    model = opinionated_model(dim=4, num_layers=1, num_heads=1, ffn_dim=4, window=2)
    tracemalloc.start()
    try:
        (entropies,) = model.score([data])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The pieces and what they are joined to, 4 bytes each; ids or targets of the whole would be 8 bytes each.
    assert len(entropies) == len(data) + 1
    assert peak < 10 * len(data)


# ------------------------------------------------------------------------------------------------------------------ leaks


def with_other_bytes_from(data: bytes, position: int) -> bytes:
    return data[:position] + bytes((byte + 101) % 256 for byte in data[position:])


def future_leaks(model: EntropyModel, *, training: bool) -> list[tuple[int, int]]:
    """(changed byte, position whose logits changed though it stands at or before that byte)."""
    data = DOCUMENTS[3]
    rows = [data, *(with_other_bytes_from(data, position) for position in range(len(data)))]
    ids = torch.from_numpy(np.stack([encode(row, bos=True) for row in rows]))
    logits = model.train(training)(ids, torch.zeros_like(ids)).detach()
    model.eval()
    changed = (logits[1:] - logits[0]).abs().amax(-1) > 1e-6
    return [(byte, position) for byte, position in changed.nonzero().tolist() if position <= byte]


def scores_that_leak(model: EntropyModel) -> list[tuple[int, int]]:
    """The same of entropies, as a stream over many chunks gives them."""
    data = DOCUMENTS[3]
    (before,) = model.score([data])
    found = []
    for byte in range(len(data)):
        (after,) = model.score([with_other_bytes_from(data, byte)])
        found += [(byte, position) for position in np.flatnonzero(abs(after - before)[: byte + 1] > 1e-6).tolist()]
        assert not np.allclose(after[byte + 1 :], before[byte + 1 :]), "a change that makes no difference proves nothing"
    return found


def neighbours_that_leak(model: EntropyModel) -> list[int]:
    """Documents whose entropies change with the documents before them."""
    before = list(model.score(DOCUMENTS))
    others = [with_other_bytes_from(data, 0) for data in DOCUMENTS]
    found = []
    for index in range(1, len(DOCUMENTS)):
        after = list(model.score(others[:index] + DOCUMENTS[index:]))
        if not np.allclose(after[index], before[index], atol=TOLERANCE, rtol=0):
            found.append(index)
    return found


@pytest.mark.parametrize("training", [False, True])
def test_no_logit_knows_the_byte_it_predicts(training):
    assert future_leaks(MODEL, training=training) == []


@pytest.mark.parametrize("chunk", [7, 16, 64])
def test_no_entropy_knows_the_byte_it_is_about(monkeypatch, chunk):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", chunk)
    assert scores_that_leak(MODEL) == []


@pytest.mark.parametrize("chunk", [7, 16, 64])
def test_no_document_knows_another(monkeypatch, chunk):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", chunk)
    assert neighbours_that_leak(MODEL) == []


def seeing_one_ahead(visible_from: Tensor, window: int, num_past: int = 0) -> AttentionMask:
    mask = banded_mask(visible_from, window, num_past)
    mask.bias.masked_fill_(mask.visible.roll(1, -1), 0.0)
    return mask


def seeing_neighbours(visible_from: Tensor, window: int, num_past: int = 0) -> AttentionMask:
    return banded_mask(torch.zeros_like(visible_from), window, num_past)


@pytest.mark.parametrize("training", [False, True])
def test_a_planted_leak_is_found_in_the_logits(monkeypatch, training):
    monkeypatch.setattr("bltdata.entropy.model.banded_mask", seeing_one_ahead)
    assert future_leaks(MODEL, training=training) != []


def test_a_planted_leak_is_found_in_the_stream(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    monkeypatch.setattr("bltdata.entropy.model.banded_mask", seeing_one_ahead)
    assert scores_that_leak(MODEL) != []


def test_a_planted_leak_between_documents_is_found(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 16)
    monkeypatch.setattr("bltdata.entropy.model.banded_mask", seeing_neighbours)
    assert neighbours_that_leak(MODEL) != []
