"""A dataset with nothing wrong: bytes from a source whose every distribution is known, so that its entropies are true."""

from bisect import bisect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.patching import PatchRule
from bltdata.shards import open_shards, round_entropies
from bltdata.stats import DatasetStatistics
from bltdata.stats.assess import assess, count, count_jobs

RULE = PatchRule(threshold=1.6)
HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=y>", "a|b `c` *d* [e](http://f)\n# g", "$x^2$ &amp; \x1b[31m \u202e \u4e2d"]
"""What sources may be called."""
SYMBOLS = b"eta oin shr.dlu\n"
ORDER = 3


def sound_rows(count: int = 40, num_bytes: int = 3000, sources: tuple[str, ...] = ("news", "code")) -> list[dict[str, Any]]:
    """Documents of a random source that remembers three symbols of sixteen, one more than the context models do."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(16, 0.15), 16**ORDER)
    entropy_of = -(chances * np.log(chances + 1e-300)).sum(axis=1)
    ends = np.cumsum(chances, axis=1).tolist()
    rows = []
    for number in range(count):
        state, states, drawn = 0, [0], []
        for chance in rng.random(num_bytes + 10 * number).tolist():
            drawn.append(min(bisect(ends[state], chance), 15))
            state = (state * 16 + drawn[-1]) % 16**ORDER
            states.append(state)
        data = bytes(SYMBOLS[symbol] for symbol in drawn)
        nll_nats = -np.log(chances[states[:-1], drawn] + 1e-300).sum()
        rows.append(make(f"{number}", data, entropy_of[states], float(nll_nats), sources[number % len(sources)]))
    return rows


def make(doc_id: str, data: bytes, entropy_nats: np.ndarray, nll_nats: float, source: str, rule: PatchRule = RULE) -> dict[str, Any]:
    stored = round_entropies(entropy_nats.astype(np.float32))
    lengths = rule.lengths(data, stored)
    return {"doc_id": doc_id, "source": source, "data": data, "entropy_nats": stored, "patch_lengths": lengths, "nll_nats": nll_nats}


@pytest.fixture(scope="session")
def sound() -> list[dict[str, Any]]:
    """Rows of documents with nothing wrong; not to be changed."""
    return sound_rows()


@pytest.fixture
def write(dataset_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Writes rows as a dataset whose manifest has `RULE`, or the settings given."""

    def write(rows: list[dict[str, Any]], **settings: Any) -> Path:
        rule = {"scheme": "entropy", "threshold": RULE.threshold}
        return dataset_folder(
            rows[: len(rows) // 2], rows[len(rows) // 2 :], **({"patch_rule": rule, "row_group_bytes": 20_000} | settings)
        )

    return write


@pytest.fixture(scope="session")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, dataset_at: Callable[..., Path], rows: Callable[..., list[dict[str, Any]]]
) -> tuple[dict[str, Any], DatasetStatistics]:
    """The report and the statistics of a dataset whose folder, sources and documents have names that a page must not believe."""
    named = [row | {"doc_id": f"{HOSTILE[0]}{index}"} for index, row in enumerate(rows(60, sources=HOSTILE))]
    dataset = open_shards(dataset_at(tmp_path_factory.mktemp("<b>odd & folder"), [named]))
    return assess([dataset], map(count, count_jobs([dataset], 1)))
