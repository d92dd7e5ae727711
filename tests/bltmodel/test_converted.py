"""A BLT on shards that were converted from Arrow files: nobody knows which entropy model made them."""

from pathlib import Path

from click.testing import CliRunner, Result

from bltdata.convert import FromArrowConfig, arrow_to_shards
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig
from bltmodel.cli import main
from tests.bltdata.reference_files import samples, write_file
from tests.bltmodel.datasets import entropy_model, train


def converted(folder: Path, rule: PatchRule) -> Path:
    """Shards and a BLT on them."""
    for seed, split in enumerate(("train", "validation")):
        path = write_file(folder / f"{split}.arrow", samples(40, seed))
        arrow_to_shards([path], RepatchConfig(rule=rule), FromArrowConfig(), folder / "shards" / split)
    train(folder / "shards", folder / "blt", steps=2, evaluate_every=2)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_it_trains_and_is_measured_but_does_not_generate(tmp_path: Path) -> None:
    folder = converted(tmp_path, PatchRule(threshold=1.5))
    measured = run("evaluate", "--model", folder / "blt", "--shards", folder / "shards" / "validation", "--json")
    assert measured.exit_code == 0, measured.stderr
    entropy_model().save(tmp_path / "entropy-model")
    result = run("generate", "--model", folder / "blt", "--entropy-model", tmp_path / "entropy-model", "--prompt", "a")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "Nobody knows which entropy model made the shards that" in result.stderr


def test_a_rule_that_reads_no_entropies_needs_no_model(tmp_path: Path) -> None:
    folder = converted(tmp_path, PatchRule(scheme="fixed", stride=4))
    entropy_model().save(tmp_path / "entropy-model")
    arguments = ["--model", folder / "blt", "--entropy-model", tmp_path / "entropy-model", "--prompt", "a", "--max-new-bytes", "3"]
    assert run("generate", *arguments).exit_code == 0
