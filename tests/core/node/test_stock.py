"""What a node has: against a naive model, under random interleavings of work, blocking and placement groups."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from shoal.core.node.stock import Holding, Infeasible, Stock
from shoal.core.scheduling import bundles

CPU = 10_000
GROUPS = ["aa" * 18, "bb" * 18, "cc" * 18]
DEMANDS = [{"CPU": CPU}, {"CPU": CPU // 2}, {"CPU": CPU, "GPU": CPU}, {"GPU": CPU // 2}, {"GPU": 2 * CPU}, {}]
PARTS = [[{"CPU": CPU}], [{"CPU": CPU}, {"CPU": CPU, "GPU": CPU}], [{"GPU": CPU // 2}] * 3, [{"CPU": 9 * CPU}]]


def test_a_group_is_reserved_as_a_whole_or_not_at_all():
    stock = Stock({"CPU": 2 * CPU, "GPU": CPU})
    assert not stock.reserve_group(GROUPS[0], [{"CPU": CPU}, {"CPU": CPU, "GPU": 2 * CPU}])
    assert stock.available == stock.total == {"CPU": 2 * CPU, "GPU": CPU}
    assert stock.reserve_group(GROUPS[0], [{"CPU": CPU}, {"CPU": CPU, "GPU": CPU}])
    assert stock.available["CPU"] == stock.available["GPU"] == 0
    assert stock.available[f"CPU_group_{GROUPS[0]}"] == 2 * CPU
    assert stock.own == {"CPU": 2 * CPU, "GPU": CPU}


def test_work_in_a_group_has_the_gpus_of_its_bundle():
    stock = Stock({"GPU": 3 * CPU}, ["4", "5", "6"])
    assert stock.reserve_group(GROUPS[0], [{"GPU": CPU}, {"GPU": 2 * CPU}])
    second = stock.take(bundles.inside({"GPU": CPU}, GROUPS[0], 1))
    assert second is not None
    assert list(second.gpus) == ["5"]
    assert list(stock.take(bundles.inside({"GPU": CPU}, GROUPS[0])).gpus) == ["4"], "any: the first that has room"
    assert list(stock.take(bundles.inside({"GPU": CPU}, GROUPS[0])).gpus) == ["6"]
    stock.give_back(second)
    assert list(stock.take(bundles.inside({"GPU": CPU}, GROUPS[0], 1)).gpus) == ["5"]


def test_a_released_group_gives_everything_back_whoever_uses_it():
    stock = Stock({"CPU": CPU, "GPU": CPU})
    stock.reserve_group(GROUPS[0], [{"CPU": CPU, "GPU": CPU}])
    inside = stock.take(bundles.inside({"CPU": CPU, "GPU": CPU}, GROUPS[0]))
    stock.release_group(GROUPS[0])
    assert stock.available == stock.total == {"CPU": CPU, "GPU": CPU}
    stock.give_back(inside)
    stock.release_group(GROUPS[0])
    assert stock.available == stock.total == {"CPU": CPU, "GPU": CPU}
    assert list(stock.take({"GPU": CPU}).gpus) == ["0"]


def test_what_can_never_be_is_told_but_a_group_may_still_come():
    stock = Stock({"CPU": CPU})
    with pytest.raises(Infeasible, match="needs GPU 1, this machine has GPU 0 in all"):
        stock.check({"GPU": CPU})
    stock.check(bundles.inside({"CPU": 9 * CPU}, GROUPS[0]))
    stock.reserve_group(GROUPS[0], [{"CPU": CPU}])
    with pytest.raises(Infeasible):
        stock.check(bundles.inside({"CPU": 9 * CPU}, GROUPS[0]))


def test_who_has_looked_is_told_when_there_is_reason_to_look_again():
    stock = Stock({"CPU": CPU})
    assert not stock.freed
    holding = stock.take({"CPU": CPU})
    assert not stock.freed
    stock.lend_cpu(holding, lend=True)
    assert stock.freed
    stock.freed = False
    stock.lend_cpu(holding, lend=False)
    assert not stock.freed
    stock.give_back(holding)
    assert stock.freed


class Model:
    """The naive way: nothing is kept but who holds what; what is free is counted anew each time."""

    def __init__(self, total: dict[str, int]) -> None:
        self.own = total
        self.groups: dict[str, list[dict[str, int]]] = {}
        self.held: list[tuple[Holding, bool]] = []  # and whether its CPU is lent

    def total(self) -> dict[str, int]:
        total = dict(self.own)
        for group, parts in self.groups.items():
            total.update(bundles.resources_of(group, parts))
        return total

    def available(self) -> dict[str, int]:
        left = self.total()
        for bundle in (bundle for parts in self.groups.values() for bundle in parts):
            for name, amount in bundle.items():
                left[name] -= amount
        for holding, lent in self.held:
            for name, amount in holding.shape.items():
                if name in left and not (lent and name.split("_")[0] == "CPU"):
                    left[name] -= amount
        return left

    def drop(self, index: int) -> Holding:
        return self.held.pop(index)[0]


steps = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 99)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_any_interleaving_adds_up(moves):
    total = {"CPU": 4 * CPU, "GPU": 2 * CPU}
    stock, model = Stock(total, ["x", "y"]), Model(dict(total))
    for kind, which, number in moves:
        group = GROUPS[which]
        if kind == 0 and group not in model.groups:
            parts = PARTS[number % len(PARTS)]
            before = dict(stock.available)
            if stock.reserve_group(group, parts):
                model.groups[group] = parts
                # What stands in an earlier group of that name is void; ids are never used twice, so forget it.
                model.held = [(h, lent) for h, lent in model.held if bundles.group_of(h.shape) != group]
            else:
                assert stock.available == before
        elif kind == 1:
            stock.release_group(group)
            model.groups.pop(group, None)
        elif kind in (2, 3):
            demand = DEMANDS[number % len(DEMANDS)]
            index = number % 3 - 1
            shape = demand
            if kind == 3:
                if group not in model.groups or index >= len(model.groups[group]):
                    continue
                shape = bundles.inside(demand, group, index)
            before = dict(stock.available)
            holding = stock.take(shape)
            if holding is None:
                assert stock.available == before
            else:
                assert all(before.get(name, 0) >= amount for name, amount in shape.items())
                assert sum(holding.gpus.values()) == demand.get("GPU", 0)
                model.held.append((holding, False))
        elif kind == 4 and model.held:
            index = number % len(model.held)
            lent = model.held[index][1]
            stock.give_back(model.drop(index), without_cpu=lent)
        elif kind == 5 and model.held:
            index = number % len(model.held)
            holding, lent = model.held[index]
            model.held[index] = (holding, not lent)
            stock.lend_cpu(holding, lend=not lent)
        model.held = [(h, lent) for h, lent in model.held if not _is_void(h, model)]
        assert stock.total == model.total()
        assert stock.available == model.available()
    shares = [
        share for holding, _ in model.held if not bundles.group_of(holding.shape) for share in holding.gpus.items()
    ]
    for gpu in "xy":
        assert sum(parts for name, parts in shares if name == gpu) <= CPU, "nobody has more than there is of a GPU"


def _is_void(holding: Holding, model: Model) -> bool:
    group = bundles.group_of(holding.shape)
    return bool(group) and group not in model.groups
