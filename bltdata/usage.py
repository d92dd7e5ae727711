"""What a process has used."""

import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """The most memory that this process has had at once."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii", errors="replace").splitlines() if status.exists() else []
    for line in lines:
        # What `getrusage` says of a process begins with what its parent had.
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
