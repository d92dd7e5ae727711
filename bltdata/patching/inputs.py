"""What is let in: bytes and entropies as arrays, or an error that says where they are wrong."""

from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.vocab import MAX_ENTROPY_NATS

MAX_STORED_ENTROPY_NATS = float(np.float16(MAX_ENTROPY_NATS))
"""5.5625: rounding to float16 may lift an entropy a little above ln 260."""

_MAX_STORED_CODE = int(np.float16(MAX_ENTROPY_NATS).view(np.uint16))


def as_bytes(data: Any) -> np.ndarray:
    """A document's bytes as a read-only uint8 array, without copying if they lie side by side.

    Args:
        data: bytes, bytearray, a flat memoryview of bytes, or a flat uint8 array.

    Raises:
        PatchingError: it isn't bytes.
    """
    is_array = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 1
    is_view = isinstance(data, memoryview) and data.itemsize == 1 and data.ndim == 1
    if not is_array and not is_view and not isinstance(data, bytes | bytearray):
        kind = f"{type(data).__name__} that isn't a flat one of bytes" if isinstance(data, np.ndarray | memoryview) else type(data).__name__
        raise PatchingError(f"The data to patch is of type {kind}; give bytes, for a text its text.encode().")
    if is_view and not data.c_contiguous:
        data = data.tobytes()
    array = np.ascontiguousarray(data).view() if is_array else np.frombuffer(data, dtype=np.uint8)
    array.flags.writeable = False  # always, as the compiled loops are compiled once for each kind of array
    return array


def as_entropies(entropy_nats: Any) -> np.ndarray:
    """Entropies as a flat array of float16 or float32; other numbers are rounded to float32.

    Raises:
        PatchingError: they aren't a flat sequence of numbers.
    """
    try:
        entropies = np.asarray(entropy_nats)
        if entropies.dtype.kind not in "fiuO":  # NumPy would make numbers of texts, dates and more
            raise TypeError(f"they are of type {entropies.dtype}")
        if entropies.dtype not in (np.float16, np.float32):
            with np.errstate(over="ignore"):  # to infinity, which is refused where its position can be named
                entropies = entropies.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a torch tensor that takes part in training
        raise PatchingError(f"The entropies are no array of numbers ({error}); give float16 or float32 values, in nats.") from error
    if entropies.ndim != 1:
        raise PatchingError(f"The entropies have the shape {entropies.shape}; give one flat array for a document.")
    return np.ascontiguousarray(entropies)


def as_offsets(data_offsets: Any) -> np.ndarray:
    """Where documents that lie end to end start, and where the last ends: int64.

    Raises:
        PatchingError: they aren't whole numbers from 0 up that never fall.
    """
    try:
        offsets = np.asarray(data_offsets)
    except ValueError:
        offsets = np.empty(0)
    if offsets.dtype.kind in "iu" and offsets.ndim == 1 and offsets.size:
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        if offsets[0] == 0 and (offsets[1:] >= offsets[:-1]).all():
            return offsets
    raise PatchingError("The offsets of the documents must be a flat array of whole numbers that starts with 0 and never falls.")


def check_count(num_entropies: int, num_bytes: int, document: str) -> None:
    """Raise a `PatchingError` unless there is an entropy for each byte and one for the end."""
    if num_entropies != num_bytes + 1:
        raise PatchingError(
            f"There are {num_entropies} entropies for the {num_bytes} bytes of {document}; "
            f"give {num_bytes + 1}: one for each byte, and one for the end."
        )


def check_entropies(entropy_nats: np.ndarray, num_bytes: int, document: str) -> None:
    """Raise a `PatchingError` unless these can be the entropies of a document of that many bytes."""
    check_count(entropy_nats.size, num_bytes, document)
    if not are_valid(entropy_nats):
        where = first_invalid(entropy_nats)
        raise entropy_error(entropy_nats[where], where, document)


def are_valid(entropy_nats: np.ndarray) -> bool:
    """Whether all entropies are numbers from 0 to ln 260, give or take the rounding to float16."""
    if entropy_nats.size == 0:
        return True
    # NaN, infinity and negative values have the higher float16 codes. So has -0.0, which is valid: hence the second look.
    if entropy_nats.dtype == np.float16 and entropy_nats.view(np.uint16).max() <= _MAX_STORED_CODE:
        return True
    return bool(entropy_nats.min() >= 0 and entropy_nats.max() <= MAX_STORED_ENTROPY_NATS)


def first_invalid(entropy_nats: np.ndarray) -> int:
    """The first position whose entropy is not valid; there must be one."""
    valid = (entropy_nats >= 0) & (entropy_nats <= MAX_STORED_ENTROPY_NATS)
    return int(np.argmin(valid))


def entropy_error(value: float, position: int, document: str) -> PatchingError:
    """The error about an entropy that can't be one."""
    return PatchingError(
        f"The entropy at position {position} of {document} is {float(value):.6g}; "
        f"entropies are finite, in nats and from 0 to ln 260 = {MAX_ENTROPY_NATS:.4f}, so score the document again."
    )
