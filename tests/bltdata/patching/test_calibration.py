import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import PatchingError
from bltdata.patching import PatchRule, batch, calibrate
from bltdata.patching.batch import DocumentBatch, batches_of
from bltdata.patching.calibration import calibrate_sources
from bltdata.patching.sources import SourceRules, count_patches

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
    monkeypatch.setattr(batch, "_BATCH", 100)
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
        (PatchRule(), "4.5", "target patch length is '4.5'; give a number"),
        (PatchRule(), None, "target patch length is None; give a number"),
        (PatchRule(), math.inf, "target patch length is inf"),
        (PatchRule(scheme="space"), 4.5, "'space' has no threshold to calibrate"),
    ],
)
def test_targets_out_of_reach(form: PatchRule, target: Any, message: str) -> None:
    with pytest.raises(PatchingError, match=message):
        calibrate(make_documents(12), form, target)


def test_documents_that_cannot_be_calibrated_on() -> None:
    with pytest.raises(PatchingError, match="no documents to calibrate on"):
        calibrate([], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="Document 0 is no pair; give pairs of data and entropy_nats"):
        calibrate([b"abc"], PatchRule(), 4.5)  # type: ignore[list-item]
    with pytest.raises(PatchingError, match="position 1 of document 1 is nan"):
        calibrate([(b"", [0.5]), (b"a", [0.5, math.nan])], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="1 entropies for the 1 bytes of document 0"):
        calibrate([(b"a", [0.5])], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="calibrate 'threshold' or 'relative_threshold'"):
        calibrate([(b"a", [0.5, 0.5])], PatchRule(), 4.5, field="stride")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- many documents, by source


def batches_by_source(scale: dict[str, float], seed: int = 0) -> list[DocumentBatch]:
    """Documents of sources whose entropies differ by a factor, three batches of each, in turn."""
    made = []
    for part in range(3):
        for number, (source, factor) in enumerate(scale.items()):
            documents = [
                (data, (np.round(entropies.astype(np.float32) * factor * 256) / 256).clip(0, 5.5).astype(np.float16))
                for data, entropies in make_documents(100 * seed + 10 * part + number, count=40, step=0)
            ]
            (joined,) = batches_of(documents, keeps_bytes=True)
            made.append(dataclasses.replace(joined, source=source))
    return made


@pytest.mark.parametrize("form", [PatchRule(), PatchRule(max_length=12), PatchRule(relative_threshold=0.0)], ids=str)
def test_by_source(form: PatchRule) -> None:
    batches = batches_by_source({"thai": 1.6, "english": 1.0})
    report = calibrate_sources(lambda: batches, form, 4.5, by_source=True)
    assert report.overall.mean_patch_length == pytest.approx(4.5, rel=0.005)
    one = {name: counts.mean_patch_length for name, counts in report.under_overall.items()}
    assert list(one) == list(report.by_source) == ["english", "thai"]
    assert one["english"] > 1.3 * one["thai"]
    for found in report.by_source.values():
        assert found.mean_patch_length == pytest.approx(4.5, rel=0.005)
    # What is said is what cutting gives.
    assert count_patches(batches, SourceRules(default=report.overall.rule)) == report.under_overall
    own = count_patches(batches, report.rules)
    assert {name: counts.num_patches for name, counts in own.items()} == {
        name: found.num_patches for name, found in report.by_source.items()
    }
    # It holds on documents not seen, where one threshold would not.
    unseen = count_patches(batches_by_source({"thai": 1.6, "english": 1.0}, seed=1), report.rules)
    assert unseen["english"].mean_patch_length == pytest.approx(unseen["thai"].mean_patch_length, rel=0.05)


@pytest.mark.parametrize("form", [PatchRule(), PatchRule(max_length=12), PatchRule(min_length=2, reset_at_newline=True)], ids=str)
def test_many_batches_are_calibrated_like_kept_documents(form: PatchRule) -> None:
    documents = make_documents(20, count=30)
    batches = [next(batches_of(documents[begin : begin + 7], keeps_bytes=True)) for begin in range(0, 30, 7)]
    passes = []

    def read() -> Iterator[DocumentBatch]:
        passes.append(1)
        yield from batches

    report = calibrate_sources(read, form, 4.0)
    assert report.overall == calibrate(documents, form, 4.0)
    assert report.by_source == {}
    assert report.rules == SourceRules(default=report.overall.rule)
    assert len(passes) == 1 if form == PatchRule() else 2 < len(passes) <= 14


@pytest.mark.parametrize("form", [PatchRule(), PatchRule(relative_threshold=0.0), PatchRule(max_length=9)], ids=str)
def test_the_curve(form: PatchRule) -> None:
    batches = batches_by_source({"a": 1.0, "b": 0.5})
    curve = calibrate_sources(lambda: batches, form, 4.0).curve
    assert 17 <= len(curve) <= 33
    thresholds = [point.threshold for point in curve]
    assert len(set(np.diff(thresholds))) == 1
    lengths = [point.overall.mean_patch_length for point in curve]
    assert lengths == sorted(lengths)
    field = "relative_threshold" if form.relative_threshold is not None else "threshold"
    for point in (curve[0], curve[5], curve[-1]):
        rule = dataclasses.replace(form, **{field: max(point.threshold, 0.0) if field == "threshold" else point.threshold})
        assert count_patches(batches, SourceRules(default=rule)) == point.by_source


def test_a_source_that_cannot_be_held_to_the_target() -> None:
    batches = batches_by_source({"long": 1.0})
    (short,) = batches_of([(b"a", np.array([1, 2], dtype=np.float16))], keeps_bytes=True)
    batches.append(dataclasses.replace(short, source="short"))
    assert calibrate_sources(lambda: batches, PatchRule(), 4.5).by_source == {}
    with pytest.raises(PatchingError, match=r"on average of the documents of source 'short'; the nearest mean .* is 2, with threshold = "):
        calibrate_sources(lambda: batches, PatchRule(), 4.5, by_source=True)


def test_batches_that_cannot_be_calibrated_on() -> None:
    with pytest.raises(PatchingError, match="no documents to calibrate on"):
        calibrate_sources(lambda: [], PatchRule(), 4.5)
    (good,) = batches_of([(b"ab", np.array([1, 2, 3], dtype=np.float16))], keeps_bytes=False)
    bad = dataclasses.replace(good, entropy_nats=np.array([1, np.nan, 3], dtype=np.float16))
    with pytest.raises(PatchingError, match="position 1 of document 0 is nan"):
        calibrate_sources(lambda: [bad], PatchRule(), 4.5)
    with pytest.raises(PatchingError, match="has no threshold to calibrate"):
        calibrate_sources(lambda: [good], PatchRule(scheme="byte"), 4.5)
