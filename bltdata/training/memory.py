"""Running out of memory, which a smaller micro-batch can mend."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

_ALLOCATORS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What the messages of those allocators hold whose errors have no class of their own, also of what libraries need for themselves."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, Python's, NumPy's or one of torch's, had nothing left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _ALLOCATORS)


def within_memory(work: Callable[[], T]) -> T | None:
    """What `work` returns, or None where memory didn't suffice for it; all that it held is free then."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here are the error and its frames gone, which held what was computed so far.
    release_memory()
    return None


def release_memory() -> None:
    """Give what nobody uses any more back to the allocator of the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
