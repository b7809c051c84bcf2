"""One session for each file of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    shoal.init(num_cpus=2, object_store_memory=256 * 1024 * 1024)
    yield
    shoal.shutdown()
