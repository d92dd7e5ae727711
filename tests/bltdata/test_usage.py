import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bltdata.usage import num_cores, peak_memory_bytes

SIZE = 400_000_000


def test_it_is_the_peak():
    np.ones(SIZE, dtype=np.uint8)
    assert peak_memory_bytes() > SIZE


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="other systems tell no peak but that which begins with the parent's")
def test_a_process_does_not_begin_with_what_its_parent_had():
    held = np.ones(SIZE, dtype=np.uint8)
    code = "from bltdata.usage import peak_memory_bytes; print(peak_memory_bytes())"
    found = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert 1_000_000 < found < len(held)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="other systems bind no process to cores")
def test_cores_are_those_of_the_process():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from bltdata.usage import num_cores; print(num_cores())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "1\n"


def test_a_quota_counts(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("loky.backend.context._cpu_count_cgroup", lambda cores: 3)
    assert num_cores() == 3
