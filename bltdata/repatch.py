"""From shards to shards with other patches: another rule, cut from the stored entropies, without the model.

The shards are those that a build with the rule would have made, to the byte, where the dataset still has the plan that made it. They are
made as a build makes them: whole or not at all, the same for any number of workers, and a run that was stopped goes on.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bltdata.config import number_of, to_mapping
from bltdata.engines import open_engine
from bltdata.engines.resume import BuildReporter, agreed_plan, finish_shards, plan_fingerprint
from bltdata.errors import ConfigError, RemoteError, ShardError
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.patching.calibration import CalibrationReport, check_target
from bltdata.patching.sources import SourceRules
from bltdata.remote import AnyPath, published
from bltdata.shards import Manifest, ShardDataset, ShardRecord, ShardWriter, open_shards, read_metadata
from bltdata.shards.batches import cut_again
from bltdata.shards.calibration import calibrate_shards
from bltdata.shards.folder import check_out, check_outside, run_again
from bltdata.shards.record import file_checksum
from bltdata.shards.schema import PLAN_FILE


@dataclass(frozen=True, kw_only=True)
class RepatchConfig:
    """How shards are cut again."""

    rule: PatchRule
    """Where patches start; an `entropy` rule without a threshold is calibrated to `target_patch_length`."""

    source_rules: Mapping[str, PatchRule] = dataclasses.field(default_factory=dict)
    """Sources that get another rule, and theirs."""

    target_patch_length: float | None = None
    """Mean patch length to calibrate the rule's threshold to, on all documents; None to take the rule as it is."""

    by_source: bool = False
    """Calibrate a threshold for each source."""

    def __post_init__(self) -> None:
        check_target(self.rule, self.target_patch_length)
        if self.by_source and self.target_patch_length is None:
            raise ConfigError("--by source is given, but nothing to calibrate to; give --target-patch-length too, such as 4.5.")
        if self.source_rules and self.target_patch_length is not None:
            raise ConfigError("Both rules by source and a target patch length are given; leave one of them out.")


@dataclass(frozen=True)
class RepatchJob:
    """Cuts a shard again. It pickles: a worker gets a copy."""

    dataset: ShardDataset
    rules: SourceRules
    folder: AnyPath
    plan_fingerprint: str

    def __call__(self, index: int) -> ShardRecord:
        """Cut the shard with this index in the manifest, and write it under the same name."""
        record, path = self.dataset.manifest.shards[index], self.dataset.paths[index]
        # Of every bit: what is copied is not looked at again.
        if file_checksum(path) != record.checksum:
            raise ShardError(f"The shard {path} differs from its checksum; delete it and {run_again(path.parent)}.")
        with published(self.folder / record.file) as file, ShardWriter(file, self.metadata(path)) as writer:
            writer.left_out.update(record.left_out)
            for table in self.dataset.iter_shard(index):
                writer.add_row_group(cut_again(table, self.rules))
        return writer.record

    def metadata(self, path: AnyPath) -> dict[str, Any]:
        """What the new shard says of how it was made: what the one at `path` says, but for its plan and its rule."""
        metadata = read_metadata(path) | {"plan": self.plan_fingerprint}
        metadata.pop("source_rules", None)
        return metadata | self.rules.to_mapping()


def repatch_shards(
    shards: AnyPath, config: RepatchConfig, folder: AnyPath, *, workers: int | None = 1, reporter: BuildReporter | None = None
) -> Manifest:
    """Build the dataset `folder` from the dataset `shards` with another rule, or finish one that was begun.

    Args:
        shards: a finished dataset; it isn't changed.
        config: where patches start.
        folder: gets `plan.json`, the shards, and last of all `manifest.json`.
        workers: processes; None for one a core. They change nothing but the time it takes.
        reporter: who is told how it goes.

    Returns:
        The manifest.

    Raises:
        BuildError: the folder is that of the shards or lies in it, holds something else, or another process is at it.
        BltError: a shard is damaged, or the calibration can't reach its target.
    """
    engine = open_engine("local", workers)
    reporter = reporter or BuildReporter()
    dataset = open_shards(shards)
    check_outside(folder, shards)
    check_out(folder)
    with exclusive(folder, reporter.said):
        rules, plan = _agreed_rules(dataset, config, folder, reporter)
        num_bytes = [record.num_bytes for record in dataset.manifest.shards]
        manifest = finish_shards(
            folder,
            RepatchJob(dataset, rules, folder, plan),
            {record.file: index for index, record in enumerate(dataset.manifest.shards)},
            plan,
            engine=engine,
            reporter=reporter,
            num_bytes=lambda missing: sum(num_bytes[index] for index in missing),
            publish=lambda records: _publish(dataset.manifest, rules, records, folder),
        )
    assert manifest is not None, "who makes all shards publishes them"
    return manifest


def _agreed_rules(dataset: ShardDataset, config: RepatchConfig, folder: AnyPath, reporter: BuildReporter) -> tuple[SourceRules, str]:
    """The rules of the run in `folder`, and the fingerprint of its plan: of the plan there, or of a new one, which is written."""
    wanted = {"dataset": dataset.manifest.fingerprint, "settings": to_mapping(config)}
    differences = {"dataset": "other shards", "settings": "another rule"}

    def decide() -> dict[str, Any]:
        rules = _calibrated(dataset, config, reporter)
        made_by = _plan_of(dataset)
        if made_by is None:
            return {"identity": {"dataset": dataset.manifest.fingerprint}, **rules.to_mapping()}
        kept = {name: made_by.get(name) for name in ("files", "fragments")}
        return {"identity": _with_rules(made_by["identity"], rules), **rules.to_mapping(), **kept}

    def read(plan: Mapping[str, Any]) -> tuple[SourceRules, str]:
        return SourceRules.from_mapping(plan, "The plan"), plan_fingerprint(plan)

    return agreed_plan(folder, "repatch", wanted, differences, decide=decide, read=read, replaced=reporter.said)


def _calibrated(dataset: ShardDataset, config: RepatchConfig, reporter: BuildReporter) -> SourceRules:
    if config.target_patch_length is None:
        return SourceRules(default=config.rule, by_source=config.source_rules)
    found = calibrate_shards(dataset, config.rule, config.target_patch_length, by_source=config.by_source).found
    reporter.said(calibration_sentence(found))
    return found.rules


def calibration_sentence(found: CalibrationReport) -> str:
    """What a calibration found, for the user."""
    overall = found.overall
    start = f"Calibrated on {number_of(overall.num_documents, 'document')} ({number_of(overall.num_bytes, 'byte')})"
    if not found.by_source:
        return f"{start}: {overall.field} {overall.threshold:.4f} nats gives patches of {overall.mean_patch_length:.3f} bytes."
    means = [calibration.mean_patch_length for calibration in found.by_source.values()]
    thresholds = [calibration.threshold for calibration in found.by_source.values()]
    return (
        f"{start} of {number_of(len(means), 'source')}: {overall.field} {min(thresholds):.4f} to {max(thresholds):.4f} nats "
        f"gives patches of {min(means):.3f} to {max(means):.3f} bytes."
    )


def _plan_of(dataset: ShardDataset) -> dict[str, Any] | None:
    """The plan that made a dataset, if it is there and its shards say that it is theirs."""
    try:
        plan = json.loads((dataset.folder / PLAN_FILE).read_bytes())
        own = plan_fingerprint(plan)
        is_a_build = isinstance(plan["identity"]["build"], dict)
    except RemoteError:
        raise
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return dict(plan) if is_a_build and all(read_metadata(path).get("plan") == own for path in dataset.paths) else None


def _with_rules(identity: Mapping[str, Any], rules: SourceRules) -> dict[str, Any]:
    """The identity of the build that would have had these rules."""
    names = rules.to_mapping()
    build = dict(identity["build"]) | {"rule": names["patch_rule"], "target_patch_length": None}
    build.pop("source_rules", None)
    if "source_rules" in names:
        build["source_rules"] = names["source_rules"]
    return dict(identity) | {"build": build}


def _publish(made_from: Manifest, rules: SourceRules, records: list[ShardRecord], folder: AnyPath) -> Manifest:
    manifest = Manifest.create(
        entropy_model=made_from.entropy_model,
        entropy_precision=made_from.entropy_precision,
        corpus=made_from.corpus,
        shards=records,
        **rules.to_mapping(),
    )
    manifest.write(folder)
    return manifest
