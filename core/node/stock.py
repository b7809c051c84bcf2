"""What a node has and what is free of it: amounts, concrete GPUs, and what placement groups have set aside. Pure.

    own resources --reserve_group: every bundle, or nothing--> the group's, under names of their own (scheduling)
                  <--release_group----------------------------'
    either --take--> Holding --give_back--> where it came from

Invariant, for every name: available + what holdings and groups hold = total. What is held of a group that has been
released is void: giving it back changes nothing, for the group's resources have gone back as a whole. `available` may
go below zero for a moment, when a blocked task takes its CPU back that others use by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..resources import ResourceSet
from ..scheduling import bundles
from .gpus import GpuPool

Shape = Mapping[str, int]


class Infeasible(Exception):  # noqa: N818  named after what is wrong with the demand
    """This node can never satisfy the demand; the text says what is asked and what there is."""


@dataclass(slots=True)
class Holding:
    """Resources in use. `gpus`: parts by id, taken from `pool`."""

    shape: Shape
    gpus: Mapping[str, int] = field(default_factory=dict)
    pool: GpuPool | None = None


@dataclass(slots=True)
class _Group:
    """What a group has set aside: a holding of the node's own for each bundle, and the GPUs that are free in each."""

    holdings: list[Holding]
    pools: list[GpuPool]
    names: list[str]


class Stock:
    """The node's resources."""

    def __init__(self, total: Shape, gpus: Sequence[str] = ()) -> None:
        """
        Args:
          total: in 1/10_000.
          gpus: ids of the GPUs; as many as `total` says, numbered if none are given.
        """
        self.own = dict(total)  #: what the node has without the resources of its groups
        self.total = dict(total)
        self.available = dict(total)
        # Whoever gives the node GPUs by their number alone means the first ones.
        self._gpus = GpuPool.of_whole(gpus or map(str, range(-(-self.total.get("GPU", 0) // 10_000))))
        self._groups: dict[str, _Group] = {}
        #: Something has come back; set to False by who has looked at those that wait.
        self.freed = False

    def check(self, shape: Shape) -> None:
        """Raise `Infeasible` when not even an empty node could hold `shape`; a group that is not here yet could."""
        group = bundles.group_of(shape)
        if group and group not in self._groups:
            return
        demand, total = ResourceSet(shape), ResourceSet(self.total)
        if not demand.fits(total):
            raise Infeasible(f"it {demand.shortage(total)} in all")

    def take(self, shape: Shape) -> Holding | None:
        """Use `shape`; None if it is not free now, and nothing has changed."""
        available = self.available
        if any(amount > available.get(name, 0) for name, amount in shape.items() if amount):
            return None
        holding = self._take_gpus(shape)
        if holding is None:
            return None
        for name, amount in shape.items():
            available[name] = available.get(name, 0) - amount
        return holding

    def give_back(self, holding: Holding, *, without_cpu: bool = False) -> None:
        """It is used no more. `without_cpu`: the CPU is lent at the moment, so it is back already."""
        self.freed = True
        for name, amount in holding.shape.items():
            if name in self.available and not (without_cpu and bundles.plain_name(name) == "CPU"):
                self.available[name] += amount
        if holding.pool is not None:
            holding.pool.give_back(holding.gpus)

    def lend_cpu(self, holding: Holding, *, lend: bool) -> None:
        """Whoever holds it waits, so that others may use its CPU; or (False) takes it back."""
        self.freed = self.freed or lend
        for name, amount in holding.shape.items():
            if name in self.available and bundles.plain_name(name) == "CPU":
                self.available[name] += amount if lend else -amount

    # ---- placement groups

    def reserve_group(self, group: str, parts: Sequence[Shape]) -> bool:
        """Set all bundles aside; False if they are not free together, and nothing has changed."""
        holdings: list[Holding] = []
        for bundle in parts:
            holding = self.take(bundle)
            if holding is None:
                for taken in holdings:
                    self.give_back(taken)
                return False
            holdings.append(holding)
        added = bundles.resources_of(group, parts)
        self.total.update(added)
        self.available.update(added)
        self._groups[group] = _Group(holdings, [GpuPool(holding.gpus) for holding in holdings], list(added))
        return True

    def release_group(self, group: str) -> None:
        """Everything that the group has set aside is the node's again, at once, whoever still uses it."""
        record = self._groups.pop(group, None)
        if record is None:
            return
        for name in record.names:
            del self.total[name], self.available[name]
        for holding in record.holdings:
            self.give_back(holding)

    def _take_gpus(self, shape: Shape) -> Holding | None:
        parts = bundles.outside(shape).get("GPU", 0)
        if not parts:
            return Holding(shape)
        pools = [self._gpus]
        group = bundles.group_of(shape)
        if group:
            index, pools = bundles.bundle_of(shape), self._groups[group].pools
            pools = pools if index < 0 else [pools[index]]
        for pool in pools:
            taken = pool.take(parts)
            if taken is not None:
                return Holding(shape, taken, pool)
        return None
