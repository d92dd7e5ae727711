"""What benchmarks share: contestants that take turns, so that a noisy machine is noisy to all."""

import time
from collections.abc import Callable, Mapping


def cpu_seconds(contestants: Mapping[str, Callable[[], object]], repeats: int, warm_ups: int = 1) -> dict[str, list[float]]:
    """CPU seconds of this process, its threads among them, for each contestant in each round; the first rounds aren't timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm_ups + repeats):
        for name, run in contestants.items():
            begin = time.process_time()
            run()
            if number >= warm_ups:
                seconds[name].append(time.process_time() - begin)
    return seconds
