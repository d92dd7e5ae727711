"""One tree of errors for everything a user can cause.

A command catches `BltError`, prints its one sentence and exits with 1. So the text of each says what was wrong, where,
and what to do about it. Our own mistakes are `AssertionError`s and keep their traceback.
"""


class BltError(Exception):
    """Something the user can put right; the message says how."""


class ConfigError(BltError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class CorpusError(BltError, ValueError):
    """A corpus can't be found, read, or has nothing in it."""


class PatchingError(BltError, ValueError):
    """Entropies or a patch rule don't make patches."""


class ShardError(BltError, ValueError):
    """A shard or its dataset folder is missing, damaged, or of another kind."""


class CheckpointError(BltError, ValueError):
    """A checkpoint is missing, damaged, or belongs to another architecture."""


class BuildError(BltError, RuntimeError):
    """A run could not be finished; what was finished stands."""


class RemoteError(BltError, OSError):
    """A store of remote files can't be reached, refuses, or gives less than it should."""
