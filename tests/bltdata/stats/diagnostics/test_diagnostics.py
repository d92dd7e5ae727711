"""Every diagnostic: quiet about a sound dataset, and loud about a fault that is planted for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bltdata.cli import main
from bltdata.patching import PatchRule
from bltdata.shards import open_shards, round_entropies
from bltdata.stats import Diagnosis, Overlap, Verdict, collect_statistics, diagnose, take_sample
from bltdata.vocab import MAX_ENTROPY_NATS
from tests.bltdata import damage

Rows = list[dict[str, Any]]
Write = Callable[..., Path]
MakeRow = Callable[..., dict[str, Any]]


def diagnosed(folder: Path, **options: Any) -> dict[str, Diagnosis]:
    dataset = open_shards(folder)
    return {each.name: each for each in diagnose(collect_statistics(dataset), dataset.manifest, take_sample(dataset), **options)}


def verdicts(found: dict[str, Diagnosis], *wanted: Verdict) -> set[str]:
    return {name for name, each in found.items() if each.verdict in wanted}


def changed(rows: Rows, change: Callable[[dict[str, Any]], dict[str, Any]], rule: PatchRule = PatchRule(threshold=1.6)) -> Rows:  # noqa: B008
    """Rows with other values, cut again unless the change says how."""
    made = []
    for row in rows:
        values = change(row)
        both = row | values
        both["entropy_nats"] = round_entropies(np.clip(both["entropy_nats"].astype(np.float32), 0, 5.5))
        if "patch_lengths" not in values:
            both["patch_lengths"] = rule.lengths(both["data"], both["entropy_nats"])
        made.append(both)
    return made


def test_nothing_is_wrong_with_a_sound_dataset(write: Write, sound: Rows) -> None:
    found = diagnosed(write(sound), overlaps=[Overlap(other="validation", num_shared=0, num_documents=40)])
    assert {name: each.evidence for name, each in found.items() if each.verdict is not Verdict.OK} == {}
    assert len(found) == 11
    assert all(each.evidence.endswith(".") and not each.advice for each in found.values())


def test_nothing_can_be_said_of_no_documents(dataset_folder: Callable[..., Path]) -> None:
    found = diagnosed(dataset_folder([]))
    assert {each.verdict for each in found.values()} == {Verdict.NOT_CHECKED}


def test_a_published_run_with_a_wrong_axis_and_a_stride_in_disguise(dataset_folder: Callable[..., Path], row: MakeRow) -> None:
    # A model of 256 symbols, not trained, on rows of 256 positions, so that nobody notices along which axis its entropies are summed:
    # over a window of 128 positions, one sum a symbol, in bits. They are above the threshold of 1.8 nearly everywhere, so that the minimum
    # length of 32 decides alone: seven boundaries in every row, in the name of entropy.
    rng = np.random.default_rng(0)
    rule = PatchRule(threshold=1.8, min_length=32)
    summed, rows = [], []
    for number in range(30):
        logits = rng.normal(0, 0.2, 256) + rng.normal(0, 0.3, (128, 256))
        logits[:, rng.choice(256, 3, replace=False)] += 2.0
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        summed.append(-(chances * np.log2(chances)).sum(axis=0))
        data = rng.bytes(255)
        lengths = rule.lengths(data, round_entropies(summed[-1].clip(0, 5.5).astype(np.float32)))
        rows.append(row(f"{number}", data) | {"patch_lengths": lengths})
    folder = dataset_folder(rows, patch_rule={"scheme": "entropy", "threshold": 1.8, "min_length": 32})
    # The shards' writer refuses such entropies, so they are planted.
    plant = [damage.put("entropy_nats", number, nats.astype(np.float16)) for number, nats in enumerate(summed)]
    damage.rewrite(folder, 0, damage.both(*plant))

    found = diagnosed(folder)
    assert {"entropy range", "fixed stride"} <= verdicts(found, Verdict.ERROR)
    assert found["entropy range"].numbers["max_nats"] > 15 > np.log2(256) > MAX_ENTROPY_NATS
    assert "check that the entropy is summed over the 260 symbols (the last axis" in found["entropy range"].advice.lower()
    assert (found["fixed stride"].numbers["length"], found["fixed stride"].numbers["share"]) == (32, 1.0)
    assert (found["fixed stride"].numbers["mean_boundaries"], found["fixed stride"].numbers["std_boundaries"]) == (7.0, 0.0)
    assert "a stride, whatever the rule is called" in found["fixed stride"].advice

    told = CliRunner().invoke(main, ["entropy-stats", str(folder), "--strict"])
    assert told.exit_code == 1
    lines = [line.strip() for line in told.stdout.splitlines()]
    assert any(line.startswith("error        entropy range: ") for line in lines)
    assert any(line.startswith("error        fixed stride: ") for line in lines)


def test_entropies_that_are_all_the_same(write: Write, sound: Rows) -> None:
    found = diagnosed(write(changed(sound, lambda row: {"entropy_nats": np.full(len(row["data"]) + 1, 2.0)})))
    assert found["entropy range"].verdict is Verdict.ERROR
    assert found["threshold"].verdict is Verdict.ERROR


@pytest.mark.parametrize(("threshold", "share"), [(5.0, 0.0), (0.0, 1.0), (0.01, 1.0)])
def test_a_threshold_that_never_fires_or_always(write: Write, sound: Rows, threshold: float, share: float) -> None:
    rule = PatchRule(threshold=threshold)
    rows = changed(sound, lambda row: {"entropy_nats": np.clip(row["entropy_nats"], 0.1, 5)}, rule)
    found = diagnosed(write(rows, patch_rule={"scheme": "entropy", "threshold": threshold}))
    # A threshold of 0 is how patches of single bytes are asked for.
    assert found["threshold"].verdict is (Verdict.ERROR if threshold else Verdict.WARNING)
    assert found["threshold"].numbers["share_above"] == {"code": share, "news": share}
    assert found["fixed stride"].verdict is not Verdict.ERROR


def test_a_maximum_length_that_does_all_the_work(write: Write, sound: Rows) -> None:
    rule = PatchRule(threshold=5.0, max_length=16)
    found = diagnosed(write(changed(sound, lambda row: {}, rule), patch_rule={"scheme": "entropy", "threshold": 5.0, "max_length": 16}))
    assert verdicts(found, Verdict.ERROR) == {"threshold", "fixed stride", "starts follow entropies"}
    assert (found["fixed stride"].numbers["length"], found["fixed stride"].numbers["share"]) == (16, 1.0)
    # The rule did make them.
    assert found["starts follow entropies"].numbers["documents_cut_otherwise"] == 0
    assert found["starts follow entropies"].advice.startswith("The rule makes these patches")


def test_as_many_boundaries_in_every_document(write: Write, sound: Rows) -> None:
    # Lengths differ, yet each document is cut the same way.
    pattern = np.tile([2, 9, 4, 5], 150)
    rows = changed(
        [row | {"data": row["data"][:2999], "entropy_nats": row["entropy_nats"][:3000]} for row in sound],
        lambda row: {"patch_lengths": pattern},
    )
    found = diagnosed(write(rows))["fixed stride"]
    assert (found.verdict, found.numbers["std_boundaries"]) == (Verdict.ERROR, 0.0)
    assert found.numbers["share"] < 0.3


def test_starts_that_have_nothing_to_do_with_entropies(write: Write, sound: Rows) -> None:
    rng = np.random.default_rng(1)
    found = diagnosed(write(changed(sound, lambda row: {"patch_lengths": rng.permutation(row["patch_lengths"])})))[
        "starts follow entropies"
    ]
    assert (found.verdict, found.numbers["documents_cut_otherwise"]) == (Verdict.ERROR, 40)
    assert "run bltdata verify" in found.advice
    assert found.numbers["separation"] == pytest.approx(0.5, abs=0.05)


def test_one_document_that_is_cut_otherwise(write: Write, sound: Rows) -> None:
    rows = [*sound[:-1], sound[-1] | {"patch_lengths": sound[-1]["patch_lengths"][::-1]}]
    found = diagnosed(write(rows))["starts follow entropies"]
    assert (found.verdict, found.numbers["documents_cut_otherwise"]) == (Verdict.ERROR, 1)


@pytest.mark.parametrize(("factor", "verdict"), [(1.85, Verdict.WARNING), (4.0, Verdict.ERROR)])
def test_a_model_that_is_no_better_than_two_bytes_of_context(write: Write, sound: Rows, factor: float, verdict: Verdict) -> None:
    found = diagnosed(write(changed(sound, lambda row: {"nll_nats": row["nll_nats"] * factor})))
    assert found["better than two bytes of context"].verdict is verdict
    assert found["entropies can be believed"].numbers["cost_over_promise"] == pytest.approx(factor, rel=0.05)
    assert found["entropies can be believed"].verdict is verdict


@pytest.mark.parametrize(("factor", "verdict"), [(0.4, Verdict.WARNING), (0.1, Verdict.ERROR)])
def test_a_model_that_sees_what_it_predicts(write: Write, sound: Rows, factor: float, verdict: Verdict) -> None:
    rows = changed(sound, lambda row: {"nll_nats": row["nll_nats"] * factor, "entropy_nats": row["entropy_nats"] * factor})
    found = diagnosed(write(rows))
    assert found["not too good to be true"].verdict is verdict
    assert found["entropies can be believed"].verdict is Verdict.OK


def test_a_short_sample_or_an_unknown_likelihood_is_no_evidence(write: Write, sound: Rows) -> None:
    names = {"better than two bytes of context", "not too good to be true"}
    few = diagnosed(write(sound[:4], name="few"))
    assert names < verdicts(few, Verdict.NOT_CHECKED)
    rows = [row | {"nll_nats": None} for row in sound]
    unknown = diagnosed(write(rows, entropy_model={"fingerprint": None}))
    assert names | {"entropies can be believed"} == verdicts(unknown, Verdict.NOT_CHECKED) - {"splits are apart"}


@pytest.mark.parametrize(("last", "verdict"), [(1.6, Verdict.WARNING), (3.5, Verdict.ERROR)])
def test_entropies_that_drift(write: Write, sound: Rows, last: float, verdict: Verdict) -> None:
    found = diagnosed(
        write(changed(sound, lambda row: {"entropy_nats": row["entropy_nats"] * np.linspace(1, last, len(row["data"]) + 1)}))
    )["no drift inside documents"]
    assert found.verdict is verdict
    assert found.numbers["documents"] == 40


@pytest.mark.parametrize("window", [512, 1024])
@pytest.mark.parametrize(("rise", "verdict"), [(0.6, Verdict.WARNING), (3.0, Verdict.ERROR)])
def test_windows_that_show_at_their_seams(write: Write, sound: Rows, window: int, rise: float, verdict: Verdict) -> None:
    def seam(row: dict[str, Any]) -> dict[str, Any]:
        place = np.arange(len(row["data"]) + 1)
        return {"entropy_nats": row["entropy_nats"] + rise * ((place % window < 8) & (place >= window))}

    found = diagnosed(write(changed(sound, seam)))["no seams of windows"]
    assert (found.verdict, found.numbers["window"]) == (verdict, window)


def test_a_source_that_pays_more(write: Write, sound: Rows) -> None:
    finer = {"code": {"scheme": "entropy", "threshold": 0.3}}
    fine = changed([row for row in sound if row["source"] == "code"], lambda row: {}, PatchRule(threshold=0.3))
    found = diagnosed(write([*(row for row in sound if row["source"] == "news"), *fine], source_rules=finer))["sources pay alike"]
    ratio = found.numbers["patches_per_byte_over_rest"]["code"]
    assert found.verdict is (Verdict.ERROR if ratio > 3 else Verdict.WARNING)
    assert ratio > 1.5
    assert "'code'" in found.evidence


def test_splits_that_share_documents(write: Write, sound: Rows) -> None:
    found = diagnosed(write(sound), overlaps=[Overlap(other="validation", num_shared=3, num_documents=40)])["splits are apart"]
    assert (found.verdict, found.numbers) == (Verdict.ERROR, {"shared": {"validation": 3}})
    assert "3 of 40 documents" in found.evidence


def test_other_rules_are_not_held_to_entropies(write: Write, sound: Rows) -> None:
    rows = changed(sound, lambda row: {}, PatchRule(scheme="fixed", stride=7))
    found = diagnosed(write(rows, patch_rule={"scheme": "fixed", "stride": 7}))
    assert {"fixed stride", "starts follow entropies", "threshold"} <= verdicts(found, Verdict.NOT_CHECKED)
    assert verdicts(found, Verdict.ERROR, Verdict.WARNING) == set()
