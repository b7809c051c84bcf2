"""Resources as exact integers in 1/10,000, so that what is taken and given back always adds up.

A `ResourceSet` is immutable: a demand, a capacity, what is left. This module parses what users write and does the
arithmetic; it decides nothing about who gets what (node/policy). The CPU count of a demand is bookkeeping, not a limit
on what the code may use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

#: Parts of one unit. Ray's precision, too.
SCALE = 10_000
_PRECISION = 1 / SCALE

#: Names with an argument of their own (``num_cpus=`` ...), which ``resources=`` may not use.
RESERVED = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory", "object_store_memory": "object_store_memory"}


class ResourceSet:
    """Amounts by name. A name that is absent has amount 0; zeros are not kept."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, int] | None = None) -> None:
        """From parts (1/10,000), as they travel.

        Raises:
          ValueError: an amount is negative.
        """
        self._parts = {name: amount for name, amount in (parts or {}).items() if amount}
        for name, amount in self._parts.items():
            if amount < 0:
                raise ValueError(f"resource {name} would be negative: {_show(amount)}")

    @classmethod
    def of(
        cls,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: float | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> ResourceSet:
        """From what a user wrote; None counts as 0.

        Raises:
          TypeError: an amount is no number, or a name no string.
          ValueError: an amount is negative, not finite, finer than 0.0001, or a GPU amount over 1 is not whole;
            `resources` names CPU, GPU or memory.
        """
        parts = {
            "CPU": _parse("num_cpus", num_cpus),
            "GPU": _parse("num_gpus", num_gpus),
            "memory": _parse("memory", memory),
        }
        if parts["GPU"] > SCALE and parts["GPU"] % SCALE:
            raise ValueError(f"num_gpus={num_gpus}: more than one GPU can only be had in whole GPUs")
        for name, amount in (resources or {}).items():
            _check_name(name)
            if name in RESERVED:
                raise ValueError(f"resources: {name!r} is given by {RESERVED[name]}=, not in resources")
            parts[name] = _parse(f"resources[{name!r}]", amount)
        return cls(parts)

    def fits(self, available: ResourceSet) -> bool:
        """Whether `available` has at least all of this."""
        theirs = available._parts
        return all(theirs.get(name, 0) >= amount for name, amount in self._parts.items())

    def __add__(self, other: ResourceSet) -> ResourceSet:
        parts = dict(self._parts)
        for name, amount in other._parts.items():
            parts[name] = parts.get(name, 0) + amount
        return ResourceSet(parts)

    def __sub__(self, other: ResourceSet) -> ResourceSet:
        """What is left.

        Raises:
          ValueError: `other` does not fit; the message names each resource that is short.
        """
        if not other.fits(self):
            raise ValueError(other.shortage(self))
        parts = dict(self._parts)
        for name, amount in other._parts.items():
            parts[name] -= amount
        return ResourceSet(parts)

    def only(self, *names: str) -> ResourceSet:
        """The part of these names, for instance the CPUs that a blocked task gives back."""
        return ResourceSet({name: amount for name, amount in self._parts.items() if name in names})

    def amount(self, name: str) -> float:
        """How much of one resource, in units."""
        return self._parts.get(name, 0) / SCALE

    def parts(self) -> dict[str, int]:
        """A copy in parts (1/10,000), as it travels."""
        return dict(self._parts)

    def as_floats(self) -> dict[str, float]:
        """In units, as ``cluster_resources()`` shows it."""
        return {name: amount / SCALE for name, amount in self._parts.items()}

    def describe(self) -> str:
        """For messages: ``CPU 4, GPU 0.5``; ``nothing`` if empty."""
        return ", ".join(f"{name} {_show(amount)}" for name, amount in self._parts.items()) or "nothing"

    def shortage(self, available: ResourceSet, whose: str = "this machine") -> str:
        """About a demand that does not fit: ``needs CPU 4, this machine has CPU 2``; only what is short."""
        short = {name: amount for name, amount in self._parts.items() if available._parts.get(name, 0) < amount}
        has = ", ".join(f"{name} {_show(available._parts.get(name, 0))}" for name in short)
        return f"needs {ResourceSet(short).describe()}, {whose} has {has or 'that'}"

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceSet) and other._parts == self._parts

    def __hash__(self) -> int:
        return hash(frozenset(self._parts.items()))

    def __repr__(self) -> str:
        return f"ResourceSet({self.describe()})"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"resources: a name is a string that is not empty, not {name!r}")


def _parse(argument: str, amount: float | None) -> int:
    """An amount in units as parts."""
    if amount is None:
        return 0
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"{argument}={amount!r}: an amount is a number")
    if not amount >= 0 or amount == float("inf"):
        raise ValueError(f"{argument}={amount}: an amount is finite and not negative")
    parts = round(amount * SCALE)
    # Floats like 0.1 + 0.2 are not exact; what differs by less than a hundredth of a part was meant to be exact.
    if abs(amount * SCALE - parts) > max(0.01, abs(amount) * 1e-9):
        raise ValueError(f"{argument}={amount}: amounts go in steps of {_PRECISION}")
    return parts


def _show(parts: int) -> str:
    return f"{parts / SCALE:.4f}".rstrip("0").rstrip(".")
