"""The `quantile` rule: a threshold that follows the document, so that its patches have a wanted mean length."""

import numpy as np

from bltdata.patching import inputs, kernels
from bltdata.patching.schemes import widened
from bltdata.patching.settings import RuleSettings

FIRST_QUANTILE_NATS = 1.5
"""Where the running quantile begins a document, unless a threshold says: between what languages and models need for 4.5 bytes."""

QUANTILE_STEP_NATS = 1 / 8
"""What a start adds to the running quantile; less, and it follows a document later, more, and it jitters."""

NO_LIMIT = 2**62
"""A patch length that nothing has."""


def quantile_flags(entropy_nats: np.ndarray, target_length: float, threshold: float | None = None) -> np.ndarray:
    """Running quantile: a patch starts at `i` if `entropy_nats[i]` is above a threshold that holds the document's mean length.

    The threshold begins at `threshold`. Each position lowers it by `step / target_length`, and each start raises it by `step`, 1/8
    nat: it stands still where one position in `target_length` starts a patch, so it follows the quantile `1 - 1 / target_length` of
    the entropies so far, in the memory of one number. That holds the mean of every document, whatever its language or model, and
    also where its entropies drift: of n + 1 positions, `(n + 1) / target_length` start patches, give or take the way that the
    threshold went, divided by the step; and as entropies lie between 0 and ln 260 = 5.56, that is less than 46. `boundaries` counts
    the starts that lengths force or forbid like all others, so the mean is held under limits too, as far as they allow.

    The threshold is carried in float64, and kept between `-step` and 5.5625 + `step`, where it can't get without limits.
    Source: arXiv:2106.00170 (adaptive conformal inference: the same update, and the bound), after Robbins and Monro (1951).

    Args:
        entropy_nats: float16 or float32 [positions], nats, of one document.
        target_length: the mean length to hold, at least 1.
        threshold: where to begin, nats; None for `FIRST_QUANTILE_NATS`.

    Returns:
        bool [positions]; entry 0 is True.

    >>> steady = np.array([3, 1.02, 1.02, 1.02, 1.02], dtype=np.float32)  # the threshold: 1, 1.0625, 1, 1.0625, 1
    >>> quantile_flags(steady, 2.0, threshold=1.0).tolist()
    [True, False, True, False, True]
    >>> falling = np.linspace(5, 1, 4096, dtype=np.float32)
    >>> [round(float(4096 / quantile_flags(scale * falling, 4.0).sum()), 2) for scale in (1, 0.25)]
    [4.02, 4.04]
    """
    first = np.arange(entropy_nats.size) == 0
    state = QuantileState(FIRST_QUANTILE_NATS if threshold is None else threshold, target_length)
    return state.starts(entropy_nats, first, 1, NO_LIMIT)


class QuantileState:
    """The running quantile between two positions, or two blocks of them."""

    def __init__(self, initial: float, target_length: float) -> None:
        self._initial = initial
        self._target_length = target_length
        self._quantile = np.array([initial], dtype=np.float64)
        self._length = np.zeros(1, dtype=np.int64)

    @classmethod
    def of(cls, rule: RuleSettings) -> "QuantileState":
        """At the start of a document that `rule` cuts."""
        assert rule.target_length is not None
        return cls(FIRST_QUANTILE_NATS if rule.threshold is None else rule.threshold, rule.target_length)

    def starts(self, entropy_nats: np.ndarray, firsts: np.ndarray, min_length: int, max_length: int) -> np.ndarray:
        """Where patches start on the next positions; `firsts` are the flags of those where documents do."""
        starts: np.ndarray = kernels.quantile_starts(
            widened(entropy_nats),
            firsts,
            self._quantile,
            self._length,
            self._initial,
            self._target_length,
            QUANTILE_STEP_NATS,
            inputs.MAX_STORED_ENTROPY_NATS,
            min_length,
            max_length,
        )
        return starts
