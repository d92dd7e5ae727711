import ctypes
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from bltdata.errors import ConfigError
from bltdata.nn import autocast, machine, one_thread, prepare_cpu, resolve_device, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cuda:-1", "meta", "hpu", "xla", "CPU"])
def test_a_device_that_cannot_be_used(name):
    with pytest.raises(ConfigError, match=f"^The device '{name}' can't be used here; --device cpu always can.$"):
        resolve_device(name)


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_precision():
    assert resolve_precision("float32", CPU) == torch.float32
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    assert resolve_precision("auto", CPU) in (torch.float32, torch.bfloat16)


def test_precision_where_torch_has_no_kernels_for_it(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_precision("auto", CPU) == torch.float32


def test_autocast():
    x = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize("error", [None, KeyError])
def test_one_thread_is_for_the_block_alone(error):
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            if error is not None:
                raise error
    except KeyError:
        pass
    assert torch.get_num_threads() == 3


@pytest.fixture
def unprepared() -> Iterator[None]:
    """An allocator that nobody prepared, and threads as they were."""
    before = torch.get_num_threads()
    machine._keep_freed_memory.cache_clear()
    yield
    torch.set_num_threads(before)
    machine._keep_freed_memory.cache_clear()


@pytest.mark.parametrize(("variable", "cores", "left"), [(None, 2, 2), (None, 64, 3), ("3", 2, 3)])
def test_no_more_threads_than_cores_unless_the_user_says_how_many(monkeypatch, unprepared, variable, cores, left):
    monkeypatch.setattr("bltdata.nn.machine.num_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(3)
    with one_thread():
        prepare_cpu()
        assert torch.get_num_threads() == 1
    prepare_cpu()
    assert torch.get_num_threads() == left


def test_the_allocator_can_be_prepared_twice_and_anywhere(monkeypatch, unprepared):
    prepare_cpu()
    prepare_cpu()
    machine._keep_freed_memory.cache_clear()
    monkeypatch.setattr("sys.platform", "darwin")
    prepare_cpu()


@pytest.mark.parametrize(("largest", "taken"), [(2**31, 1 << 30), (32 << 20, 32 << 20), (0, None)])
def test_an_allocator_that_refuses_a_threshold_gets_a_smaller_one(monkeypatch, unprepared, largest, taken):
    settings = {}

    def mallopt(parameter: int, value: int) -> int:
        is_taken = parameter != -3 or value <= largest
        if is_taken:
            settings[parameter] = value
        return int(is_taken)

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    prepare_cpu()
    assert (settings.get(-3), settings[-1]) == (taken, 2**31 - 1)
