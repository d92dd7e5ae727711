"""A fixed number of patches a row, so that a training step has the same shapes every time.

A compiler then compiles once, and a GPU's memory needs no room for the fullest row there may ever be. Rows have a fixed number
of tokens; how many patches these are differs. A row with fewer than the budget is filled up with patches that hold no token
and that nobody sees. In a row with more, or nearly as many, patches are joined into longer ones, from where all but a sixteenth
of the budget is used up: from there on only those starts remain that must be, the first two of each piece of a document, for
which that part is held back.

Nothing leaks: whether a start remains follows from the starts before it in the row, and no byte is lost. What a document is
cut into then depends on what its row holds before it; so starts that were joined are counted, and where they are many the user is
told that the budget is too small. Where not even the necessary starts fit (a row of very short documents), the row gets the patches
that it needs, and is counted too.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from numba import njit

from bltdata.training.config import Share
from bltdata.training.interface import Step
from bltdata.training.progress import Place
from bltdata.vocab import BOE_ID
from bltmodel.masks import PackedBatch
from bltmodel.rows import RowStream

PATCHES = "patches"
JOINED = "patches_joined"
OVER_BUDGET = "rows_over_budget"

HELD_BACK = 16
"""One patch in so many is held back for the starts that must be."""


MANY = 0.05
"""Share of patches that are joined from which on the user is told."""


class Counts(Protocol):
    """How much some documents hold."""

    @property
    def num_documents(self) -> int:
        """How many they are."""

    @property
    def num_bytes(self) -> int:
        """Their raw bytes."""

    @property
    def num_patches(self) -> int:
        """Their patches."""


def patches_a_row(sources: Iterable[Counts], row_tokens: int, margin: float) -> int:
    """The budget of rows that are of one source each: what the shortest mean patch length of theirs gives, and a margin.

    Args:
        sources: what is learned of each. One of all, where rows are of all alike.
        row_tokens: tokens a row.
        margin: a factor; 1 is the mean.

    >>> from bltdata.shards.manifest import Totals
    >>> prose = Totals(num_shards=1, num_documents=10, num_bytes=3990, num_patches=990, left_out={})
    >>> code = Totals(num_shards=1, num_documents=10, num_bytes=3990, num_patches=1990, left_out={})
    >>> patches_a_row([prose], 1024, 1.25), patches_a_row([prose, code], 1024, 1.25)
    (320, 640)
    """
    # Each document has its BOS, which is a token and a patch of its own.
    means = [(counts.num_patches + counts.num_documents) / (counts.num_bytes + counts.num_documents) for counts in sources]
    return min(row_tokens, math.ceil(margin * row_tokens * max(means)))


def remark(counted: Mapping[str, int], budget: int) -> str | None:
    """What the user should know of a run's counts, once there are some.

    >>> remark({"patches": 1000, "patches_joined": 120}, 64)
    '12.0% of the patches so far were joined to keep rows to 64: start again with a higher patch margin to have fewer joined.'
    """
    share = counted[JOINED] / counted[PATCHES]
    if share <= MANY:
        return None
    what = f"{share:.1%} of the patches so far were joined to keep rows to {budget}"
    return f"{what}: start again with a higher patch margin to have fewer joined."


def join_surplus(batch: PackedBatch, budget: int) -> tuple[PackedBatch, Counter[str]]:
    """Join patches of the rows that have more than the budget.

    Args:
        batch: packed rows, on the CPU.
        budget: patches a row.

    Returns:
        The rows, with fewer starts, and how many patches there were, how many of them were joined to the one before, and in how many
        rows the starts that must be are more than the budget.
    """
    starts_BT, next_starts_BT = batch.starts_BT.clone(), batch.next_starts_BT.clone()
    free = budget - -(-budget // HELD_BACK)
    ids, visible_from = batch.ids_BT.numpy(), batch.visible_from_BT.numpy()
    patches, joined, over = _join(ids, visible_from, budget, free, starts_BT.numpy(), next_starts_BT.numpy())
    counts = Counter({PATCHES: patches, JOINED: joined, OVER_BUDGET: over})
    return batch._replace(starts_BT=starts_BT, next_starts_BT=next_starts_BT), counts


class BudgetedRows:
    """The rows of a stream, with no more patches than a budget; see `bltdata.training.task.TrainingRows`.

    Args:
        rows: the stream.
        budget: patches a row.
    """

    def __init__(self, rows: RowStream, budget: int) -> None:
        self._rows = rows
        self._budget = budget

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all documents."""
        return self._rows.tokens_per_epoch

    def steps(self, place: Place, batch_rows: int, share: Share, rank: int) -> Iterator[Step[PackedBatch]]:
        """The steps of the stream; each counts what was joined in its own batches."""
        for step in self._rows.steps(place, batch_rows, share, rank):
            counted = Counter({PATCHES: 0, JOINED: 0, OVER_BUDGET: 0})
            yield Step(self._joined(step.batches, counted), step.num_bytes, step.cursor, counted)

    def _joined(self, batches: Iterator[PackedBatch], counted: Counter[str]) -> Iterator[PackedBatch]:
        for batch in batches:
            fitted, counts = join_surplus(batch, self._budget)
            counted.update(counts)
            yield fitted


@njit(cache=True, nogil=True)
def _join(ids, visible_from, budget, free, starts, next_starts):  # type: ignore[no-untyped-def]
    patches = joined = over = 0
    for b in range(len(ids)):
        used = 0
        for t in range(ids.shape[1]):
            if ids[b, t] == BOE_ID:
                # Padding, all of it one patch.
                used += 1
                break
            if t - visible_from[b, t] < 2:
                used += 1
            elif starts[b, t]:
                if used < free:
                    used += 1
                else:
                    starts[b, t] = False
                    joined += 1
            # What is said of the next position is what it will do, also where the row ends or another document begins: a
            # difference would tell that it does. Behind a document's first token a start must be.
            if t > visible_from[b, t] and used >= free:
                next_starts[b, t] = False
        patches += used
        over += used > budget
    return patches + joined, joined, over
