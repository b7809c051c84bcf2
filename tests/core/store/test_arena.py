"""The arena: shared between mappings, no name anywhere, backed before use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.core.errors import ObjectStoreFullError
from shoal.core.store import arena as module
from shoal.core.store.arena import Arena

MIB = 1 << 20


def test_what_one_mapping_writes_the_other_reads():
    arena = Arena.create(4 * MIB)
    other = Arena.attach(os.dup(arena.fd))
    arena.view[5:8] = b"abc"
    assert other.view[5:8] == b"abc"
    assert (other.size_bytes, arena.size_bytes) == (4 * MIB, 4 * MIB)
    other.close()
    arena.close()


def test_an_arena_is_sparse_and_the_descriptor_is_not_inherited():
    arena = Arena.create(1 << 34)
    assert os.fstat(arena.fd).st_blocks == 0
    assert not os.get_inheritable(arena.fd)
    arena.close()


def test_backing_a_region_reserves_it_and_only_it():
    arena = Arena.create(8 * MIB)
    arena.back(2 * MIB, 3 * MIB)
    if sys.platform == "linux":
        assert os.fstat(arena.fd).st_blocks * 512 == 3 * MIB
    arena.back(2 * MIB, 3 * MIB)
    arena.close()


def test_closing_with_live_views_neither_raises_nor_takes_them_away():
    arena = Arena.create(MIB)
    array = np.frombuffer(arena.view[:8], np.uint8)
    array[:] = 7
    arena.close()
    arena.close()
    assert array.sum() == 56


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_closing_closes_every_descriptor():
    before = len(list(Path("/proc/self/fd").iterdir()))
    arena = Arena.create(MIB)
    arena.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve memory")
def test_a_machine_without_memory_is_an_error_not_a_signal(monkeypatch):
    arena = Arena.create(8 * MIB)
    monkeypatch.setattr(module, "_available_bytes", lambda: 100 * MIB)
    with pytest.raises(ObjectStoreFullError, match="the machine has 100 MiB of memory left, too little to add 1 MiB"):
        arena.back(0, MIB)

    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_available_bytes", lambda: None)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ObjectStoreFullError, match=r"no memory to back 1 MiB .* \(No space left on device\)"):
        arena.back(0, MIB)
    arena.close()


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="positive size, not 0"):
        Arena.create(0)


def test_what_is_available_is_read_in_bytes():
    available = module._available_bytes()
    if Path("/proc/meminfo").exists():
        assert available is not None
        assert available > MIB
