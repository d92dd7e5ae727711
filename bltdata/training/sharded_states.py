"""The tensors of a state that are shared out among processes: a folder to which each process writes its share.

It is in the format of `torch.distributed.checkpoint`, so it can be read by any number of processes, one included. All else of a state,
the list of the folder's files with it, is in the file that `states` writes; the folder is there before that file is, and stays for as long.
"""

import errno
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from bltdata.errors import BuildError, CheckpointError
from bltdata.training.memory import is_out_of_memory
from bltdata.training.state_files import SHARDS, kept_path, why_unwritten
from bltdata.training.states import way_out
from bltdata.training.world import PeerFailedError, World

_PLACE = "tensor in shards"
"""The one key of the dict that stands for a tensor which is written apart; its value is the tensor's name."""

_METADATA_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_METADATA_NAMES = (
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
)


def split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, DTensor]]:
    """A state without the tensors that are shared out, and these by name."""
    tensors: dict[str, DTensor] = {}

    def without(value: Any, name: str) -> Any:
        if isinstance(value, DTensor):
            tensors[name] = value
            return {_PLACE: name}
        if isinstance(value, dict):
            return {key: without(inner, f"{name}/{key}") for key, inner in value.items()}
        return value

    rest = {key: without(value, str(key)) for key, value in state.items()}
    return rest, tensors


def write_shards(folder: Path, tensors: dict[str, DTensor], world: World) -> None:
    """Write this process's share of tensors, while all others write theirs.

    Args:
        folder: the same one for all, on a file system that they share.
        tensors: by name.
        world: the processes.

    Raises:
        OSError: this process can't write.
        PeerFailedError: another can't.
    """
    try:
        dcp.save(tensors, storage_writer=_Writer(folder), process_group=world.inside)
    except CheckpointException as error:
        own = error.failures.get(world.rank)
        if own is not None:
            raise own[0] from error
        raise PeerFailedError(f"Process {min(error.failures)} of {world.size} couldn't write its share of the state.") from error


def listed(folder: Path) -> dict[str, Any]:
    """What a state says of the folder with its tensors: the name, and the sizes of its files.

    Raises:
        BuildError: the share of a process isn't there.
    """
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    wanted = {place.relative_path for place in (_Reader(folder).read_metadata().storage_data or {}).values()}
    if missing := sorted(wanted - files.keys()):
        raise BuildError(f"{missing[0]} of another process isn't in {folder}; choose a folder on a disk that all processes share.")
    return {"folder": folder.name, "files": files}


def read_shards(folder: Path, state: dict[str, Any], make: Callable[..., Tensor]) -> dict[str, Any]:
    """A state with the tensors that were written apart.

    Args:
        folder: the run's.
        state: what `states.load_state` found there.
        make: gets the size and, as `dtype`, the type of a tensor, and makes one to read it into: a whole one, or one that is shared out, of
            which only this process's part is read.

    Raises:
        CheckpointError: they are damaged.
    """
    path = folder / state[SHARDS]["folder"]
    try:
        reader = _Reader(path)
        described = reader.read_metadata().state_dict_metadata
        tensors = {
            name: make(found.size, dtype=found.properties.dtype)
            for name, found in described.items()
            if isinstance(found, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            # That this is in one process: each reads for itself, so that nobody waits for one that can't.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=reader, no_dist=True)
        return {key: _with_tensors(value, tensors) for key, value in state.items() if key != SHARDS}
    # `CheckpointException` is no `Exception`; it has what went wrong, whatever that is.
    except (Exception, CheckpointException) as error:
        cause = next((each[0] for each in error.failures.values()), error) if isinstance(error, CheckpointException) else error
        if not isinstance(cause, Exception) or is_out_of_memory(cause):
            raise cause from None
        # Offsets that no file has are what torch and the system call invalid.
        unreadable = isinstance(cause, OSError) and cause.errno != errno.EINVAL
        reason = f"can't be read ({getattr(cause, 'strerror', None) or cause})" if unreadable else "is damaged"
        hint = way_out(folder, but=kept_path(folder, state["progress"]["step"]))
        raise CheckpointError(f"{path} {reason}, so the run can't go on from it; {hint}") from error


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {_PLACE}:
        return tensors[value[_PLACE]]
    return {key: _with_tensors(inner, tensors) for key, inner in value.items()}


class _Writer(dcp.FileSystemWriter):
    """Says what the system said, which an error that is sent to the other processes would leave behind."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            raise why_unwritten(error) from None


class _Reader(dcp.FileSystemReader):
    """Reads a folder's metadata, which are a pickle, without running whatever somebody put there."""

    def read_metadata(self) -> Metadata:  # type: ignore[override]
        data = (Path(self.path) / ".metadata").read_bytes()
        metadata = _Unpickler(io.BytesIO(data)).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"{type(metadata).__name__} in place of metadata")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What metadata are made of, and nothing else."""
        if (module, name) in _METADATA_NAMES:
            return super().find_class(module, name)
        # A dot would lead on to what those modules import.
        if (module in _METADATA_MODULES or module == "torch") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, torch.dtype) or (isinstance(found, type) and found.__module__ == module in _METADATA_MODULES):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of metadata")
