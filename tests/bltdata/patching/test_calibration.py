import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import PatchingError
from bltdata.patching import PatchRule, calibrate, calibration

Documents = list[tuple[bytes, np.ndarray]]


def make_documents(seed: int, count: int = 8, step: float = 256, dtype: type = np.float16) -> Documents:
    """Documents of words and lines with skewed entropies on a grid of 1 / step nats; a step of 0 leaves them as drawn."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        data = rng.choice(np.frombuffer(b"abcde fgh. \n", dtype=np.uint8), int(rng.integers(0, 300))).tobytes()
        entropies = np.minimum(rng.gamma(1.3, 1.0, len(data) + 1), 5.5)
        documents.append((data, (np.round(entropies * step) / step if step else entropies).astype(dtype)))
    return documents


def mean_length(documents: Documents, rule: PatchRule) -> float:
    return sum(len(data) + 1 for data, _ in documents) / sum(rule.lengths(*document).size for document in documents)


def best_by_trying(documents: Documents, form: PatchRule, target: float, field: str = "threshold") -> float:
    """The nearest mean of all thresholds that tell the documents' values apart."""
    values = [entropies.astype(np.float32) for _, entropies in documents]
    compared = np.concatenate([np.diff(value) if field == "relative_threshold" else value for value in values])
    lowest = 0.0 if field == "threshold" else -6.0
    thresholds = [lowest, *(float(value) for value in np.unique(compared) if value <= math.log(260))]
    settings = {"threshold": form.threshold, "relative_threshold": form.relative_threshold}
    means = []
    for threshold in thresholds:
        settings[field] = threshold
        limits = {"min_length": form.min_length, "max_length": form.max_length, "reset_at_newline": form.reset_at_newline}
        means.append(mean_length(documents, PatchRule(**settings, **limits)))  # type: ignore[arg-type]
    return min(means, key=lambda mean: abs(mean - target))


@given(st.integers(0, 1000), st.sampled_from([2.0, 4.0, 256.0]), st.floats(1.2, 12))
def test_one_threshold_is_exact(seed: int, step: float, target: float) -> None:
    documents = make_documents(seed, count=3, step=step)
    shortest, longest = (mean_length(documents, PatchRule(threshold=threshold)) for threshold in (0.0, 5.5))
    found = calibrate(documents, PatchRule(), min(max(target, shortest), longest))
    assert found.mean_patch_length == pytest.approx(mean_length(documents, found.rule))
    target = found.target_patch_length
    assert abs(found.mean_patch_length - target) == pytest.approx(abs(best_by_trying(documents, PatchRule(), target) - target))


FORMS = [
    PatchRule(max_length=6),
    PatchRule(min_length=2),
    PatchRule(reset_at_newline=True),
    PatchRule(relative_threshold=0.0),
    PatchRule(relative_threshold=-0.5, max_length=8, reset_at_newline=True),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("target", [4.0, 4.5])
def test_other_rules_are_as_near_as_can_be(form: PatchRule, target: float) -> None:
    documents = make_documents(3, step=16)
    found = calibrate(documents, form, target, field="threshold")
    assert found.field == "threshold"
    assert found.mean_patch_length == pytest.approx(mean_length(documents, found.rule))
    assert abs(found.mean_patch_length - target) == pytest.approx(abs(best_by_trying(documents, form, target) - target))
    assert (found.rule.max_length, found.rule.relative_threshold) == (form.max_length, form.relative_threshold)


@pytest.mark.parametrize("form", [PatchRule(relative_threshold=0.0), PatchRule(relative_threshold=9.0, max_length=8)], ids=str)
def test_the_relative_threshold_is_calibrated_where_it_is_the_only_one(form: PatchRule) -> None:
    documents = make_documents(4, step=32)
    found = calibrate(documents, form, 4.5)
    assert found.field == "relative_threshold"
    assert found.rule.threshold is None
    assert found.rule.relative_threshold == found.threshold
    best = best_by_trying(documents, form, 4.5, "relative_threshold")
    assert abs(found.mean_patch_length - 4.5) == pytest.approx(abs(best - 4.5))
    low = calibrate(documents, form, 1.2)
    assert low.threshold < 0
    assert low.mean_patch_length == pytest.approx(1.2, rel=0.02)


def test_both_thresholds_one_after_the_other() -> None:
    documents = make_documents(5)
    rule = calibrate(documents, PatchRule(), 3.0).rule
    found = calibrate(documents, rule, 4.5, field="relative_threshold")
    assert found.rule.threshold == rule.threshold
    assert found.mean_patch_length == pytest.approx(4.5, rel=0.005)
    assert found.mean_patch_length == pytest.approx(mean_length(documents, found.rule))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_entropies_on_no_grid(dtype: type) -> None:
    documents = make_documents(6, count=40, step=0, dtype=dtype)
    found = calibrate(documents, PatchRule(), 4.5)
    assert found.mean_patch_length == pytest.approx(4.5, rel=0.005)
    assert found.mean_patch_length == mean_length(documents, found.rule)
    assert float(np.float16(found.threshold)) == found.threshold


def test_it_holds_on_documents_not_seen() -> None:
    found = calibrate(make_documents(7, count=200), PatchRule(), 4.5)
    assert mean_length(make_documents(8, count=200), found.rule) == pytest.approx(4.5, rel=0.03)


def test_the_threshold_keeps_away_from_the_values() -> None:
    documents = [(b"abc", np.array([0, 1, 2, 3], dtype=np.float16))]
    assert calibrate(documents, PatchRule(), 2.0).rule.threshold == 2.5
    assert calibrate(documents, PatchRule(max_length=100), 4 / 3).rule.threshold == 1.5
    assert calibrate([(b"ab", np.array([0, 0.25, 4], dtype=np.float16))], PatchRule(), 1.5).rule.threshold == 2.125


def test_histogram_and_cutting_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_BATCH", 100)
    documents = make_documents(9)
    for form in (PatchRule(), PatchRule(relative_threshold=0.0)):
        counted = calibrate(documents, form, 4.5)
        cut = calibrate(documents, PatchRule(relative_threshold=form.relative_threshold, max_length=10_000), 4.5)
        assert (counted.threshold, counted.num_patches) == (cut.threshold, cut.num_patches)


def test_documents_are_read_once_and_not_kept_by_reference() -> None:
    def reused() -> Iterator[tuple[bytes, np.ndarray]]:
        buffer = np.empty(0, dtype=np.float16)
        for data, entropies in make_documents(10):
            buffer = buffer if buffer.size == entropies.size else np.empty_like(entropies)
            buffer[:] = entropies
            yield data, buffer
            buffer[:] = 0

    for form in (PatchRule(), PatchRule(max_length=20)):
        assert calibrate(reused(), form, 4.5) == calibrate(make_documents(10), form, 4.5)


def test_what_is_reported() -> None:
    documents = make_documents(11)
    found = calibrate(documents, PatchRule(threshold=3.0), 4.5)
    assert found.num_documents == len(documents)
    assert found.num_bytes == sum(len(data) for data, _ in documents)
    assert found.num_patches == sum(found.rule.lengths(*document).size for document in documents)
    assert (found.target_patch_length, found.rule) == (4.5, PatchRule(threshold=found.threshold))


@pytest.mark.parametrize(
    ("form", "target", "message"),
    [
        (PatchRule(), 0.5, r"No threshold makes patches of 0\.5 bytes .* can be reached is 1, with threshold = 0\."),
        (PatchRule(), 1e6, r"nearest mean that can be reached is \d\d+"),
        (PatchRule(max_length=4), 5, r"nearest mean that can be reached is 3\.9"),
        (PatchRule(min_length=3), 2, r"nearest mean that can be reached is 2\.9"),
        (PatchRule(relative_threshold=0.0), 0.9, r"No relative_threshold .* is 1, with"),
        (PatchRule(), math.nan, "target patch length is nan; give a number"),
        (PatchRule(), math.inf, "target patch length is inf"),
        (PatchRule(scheme="space"), 4.5, "'space' has no threshold to calibrate"),
    ],
)
def test_targets_out_of_reach(form: PatchRule, target: float, message: str) -> None:
    with pytest.raises(PatchingError, match=message):
        calibrate(make_documents(12), form, target)


def test_documents_that_cannot_be_calibrated_on() -> None:
    with pytest.raises(PatchingError, match="no documents to calibrate on"):
        calibrate([], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="position 1 of document 1 is nan"):
        calibrate([(b"", [0.5]), (b"a", [0.5, math.nan])], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="1 entropies for the 1 bytes of document 0"):
        calibrate([(b"a", [0.5])], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="calibrate 'threshold' or 'relative_threshold'"):
        calibrate([(b"a", [0.5, 0.5])], PatchRule(), 4.5, field="stride")  # type: ignore[arg-type]
