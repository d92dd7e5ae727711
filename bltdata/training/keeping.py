"""What a run keeps in its folder, and where it goes on. No torch is imported, so that help is instant."""

import importlib.util
from dataclasses import dataclass

from bltdata.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What a run keeps, and where it goes on. None of it changes what is learned, so it may differ when a run goes on."""

    keep_last: int = 1
    """States of the run to keep, the last ones, each at an evaluation or a stop; the best model is kept besides."""

    resume_from: int | None = None
    """Go on from the kept state of this step, and not from the last; what came after it is trained again, and replaced
    as soon as there is a new state: states and models of later steps are deleted then. From there on the same command goes on from the
    last state."""

    tensorboard: bool = False
    """Write the metrics for TensorBoard as well, into the folder tensorboard in the run's (extra tensorboard)."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ConfigError(f"keep_last is {self.keep_last}; it must be at least 1.")
        if self.resume_from is not None and self.resume_from < 1:
            raise ConfigError(f"resume_from is {self.resume_from}; it must be at least 1.")
        # Now, and not after a corpus was copied.
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("TensorBoard is not installed; run pip install 'blt-toolkit[tensorboard]', or leave --tensorboard out.")
