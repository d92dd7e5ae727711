"""What must hold of every row, checked a row group at a time. Rows that pass are cut again, to see that their patches are the rule's."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from bltdata.config import to_mapping
from bltdata.errors import BltError
from bltdata.patching.settings import describe_rule
from bltdata.patching.sources import SourceRules
from bltdata.shards import schema
from bltdata.shards.batches import cut_again
from bltdata.shards.columns import FlatColumn, bytes_column, list_column
from bltdata.shards.precision import GRID_STEPS_PER_NAT, MAX_STORED_CODE, MAX_STORED_NATS, Precision

Complain = Callable[[str, np.ndarray, Callable[[int], str]], None]
"""Takes the kind of a fault, a mask of the rows that have it, and what to say of one of them."""


def check_rows(
    table: pa.Table, rules: SourceRules | None, precision: Precision, complain: Complain, *, is_scored: bool, again: str
) -> None:
    """Check all rows of a row group.

    Args:
        table: all columns, their offsets checked, strings perhaps not UTF-8.
        rules: what patches are cut with; None where that isn't known, and patches are not compared then.
        precision: how entropies were rounded.
        complain: is called for each kind of fault that there is, with a mask that has a row set.
        is_scored: whether documents have a likelihood; it is NaN where the entropy model is unknown.
        again: what to do to have the shard made once more, for the end of a sentence.
    """
    good = np.ones(table.num_rows, dtype=bool)

    def check(kind: str, bad: np.ndarray, describe: Callable[[int], str]) -> None:
        if bad.any():
            good[bad] = False
            complain(kind, bad, lambda row: f"{describe(row)}; {again}.")

    data_offsets = bytes_column(table[schema.DATA])[1]
    length, num_bytes = np.diff(data_offsets), table[schema.NUM_BYTES].to_numpy()
    check("num_bytes", num_bytes != length, lambda row: f"num_bytes is {num_bytes[row]} and data has {length[row]} bytes")
    names = text_values(table[schema.DOC_ID])
    check("doc_id", np.array([not name for name in names], dtype=bool), lambda row: f"doc_id is {_told(names[row])}")
    sources = text_values(table[schema.SOURCE])
    check("source", np.array([not source for source in sources], dtype=bool), lambda row: f"source is {_told(sources[row])}")
    nll_nats = table[schema.NLL_NATS].to_numpy()
    # A NaN fails the comparisons too.
    check(
        "nll",
        ~((nll_nats >= 0) & (nll_nats < np.inf)) if is_scored else ~np.isnan(nll_nats),
        lambda row: f"nll_nats is {nll_nats[row]}, {'which is not finite and at least 0' if is_scored else 'by a model that is unknown'}",
    )
    _check_entropies(list_column(table[schema.ENTROPY_NATS]), length, precision, check)
    _check_patch_lengths(list_column(table[schema.PATCH_LENGTHS]), length, table[schema.NUM_PATCHES].to_numpy(), check)
    if rules is not None and good.any():
        _check_patches(table, good, rules, complain, again)


def text_values(column: pa.ChunkedArray) -> list[str | None]:
    """The texts of a string or dictionary column, None where one is not UTF-8."""
    if pa.types.is_dictionary(column.type):
        array = column.combine_chunks()
        values = _decoded(array.dictionary)
        return [values[index] for index in array.indices.to_numpy().tolist()]
    return _decoded(column)


def _decoded(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    flat, offsets = bytes_column(column)
    return [_decode(flat[begin:end].tobytes()) for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def _decode(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _told(text: str | None) -> str:
    return "not valid UTF-8" if text is None else "empty"


def _check_entropies(column: FlatColumn, length: np.ndarray, precision: Precision, check: Complain) -> None:
    entropy_nats, offsets = column
    count = np.diff(offsets)
    check(
        "entropy_count",
        count != length + 1,
        lambda row: f"entropy_nats has {count[row]} values for {length[row]} bytes instead of {length[row] + 1}",
    )

    def describe(mask: np.ndarray, limit: str) -> Callable[[int], str]:
        def text(row: int) -> str:
            position = int(np.argmax(mask[offsets[row] : offsets[row + 1]]))
            return f"the entropy at position {position} is {entropy_nats[offsets[row] + position]:.6g} nats, and {limit}"

        return text

    # Bits of float16 order as values do; negative values (-0.0 too, which is never written), infinities and NaN lie above.
    impossible = entropy_nats.view(np.uint16) > MAX_STORED_CODE
    check("entropy_range", _any(impossible, offsets), describe(impossible, f"it must lie in 0 ... {MAX_STORED_NATS} (ln 260, rounded)"))
    if precision == "grid":
        scaled = np.where(impossible, np.float32(0), entropy_nats.astype(np.float32)) * GRID_STEPS_PER_NAT
        off_grid = scaled != np.rint(scaled)
        check(
            "entropy_grid",
            _any(off_grid, offsets),
            describe(off_grid, f"the manifest says that all are multiples of 1/{GRID_STEPS_PER_NAT}"),
        )


def _check_patch_lengths(column: FlatColumn, length: np.ndarray, num_patches: np.ndarray, check: Complain) -> None:
    lengths, offsets = column
    count = np.diff(offsets)
    check("num_patches", num_patches != count, lambda row: f"num_patches is {num_patches[row]} and patch_lengths has {count[row]} values")
    zero = _any(lengths == 0, offsets)
    check("patch_zero", zero, lambda row: f"patch {np.argmin(lengths[offsets[row] : offsets[row + 1]])} has length 0")
    sums = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    total = sums[offsets[1:]] - sums[offsets[:-1]]
    check(
        "patch_sum",
        total != length + 1,
        lambda row: f"patch_lengths sum to {total[row]} instead of {length[row] + 1}, the bytes and the end",
    )


def _any(mask: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Which rows have a value set: bool `[rows]`."""
    if not mask.any():
        return np.zeros(len(offsets) - 1, dtype=bool)
    before = np.concatenate([[0], np.cumsum(mask)])
    has: np.ndarray = before[offsets[1:]] > before[offsets[:-1]]
    return has


def _check_patches(table: pa.Table, good: np.ndarray, rules: SourceRules, complain: Complain, again: str) -> None:
    """Compare patches with those of the rule, in the rows that are good otherwise."""
    sources = text_values(table[schema.SOURCE])
    passed = table
    if not good.all():
        # A filtered dictionary would still hold the texts of the rows that are bad.
        kept = pa.array([sources[row] for row in np.flatnonzero(good)], pa.string()).dictionary_encode()
        field = schema.SCHEMA.field(schema.SOURCE)
        passed = table.filter(pa.array(good)).set_column(table.schema.get_field_index(schema.SOURCE), field, kept)
    try:
        cut = cut_again(passed, rules)
    except BltError as error:
        # Such as a tokenizer that isn't there; the first row stands for the row group.
        sentence = f"the rule can't cut the documents of this row group: {error}"
        complain("rule", np.arange(table.num_rows) == np.flatnonzero(good)[0], lambda row: sentence)
        return
    (stored, starts), (wanted, wanted_starts) = list_column(passed[schema.PATCH_LENGTHS]), list_column(cut[schema.PATCH_LENGTHS])
    if np.array_equal(starts, wanted_starts) and np.array_equal(stored, wanted):
        return
    where = np.flatnonzero(good)
    position: dict[int, int] = {}
    for index, row in enumerate(where.tolist()):
        pair = stored[starts[index] : starts[index + 1]], wanted[wanted_starts[index] : wanted_starts[index + 1]]
        if not np.array_equal(*pair):
            common = min(map(len, pair))
            # Both sum to the same, so they differ before the shorter one ends.
            position[row] = int(np.argmax(pair[0][:common] != pair[1][:common]))
    bad = np.isin(np.arange(table.num_rows), list(position))

    def describe(row: int) -> str:
        named = describe_rule(to_mapping(rules.rule_for(str(sources[row]))))
        return (
            f"its patches are not those that the manifest's rule ({named}) makes of its entropies, from patch {position[row]} on; "
            f"cut the dataset again with bltdata repatch, or {again}."
        )

    complain("patches", bad, describe)
