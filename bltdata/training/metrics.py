"""The files with a run's metrics: a JSON line an evaluation, and the same for TensorBoard."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bltdata.atomic import write_bytes
from bltdata.usage import peak_memory_bytes

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsFiles:
    """The metrics of the run in `folder`. The files always hold what `write` was given last, and nothing that a stopped run did after it.

    Args:
        folder: the run's.
        tensorboard: write event files too.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self._folder = folder
        self._events = EventFiles(folder / TENSORBOARD_FOLDER) if tensorboard else None

    def write(self, metrics: Sequence[dict[str, Any]]) -> None:
        """Write all metrics of the run."""
        lines = [json.dumps(line) + "\n" for line in metrics]
        write_bytes(self._folder / METRICS_FILE, "".join(lines).encode())
        if self._events:
            self._events.write(metrics)

    def close(self) -> None:
        """Let go of the files."""
        if self._events:
            self._events.close()


class EventFiles:
    """Event files for TensorBoard, with a scalar for each number of the metrics.

    An event can't be taken back, so what an earlier start of the run wrote is replaced: otherwise steps that are trained again
    would be there twice.
    """

    def __init__(self, folder: Path) -> None:
        # Takes a second, and is wanted by few.
        from torch.utils.tensorboard import SummaryWriter

        remove_events(folder)
        # Of an earlier start, which a running TensorBoard has read, nothing counts any more.
        self._writer = SummaryWriter(str(folder), purge_step=0)
        self._num_written = 0
        self._begin: float | None = None
        """When the run would have begun that was never stopped, by this clock."""

    def write(self, metrics: Sequence[dict[str, Any]]) -> None:
        """Write what was added since the last call; the first call, before any step, has what the run brings along."""
        if self._begin is None:
            self._begin = time.time() - (metrics[-1]["seconds"] if metrics else 0.0)
        for line in metrics[self._num_written :]:
            for name, value in line.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, line["step"], walltime=self._begin + line["seconds"])
        self._num_written = len(metrics)
        self._writer.flush()

    def close(self) -> None:
        """Let go of the files."""
        self._writer.close()


def remove_events(folder: Path) -> None:
    """Delete the event files of a folder, and nothing else."""
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink()


def peak_memory_of_run(device: torch.device) -> int:
    """The most memory that the run has used so far, in bytes: of the GPU it runs on, else of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
