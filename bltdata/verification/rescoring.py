"""Scoring a sample of documents again, to see that stored entropies are the model's."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from bltdata.entropy import EntropyModel
from bltdata.nn import one_thread, resolve_precision
from bltdata.patching.sources import SourceRules
from bltdata.shards import EntropyContext, Manifest, Row, ShardDataset, round_entropies
from bltdata.shards.precision import GRID_STEPS_PER_NAT
from bltdata.verification.datasets import DatasetCheck
from bltdata.verification.report import DeepReport

TOLERANCE_NATS = {"float32": 1e-4, "bfloat16": 0.5}
"""How far a score may move with what stands beside its document. Shards are scored as one stream, so a document alone stands
elsewhere in its chunk, and sums come out in another order: by 2e-5 nats in float32, and by 0.2 in bfloat16, as measured."""

NLL_TOLERANCE_NATS = {"float32": 1e-4, "bfloat16": 0.05}
"""The same of the negative log-likelihood, a position."""


@dataclasses.dataclass
class _Comparison:
    """Counts over the documents of a dataset."""

    num_documents: int = 0
    num_entropies: int = 0
    num_inexact: int = 0
    largest_difference_nats: float = 0.0
    num_patched_otherwise: int = 0


def rescore(check: DatasetCheck, manifest: Manifest, model: EntropyModel, num_documents: int) -> DeepReport | None:
    """Score documents of a dataset again, and note what differs as faults of `check`.

    Which documents depends on the dataset's fingerprint alone. Documents in shards with faults aren't among them.

    Args:
        check: the dataset, its shards already checked.
        manifest: its manifest.
        model: what the manifest names, it is said.
        num_documents: how many; all if there are fewer.

    Returns:
        What came of it; None where the model is another one.
    """
    named = manifest.entropy_model.get("fingerprint")
    if named != model.fingerprint:
        message = (
            f"its manifest names the entropy model {named}, and --entropy-model has {model.fingerprint}; give the model that scored it."
            if named is not None
            else "its entropies were converted, and nobody knows which entropy model made them; leave --deep out."
        )
        check.log.add(check.fault("entropy_model", message))
        return None
    context = EntropyContext.of(manifest.entropy_model)
    dtype = resolve_precision(context.precision, next(model.parameters()).device)
    rules = SourceRules.from_mapping({"patch_rule": manifest.patch_rule, "source_rules": manifest.source_rules})
    sound, counts = check.sound(), _Comparison()
    positions = _sample(manifest.fingerprint, len(sound), num_documents)
    places = [sound.place(position) for position in positions]
    rows: list[Row] = []

    def documents() -> Iterator[bytes]:
        for row in _rows(ShardDataset(check.folder, manifest), places):
            rows.append(row)
            yield row.data

    scores = model.score_with_nll(documents(), dtype, reset_at_newline=context.reset_at_newline)
    with one_thread():
        for (shard, row_group, row_index), score in zip(places, scores, strict=True):
            row = rows.pop(0)
            place = {"file": manifest.shards[shard].file, "row_group": row_group, "row": row_index, "doc_id": row.doc_id}
            new = round_entropies(score.entropy_nats, manifest.entropy_precision)
            _compare(check, counts, row, new, _allowed(new, manifest.entropy_precision, context.precision), place)
            rule = rules.rule_for(row.source)
            counts.num_patched_otherwise += not np.array_equal(rule.lengths(row.data, new), row.patch_lengths)
            off = abs(score.nll_nats - row.nll_nats) / (row.num_bytes + 1)
            if off > NLL_TOLERANCE_NATS[context.precision]:
                message = f"nll_nats is {row.nll_nats:.6g}, and scoring again gives {score.nll_nats:.6g}; run build-shards again."
                check.log.add(check.fault("nll_rescored", message, **place))
    return DeepReport(folder=str(check.folder), **dataclasses.asdict(counts))


def _compare(check: DatasetCheck, counts: _Comparison, row: Row, new: np.ndarray, allowed: np.ndarray, place: dict[str, Any]) -> None:
    difference = np.abs(row.entropy_nats.astype(np.float64) - new)
    counts.num_documents += 1
    counts.num_entropies += len(difference)
    counts.num_inexact += int((difference > 0).sum())
    counts.largest_difference_nats = max(counts.largest_difference_nats, float(difference.max()))
    wrong = difference > allowed
    if wrong.any():
        position = int(np.argmax(wrong))
        message = (
            f"{int(wrong.sum())} of its {len(difference)} entropies are not the model's; the first, at position {position}, is "
            f"{row.entropy_nats[position]:.6g} nats and scoring again gives {new[position]:.6g}; run build-shards again."
        )
        check.log.add(check.fault("entropy_rescored", message, **place))


def _allowed(new: np.ndarray, stored_as: str, precision: str) -> np.ndarray:
    """How far each stored entropy may be from its new value: a step of rounding, and what the score itself may move."""
    step = np.full(len(new), 1 / GRID_STEPS_PER_NAT) if stored_as == "grid" else np.spacing(new).astype(np.float64)
    # On the grid less than half a step more is no further step.
    return step + TOLERANCE_NATS[precision]


def _sample(name: str, total: int, wanted: int) -> list[int]:
    """Positions of documents, ascending; the same for the same dataset."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest(), "big")
    chosen = np.random.default_rng(seed).choice(total, size=min(wanted, total), replace=False) if total else np.empty(0, dtype=np.int64)
    return sorted(int(position) for position in chosen)


def _rows(dataset: ShardDataset, places: list[tuple[int, int, int]]) -> Iterator[Row]:
    """The rows at these places, which ascend."""
    first_rows: dict[tuple[int, int], int] = {}
    for shard in sorted({shard for shard, _, _ in places}):
        first_row = 0
        for group in dataset.shard_row_groups(shard):
            first_rows[shard, group.row_group] = first_row
            first_row += group.num_documents
    for shard, row_group, row in places:
        yield dataset.row(shard, row_group, row - first_rows[shard, row_group])
