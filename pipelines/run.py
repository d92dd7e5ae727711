"""The stages of every recipe, from raw bytes to a trained BLT and what it is worth."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltdata.atomic import write_bytes, write_json
from bltdata.build import BuildConfig, BuildReporter, build_shards
from bltdata.cli.counting import counted
from bltdata.cli.progress import progress, say
from bltdata.cli.training_options import training_reporter
from bltdata.config import to_mapping
from bltdata.corpus import Corpus
from bltdata.entropy import EntropyModel
from bltdata.entropy.pretraining import pretrain
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, open_shards
from bltdata.stats import DatasetStatistics, Verdict, render, to_page
from bltdata.stats.assess import assess
from bltdata.stats.plots import write_plots
from bltdata.stats.rendering import diagnosis_lines
from bltdata.training.checkpoint import load_model_metadata
from bltdata.verification.overlap import find_overlap
from bltmodel.cutting import LearnedPatches
from bltmodel.evaluation import EvaluationConfig, evaluate
from bltmodel.model import BLT, KIND
from bltmodel.sampling_config import SamplingConfig
from bltmodel.training import train_blt
from bltmodel.training_data import open_training_data
from pipelines.recipe import Recipe
from pipelines.stages import StageRunner

SPLITS = ("train", "validation")

STATISTICS = ["report", "diagnostics", "page"]
"""What the statistics stage makes: part of its inputs, so that it is done again where another version of it made less."""


@dataclass(frozen=True)
class Pipeline:
    """A recipe at work in a folder.

    Attributes:
        recipe: what to do.
        folder: where everything goes.
        device: where models are trained.
        workers: processes that build shards, None for one a core; they change nothing but the time it takes.
    """

    recipe: Recipe
    folder: Path
    device: str = "auto"
    workers: int | None = None

    def run(self) -> dict[str, Any]:
        """Run all stages whose inputs have changed.

        Returns:
            What the run came to, as JSON can hold it: `bits_per_byte` of the BLT on the validation documents,
            `mean_patch_length` of the shards, `entropy_model_bits_per_byte` on the validation documents, `diagnostic_errors` that
            the statistics found, `seconds` that this call took, and where everything is.
        """
        started = time.monotonic()
        stages = StageRunner(self.folder, say)
        recipe = self.recipe
        corpora = {split: recipe.corpus.open(split) for split in SPLITS}
        documents = {split: _identity(corpus) for split, corpus in corpora.items()}
        stages.run(
            "entropy-model",
            [documents, to_mapping(recipe.entropy_model), to_mapping(recipe.entropy_training)],
            (),
            ("entropy-model",),
            lambda: self._train_entropy_model(corpora),
        )
        shard_settings = [to_mapping(recipe.rule), to_mapping(recipe.shards)]
        stages.run(
            "train-shards",
            [documents["train"], shard_settings],
            ("entropy-model",),
            ("shards/train",),
            lambda: self._build(corpora["train"], "train"),
        )
        stages.run(
            "validation-shards",
            [documents["validation"], shard_settings],
            ("entropy-model", "train-shards"),
            ("shards/validation",),
            lambda: self._build(corpora["validation"], "validation"),
        )
        stages.run("statistics", STATISTICS, ("train-shards", "validation-shards"), ("statistics",), self._statistics)
        stages.run(
            "blt",
            [to_mapping(recipe.blt), to_mapping(recipe.blt_training)],
            ("train-shards", "validation-shards"),
            ("blt",),
            self._train_blt,
        )
        stages.run("evaluation", to_mapping(recipe.evaluation), ("blt",), ("evaluation.json",), self._evaluate)
        stages.run("sample", to_mapping(recipe.sample), ("blt",), ("sample.txt",), self._sample)
        return self._summary(stages.results, time.monotonic() - started)

    def _train_entropy_model(self, corpora: dict[str, Corpus]) -> dict[str, Any]:
        config = self.recipe.entropy_training
        with training_reporter(config.steps) as reporter:
            return pretrain(
                corpora["train"],
                corpora["validation"],
                self.recipe.entropy_model,
                config,
                self.folder / "entropy-model",
                device=self.device,
                reporter=reporter,
            )

    def _build(self, corpus: Corpus, split: str) -> dict[str, Any]:
        settings = to_mapping(self.recipe.shards)
        rule = PatchRule(**to_mapping(self.recipe.rule))
        if split != "train":
            # The threshold is the one that the training documents were calibrated to.
            rule = PatchRule(**Manifest.read(self.folder / "shards" / "train").patch_rule)
            settings["target_patch_length"] = None
        with progress(None, f"Building {split} shards", "bytes") as advance:
            reporter = BuildReporter(said=say, built=lambda record: advance(record.num_bytes))
            manifest = build_shards(
                corpus,
                self.folder / "entropy-model",
                BuildConfig(rule=rule, **settings),
                self.folder / "shards" / split,
                workers=self.workers,
                reporter=reporter,
            )
        return {"fingerprint": manifest.fingerprint, "mean_patch_length": manifest.totals.mean_patch_length, **to_mapping(manifest.totals)}

    def _statistics(self) -> dict[str, Any]:
        datasets = {split: open_shards(self.folder / "shards" / split) for split in SPLITS}
        reports = {}
        for split, dataset in datasets.items():
            others = [find_overlap(dataset, other) for other in datasets.values() if other is not dataset]
            report, statistics = assess([dataset], counted([dataset], workers=1), overlaps={0: others})
            self._write_statistics(split, report, statistics, dataset.manifest.patch_rule.get("threshold"))
            lines = "\n".join(diagnosis_lines(report["diagnostics"]))
            say(f"Statistics of the {split} shards:\n{render(report)}\n{lines}")
            reports[split] = report
        return reports

    def _write_statistics(self, split: str, report: dict[str, Any], statistics: DatasetStatistics, threshold_nats: float | None) -> None:
        folder = self.folder / "statistics" / split
        write_plots(statistics.overall(), folder, threshold_nats=threshold_nats)
        page = to_page(report, statistics, title=f"Statistics of the {split} shards", threshold_nats=threshold_nats)
        write_bytes(folder / "report.html", page.encode())
        write_json(folder / "statistics.json", report)

    def _train_blt(self) -> dict[str, Any]:
        config = self.recipe.blt_training
        data = open_training_data(self.folder / "shards")
        with training_reporter(config.steps) as reporter:
            return train_blt(self.recipe.blt, config, data, self.folder / "blt", device=self.device, reporter=reporter)

    def _evaluate(self) -> dict[str, Any]:
        shards = self.folder / "shards" / "validation"
        with progress(None, "Evaluating", "bytes") as advance:
            config = EvaluationConfig(max_bytes=self.recipe.evaluation.max_bytes)
            report = evaluate(self.folder / "blt", shards, config, device=self.device, advance=advance).report()
        write_json(self.folder / "evaluation.json", report)
        overall = report["overall"]
        others = ", ".join(f"{name} {value:.3f}" for name, value in overall["compressors_bits_per_byte"].items())
        say(f"The BLT needs {overall['bits_per_byte']:.3f} bits per byte on {overall['bytes']:,} held-out bytes ({others}).")
        return report

    def _sample(self) -> str:
        settings = self.recipe.sample
        prompt = settings.prompt.encode()
        patches = LearnedPatches.of(load_model_metadata(self.folder / "blt", KIND), self.folder / "blt")
        (new,) = BLT.load(self.folder / "blt").generate(
            [prompt],
            entropy_model=EntropyModel.load(self.folder / "entropy-model"),
            rule=patches.rule_for(None),
            max_new_bytes=settings.max_new_bytes,
            sampling=SamplingConfig(temperature=settings.temperature),
            seed=settings.seed,
            entropy_precision=patches.entropy_precision,
            reset_at_newline=patches.context.reset_at_newline,
            scoring_dtype=patches.scoring_dtype,
        )
        write_bytes(self.folder / "sample.txt", prompt + new)
        text = (prompt + new).decode(errors="replace")
        say(f"A sample:\n{text}")
        return text

    def _summary(self, results: dict[str, Any], seconds: float) -> dict[str, Any]:
        statistics = results["statistics"]
        errors = [
            f"{split}: {found['name']}"
            for split in SPLITS
            for found in statistics[split]["diagnostics"]
            if found["verdict"] == Verdict.ERROR
        ]
        if errors:
            say(f"The shards have errors ({'; '.join(errors)}): see {self.folder / 'statistics'}.")
        say(f"Everything is in {self.folder}: entropy-model, shards, statistics, blt, evaluation.json, sample.txt.")
        return {
            "bits_per_byte": results["evaluation"]["overall"]["bits_per_byte"],
            "mean_patch_length": statistics["train"]["overall"]["patch_length"]["mean"],
            "validation_mean_patch_length": statistics["validation"]["overall"]["patch_length"]["mean"],
            "entropy_model_bits_per_byte": statistics["validation"]["overall"]["entropy_model_bits_per_byte"],
            "compressors_bits_per_byte": results["evaluation"]["overall"]["compressors_bits_per_byte"],
            "diagnostic_errors": errors,
            "seconds": seconds,
            "folder": str(self.folder),
        }


def _identity(corpus: Corpus) -> Any:
    """What names the documents of a corpus, and changes when one of its files does."""
    return [corpus.fingerprint, [fragment.fingerprint for fragment in corpus.fragments()]]
