"""Calibrating a threshold on the stored entropies of a dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bltdata.config import to_mapping
from bltdata.errors import ShardError
from bltdata.patching import PatchRule
from bltdata.patching.calibration import Calibration, CalibrationReport, calibrate_sources
from bltdata.patching.sources import PatchCounts, SourceRules, count_patches
from bltdata.shards.batches import document_batches
from bltdata.shards.reader import ShardDataset

Progress = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What the thresholds do to documents that they weren't found on."""

    under_overall: dict[str, PatchCounts]
    """The one threshold, to each source, sources by name."""
    by_source: dict[str, PatchCounts]
    """Each source's own threshold, to it; empty where there are none."""


@dataclass(frozen=True, kw_only=True)
class ShardCalibration:
    """What `calibrate_shards` found."""

    found: CalibrationReport
    held_out: HeldOut | None
    """None where no documents were held out."""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them: the one threshold, then `sources`, the `curve`, and `held_out` if there is one."""
        overall = self.found.overall
        return {
            "field": overall.field,
            "target_patch_length": overall.target_patch_length,
            **_calibration_mapping(overall),
            "sources": {name: self._source_mapping(name, counts) for name, counts in self.found.under_overall.items()},
            "curve": [
                {
                    "threshold": point.threshold,
                    "mean_patch_length": point.overall.mean_patch_length,
                    "sources": {name: counts.mean_patch_length for name, counts in point.by_source.items()},
                }
                for point in self.found.curve
            ],
            "held_out": None if self.held_out is None else _held_out_mapping(self.held_out),
        }

    def _source_mapping(self, name: str, counts: PatchCounts) -> dict[str, Any]:
        own = self.found.by_source.get(name)
        return _counts_mapping(counts) | {"own": None if own is None else _calibration_mapping(own)}


def calibrate_shards(
    dataset: ShardDataset,
    rule: PatchRule,
    target_patch_length: float,
    *,
    by_source: bool = False,
    held_out: ShardDataset | None = None,
    progress: Progress | None = None,
) -> ShardCalibration:
    """Find the threshold that gives the documents of a dataset patches of a mean length.

    Args:
        dataset: what `open_shards` gives. A rule of one threshold and nothing else takes one pass over it, any other some ten; a row
            group is in memory at a time.
        rule: an `entropy` rule; its threshold is replaced.
        target_patch_length: wanted mean of positions per patch.
        by_source: also find a threshold for each source.
        held_out: documents to try the thresholds on.
        progress: is called after each row group of each pass with its raw bytes.

    Raises:
        PatchingError: the target can't be reached, with the nearest that can; or an entropy isn't valid.
        ShardError: a shard is damaged, or the two datasets are of different entropy models.
    """
    if held_out is not None and held_out.manifest.entropy_model["fingerprint"] != dataset.manifest.entropy_model["fingerprint"]:
        raise ShardError(
            f"{dataset.folder} and {held_out.folder} were made with different entropy models, so a threshold of one means nothing "
            "in the other; give held-out documents that were scored by the same model."
        )

    def read(shards: ShardDataset) -> Any:
        return document_batches(shards, needs_bytes=rule.needs_bytes, progress=progress)

    found = calibrate_sources(lambda: read(dataset), rule, target_patch_length, by_source=by_source)
    tried = None
    if held_out is not None:
        tried = HeldOut(
            under_overall=count_patches(read(held_out), SourceRules(default=found.overall.rule)),
            by_source=count_patches(read(held_out), found.rules) if by_source else {},
        )
    return ShardCalibration(found=found, held_out=tried)


def _calibration_mapping(found: Calibration) -> dict[str, Any]:
    return {
        "threshold": found.threshold,
        "mean_patch_length": found.mean_patch_length,
        "documents": found.num_documents,
        "bytes": found.num_bytes,
        "patches": found.num_patches,
        "rule": to_mapping(found.rule),
    }


def _counts_mapping(counts: PatchCounts) -> dict[str, Any]:
    return {
        "documents": counts.num_documents,
        "bytes": counts.num_bytes,
        "patches": counts.num_patches,
        "mean_patch_length": counts.mean_patch_length,
    }


def _held_out_mapping(held_out: HeldOut) -> dict[str, Any]:
    total = sum(held_out.under_overall.values(), PatchCounts())
    mapping: dict[str, Any] = {"mean_patch_length": total.mean_patch_length if total.num_patches else None, "sources": {}}
    for name, counts in held_out.under_overall.items():
        own = held_out.by_source.get(name)
        mapping["sources"][name] = _counts_mapping(counts) | {"own_mean_patch_length": None if own is None else own.mean_patch_length}
    return mapping
