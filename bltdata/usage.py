"""What a process may use, and has used."""

import resource
import sys
from pathlib import Path


def num_cores() -> int:
    """How many cores this process may keep busy: those of the machine, of its affinity, and of its container's quota.

    A quota is seen where it is that of the whole mount of cgroups, as in a container; `LOKY_MAX_CPU_COUNT` is another limit.
    """
    # Not above: whoever asks for help would wait for it.
    from loky import cpu_count

    cores: int = cpu_count()
    return cores


def peak_memory_bytes() -> int:
    """The most memory that this process has had at once."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii", errors="replace").splitlines() if status.exists() else []
    for line in lines:
        # What `getrusage` says of a process begins with what its parent had.
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
