"""What lies in a folder of shards beside them."""

from bltdata.lease import LEASE_PREFIX
from bltdata.lock import JOBS_FOLDER, LOCK_FILE


def is_lock(name: str) -> bool:
    """Whether a file or folder of this name says who writes, or wrote, to the folder; it is no part of what was written."""
    return name in (LOCK_FILE, JOBS_FOLDER) or name.startswith(LEASE_PREFIX)
