"""torch tensors as values, arguments and results: whole, and the reader's own."""

from __future__ import annotations

import pytest

import shoal

torch = pytest.importorskip("torch")
DEADLINE_S = 60


def test_writing_into_what_was_got_changes_nothing_for_others():
    ref = shoal.put({"weights": torch.ones(300, 1000), "small": torch.ones(3)})

    @shoal.remote
    def train(values):
        for tensor in values.values():
            tensor.mul_(2)
        return float(values["weights"].sum() + values["small"].sum())

    assert [shoal.get(train.remote(ref), timeout=DEADLINE_S) for _ in range(2)] == [600_006.0] * 2
    mine = shoal.get(ref)
    mine["weights"].zero_()
    again = shoal.get(ref)
    assert again["weights"].sum() == 300_000
    del ref
    assert again["weights"].sum() == 300_000


def test_a_result_may_be_a_view_and_a_parameter():
    @shoal.remote
    def make():
        return torch.arange(200_000.0).reshape(2, -1)[1], torch.nn.Parameter(torch.ones(2), requires_grad=True)

    row, parameter = shoal.get(make.remote(), timeout=DEADLINE_S)
    assert row[0] == 100_000
    assert isinstance(parameter, torch.nn.Parameter)
    assert parameter.requires_grad


def test_memory_comes_back_when_tensors_go():
    for _ in range(20):  # 1.6 GB in all, in a store of 512 MB
        tensor = shoal.get(shoal.put(torch.zeros(20_000_000)))
        tensor[0] = 1
    assert tensor[0] == 1
