import numpy as np
import pytest

from bltdata.config import to_mapping
from bltdata.errors import ShardError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules, count_patches
from bltdata.shards import open_shards, round_entropies
from bltdata.shards.batches import document_batches
from bltdata.shards.calibration import calibrate_shards


def rows_of(source: str, factor: float, count: int, seed: int) -> list[dict]:
    """Rows with entropies that are a factor larger than those of another source."""
    rng = np.random.default_rng([seed, len(source)])
    made = []
    for number in range(count):
        data = rng.bytes(int(rng.integers(100, 900)))
        entropies = round_entropies((rng.gamma(1.2, 1.0, len(data) + 1) * factor).clip(0, 5.5).astype(np.float32))
        made.append(
            {"doc_id": f"{source}-{number}", "source": source, "data": data, "entropy_nats": entropies,
             "patch_lengths": PatchRule(threshold=2.5).lengths(data, entropies), "nll_nats": 1.0}
        )  # fmt: skip
    return made


@pytest.fixture
def two_languages(dataset_folder):
    def write(name: str, seed: int):
        english, thai = rows_of("english", 0.7, 60, seed), rows_of("thai", 1.4, 60, seed)
        # Both in one row group, and row groups of one of them.
        mixed = [row for pair in zip(english[:30], thai[:30], strict=True) for row in pair]
        return open_shards(dataset_folder(mixed, english[30:], thai[30:], name=name))

    return write


@pytest.mark.parametrize("rule", [PatchRule(), PatchRule(max_length=16, reset_at_newline=True)], ids=["one threshold", "lengths"])
def test_two_languages_that_one_threshold_cuts_differently(two_languages, rule):
    dataset, held_out = two_languages("seen", 0), two_languages("unseen", 1)
    found = calibrate_shards(dataset, rule, 4.5, by_source=True, held_out=held_out)
    report = found.to_mapping()
    assert report["mean_patch_length"] == pytest.approx(4.5, rel=0.005)
    one = {name: source["mean_patch_length"] for name, source in report["sources"].items()}
    assert one["english"] > 1.3 * one["thai"]
    own = {name: source["own"]["mean_patch_length"] for name, source in report["sources"].items()}
    assert own == {"english": pytest.approx(4.5, rel=0.005), "thai": pytest.approx(4.5, rel=0.005)}
    unseen = report["held_out"]["sources"]
    assert unseen["english"]["mean_patch_length"] > 1.3 * unseen["thai"]["mean_patch_length"]
    assert {name: source["own_mean_patch_length"] for name, source in unseen.items()} == {
        "english": pytest.approx(4.5, rel=0.03),
        "thai": pytest.approx(4.5, rel=0.03),
    }
    assert report["held_out"]["mean_patch_length"] == pytest.approx(4.5, rel=0.03)
    assert report["sources"]["thai"]["own"]["rule"] == to_mapping(found.found.rules.rule_for("thai"))
    assert 17 <= len(report["curve"]) <= 33
    assert set(report["curve"][0]["sources"]) == {"english", "thai"}


def test_what_is_said_is_what_cutting_gives(two_languages):
    dataset = two_languages("seen", 0)
    found = calibrate_shards(dataset, PatchRule(), 4.5)
    counts = count_patches(document_batches(dataset, needs_bytes=False), SourceRules(default=found.found.overall.rule))
    assert counts == found.found.under_overall
    report = found.to_mapping()
    assert report["held_out"] is None
    assert report["sources"]["thai"]["own"] is None
    assert report["patches"] == sum(count.num_patches for count in counts.values())
    lengths = [found.found.overall.rule.lengths(row.data, row.entropy_nats).size for row in dataset]
    assert report["patches"] == sum(lengths)


def test_progress_and_other_models(two_languages, dataset_folder):
    dataset = two_languages("seen", 0)
    done: list[int] = []
    calibrate_shards(dataset, PatchRule(), 4.5, progress=done.append)
    assert sum(done) == dataset.manifest.totals.num_bytes
    other = open_shards(dataset_folder(rows_of("thai", 1.4, 3, 0), name="other", entropy_model={"fingerprint": "another"}))
    with pytest.raises(ShardError, match=r"were made with different entropy models, .* scored by the same model\.$"):
        calibrate_shards(dataset, PatchRule(), 4.5, held_out=other)
