"""What the machine at hand can do: device, precision, threads, and an allocator that suits large activations."""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from bltdata.errors import ConfigError
from bltdata.usage import num_cores

Precision = Literal["auto", "float32", "bfloat16"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_INT = 2**31 - 1
_MMAP_THRESHOLDS = (1 << 30, 32 << 20)
"""The one that is wanted, and the largest that an older glibc takes: it refuses what is larger."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` is the GPU where there is one, else the CPU.

    Raises:
        ConfigError: torch doesn't know the name, or the machine lacks the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # A tensor with a value, because `meta` has none to read.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ConfigError(f"The device {name!r} can't be used here; --device cpu always can.") from error
    return device


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of matrix products: bfloat16 for `auto` where the hardware multiplies it, else float32."""
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype, *, keeps_casts: bool = True) -> contextlib.AbstractContextManager[object]:
    """A block in which matrix products run in `dtype`.

    Args:
        device: where.
        dtype: their type; float32 changes nothing.
        keeps_casts: keep what weights were cast to until the end of the block, and not cast them each time that they are used.
    """
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=keeps_casts)


def moved(tensors: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Tensors on a device, one by one; copied to a GPU while it still computes what is queued there."""
    for tensor in tensors:
        # Only from pinned memory does the copy run beside.
        pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
        yield pinned.to(device, non_blocking=True)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes with one thread: sums then have one order, and results the same bits everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_cpu() -> None:
    """Make the most of a CPU before work that takes long; it may be called again and again.

    Torch gets no more threads than this process has cores (`num_cores`), whoever set them, unless `OMP_NUM_THREADS` says how many.
    """
    _take_no_more_threads_than_cores()
    _keep_freed_memory()


def _take_no_more_threads_than_cores() -> None:
    # By itself torch takes the machine's: in a container with two cores of 64, dozens of threads wait for each other.
    threads = torch.get_num_threads()
    if threads > 1 and "OMP_NUM_THREADS" not in os.environ and threads > (cores := num_cores()):
        torch.set_num_threads(cores)


@functools.cache
def _keep_freed_memory() -> None:
    """Keep freed memory in the process instead of giving each large activation back to the system.

    glibc otherwise maps and unmaps every tensor above 128 KiB to 32 MiB anew, and the page faults cost a CPU training
    step a quarter to a half of its time. Elsewhere than on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is not None:
        # It returns 0 where it refuses.
        any(mallopt(_M_MMAP_THRESHOLD, size) for size in _MMAP_THRESHOLDS)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
