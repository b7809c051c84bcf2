"""Large copies are whole, whatever their size, and over when they return, also when they are interrupted."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from shoal.core.store import copying

SOURCE = np.random.default_rng(0).integers(0, 256, 5_000_000, dtype=np.uint8)


@pytest.fixture(params=[0, 2])
def parallel(request, monkeypatch) -> None:
    """Several threads for all that numpy copies."""
    monkeypatch.setattr(copying, "_NUMPY_BYTES", 10)
    monkeypatch.setattr(copying, "_PARALLEL_BYTES", 100)
    monkeypatch.setattr(copying, "_idle_processors", lambda: request.param)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 100, 10_007, 10_008, 1_000_000, 5_000_000])
def test_every_byte_is_copied_and_none_beside(parallel, size):
    target = bytearray(size + 16)
    copying.copy(memoryview(target)[8 : 8 + size], memoryview(SOURCE)[:size])
    assert target[8 : 8 + size] == SOURCE[:size].tobytes()
    assert target[:8] == target[8 + size :] == bytes(8)


def test_no_thread_is_left(parallel):
    before = threading.active_count()
    copying.copy(memoryview(bytearray(1_000_000)), memoryview(SOURCE)[:1_000_000])
    assert threading.active_count() == before


def test_threads_that_cannot_be_started_are_not_needed(parallel, monkeypatch):
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    target = bytearray(100_000)
    copying.copy(memoryview(target), memoryview(SOURCE)[:100_000])
    assert target == SOURCE[:100_000].tobytes()


def test_after_an_interrupt_nobody_writes_any_more(parallel, monkeypatch):
    monkeypatch.setattr(copying, "_idle_processors", lambda: 2)
    writing = threading.Event()
    own = np.copyto

    def slowly(to: np.ndarray, of: np.ndarray) -> None:
        if threading.current_thread() is threading.main_thread():
            assert writing.wait(10)
            signal.raise_signal(signal.SIGINT)
        else:
            writing.set()
            time.sleep(0.2)
            own(to, of)

    monkeypatch.setattr(np, "copyto", slowly)
    target = bytearray(1_000_000)
    with pytest.raises(KeyboardInterrupt):
        copying.copy(memoryview(target), memoryview(SOURCE)[:1_000_000])
    then = bytes(target)
    assert not any(thread.name == "shoal-copy" for thread in threading.enumerate())
    time.sleep(0.3)
    assert target == then
