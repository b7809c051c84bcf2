"""What the resources of a placement group are called, and what a demand inside a group comes to.

A group sets resources aside, bundle by bundle. They are then resources of their own, under names that hold the group's
id (36 hexadecimal digits), which are Ray's:

    CPU_group_<id>       CPUs of all bundles together        bundle_group_<id>       1000 for each bundle
    CPU_group_1_<id>     CPUs of bundle 1                    bundle_group_1_<id>     1000

A task in the group asks for these names and so needs no second kind of scheduling: for the first alone if any bundle
will do, for both if it names one. It always takes 0.001 of `bundle`, so that one that asks for nothing is known to be
inside. Amounts are in 1/10_000. Pure.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from ..resources import SCALE, ResourceSet

#: What a task in a group takes of the group's `bundle`, and what each bundle has of it.
PRESENCE = SCALE // 1000
_ROOM = 1000 * SCALE
_ID_DIGITS = 36
_MARK = "bundle_group_"


def parse_bundle(bundle: Mapping[str, float]) -> dict[str, int]:
    """A bundle as a user writes it, in 1/10_000.

    Raises:
      TypeError, ValueError: as `ResourceSet.of`.
    """
    own = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    given = {own[name]: amount for name, amount in bundle.items() if name in own}
    store = bundle.get("object_store_memory")
    others = {name: amount for name, amount in bundle.items() if name not in own and name != "object_store_memory"}
    parts = ResourceSet.of(**given, resources=others).parts()
    if store:
        warnings.warn(
            "'object_store_memory' in a bundle reserves no memory of the object store: leave it out",
            DeprecationWarning,
            stacklevel=5,
        )
        parts["object_store_memory"] = ResourceSet.of(memory=store).parts()["memory"]
    return parts


def resources_of(group: str, bundles: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Everything that a node has in addition once it holds the group.

    Args:
      group: its id in hexadecimal.
    """
    parts: dict[str, int] = {}
    for index, bundle in enumerate(bundles):
        for name, amount in (*bundle.items(), ("bundle", _ROOM)):
            whole = f"{name}_group_{group}"
            parts[whole] = parts.get(whole, 0) + amount
            parts[f"{name}_group_{index}_{group}"] = amount
    return parts


def inside(demand: Mapping[str, int], group: str, index: int = -1) -> dict[str, int]:
    """The same demand, of a group's resources; of one bundle's, unless `index` is -1."""
    parts: dict[str, int] = {}
    for name, amount in (*demand.items(), ("bundle", PRESENCE)):
        parts[f"{name}_group_{group}"] = amount
        if index >= 0:
            parts[f"{name}_group_{index}_{group}"] = amount
    return parts


def group_of(shape: Mapping[str, int]) -> str:
    """The group, in hexadecimal, whose resources these are; empty if they are the node's own."""
    for name in shape:
        if name.startswith(_MARK):
            return name[-_ID_DIGITS:]
    return ""


def bundle_of(shape: Mapping[str, int]) -> int:
    """The bundle that a shape inside a group names; -1: any."""
    group = group_of(shape)
    for name in shape:
        if name.startswith(_MARK) and name != f"{_MARK}{group}":
            return int(name[len(_MARK) : -_ID_DIGITS - 1])
    return -1


def outside(shape: Mapping[str, int]) -> dict[str, int]:
    """What `inside` was given: the plain names. A shape of the node's own stays as it is."""
    group = group_of(shape)
    if not group:
        return dict(shape)
    end = f"_group_{group}"
    return {name[: -len(end)]: shape[name] for name in shape if name.endswith(end) and not name.startswith(_MARK)}


def plain_name(name: str) -> str:
    """``CPU`` of ``CPU_group_1_<id>``."""
    return name.partition("_group_")[0]
