"""Which policies are served, in which versions, and which version answers a request. A table: no clock, no arrays.

A policy has a name, and versions that are numbered upwards. One of them is in front: the last that was added to serve
(or raised from shadow). It answers every request that asks for no version, but for the shares that others were given.

    add --> serving --shadow--> shadow --serve--> serving       serving: may answer
       '--> shadow                                              shadow: sees requests, answers nobody
    serving, shadow --retire--> retired                         retired: answers nobody any more; the end

A version that comes in front retires the one that was there, unless that has a share. So a name that follows a learner
has one version at a time, and `share("walker", {5: 0.9})` keeps 5 for nine tenths of the requests while newer ones come
and go with the rest. A share of 0 keeps a version for those who ask for it: who serves is in front or has a share.
Which version a request gets is a function of its key (a session's name, or its number): a session stays with its
version, and another division moves only those that must move.

What does not fit is refused with a reason, and changes nothing: ``RefusedError``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import PolicyNotFound, Unready
from .requests import VersionInfo

State = Literal["serving", "shadow", "retired"]
#: Retired versions of a policy that are still told of.
_RETIRED_KEPT = 8
#: Refusals that are still told of.
_REFUSALS_KEPT = 16
#: What shares may be over 1 by rounding.
_ROUNDING = 1e-9


class RefusedError(ValueError):
    """A version was not taken, and all is served as before. One line: the policy, what came, why. Raised to whoever
    brought it; trying the same again cannot help.
    """


@dataclass(frozen=True)
class Refusal:
    """A version that was not taken."""

    policy: str
    source: str  #: where it came from
    reason: str


class PolicyTable:
    """What is served.

    Attributes:
      refusals: The last versions that were not taken, oldest first.
      num_refused: How many there were.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self.refusals: deque[Refusal] = deque(maxlen=_REFUSALS_KEPT)
        self.num_refused = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Every policy, by name."""
        return tuple(sorted(self._entries))

    def add(
        self, name: str, *, number: int | None, source: str, loaded_at: float, is_shadow: bool = False
    ) -> tuple[int, tuple[int, ...]]:
        """A version comes.

        Args:
          name: Of its policy, which may be new.
          number: Its own, greater than those before; None: the next.
          source: Where it came from.
          loaded_at: Seconds since 1970.
          is_shadow: It is to see requests, and answer none.

        Returns:
          Its number, and those of the versions that are retired by it.

        Raises:
          RefusedError: the number is not greater than those before, or a new policy would begin with a shadow.
        """
        entry = self._entries.get(name) or Entry(name)
        least = entry.greatest + 1
        number = least if number is None else number
        if number < least:
            raise self.refuse(name, source, f"version {number} is not newer than {entry.greatest}, which came before")
        if is_shadow and entry.front is None:
            raise self.refuse(name, source, "the first version of a policy cannot be a shadow: nobody would answer")
        self._entries[name] = entry
        state: State = "shadow" if is_shadow else "serving"
        entry.add(VersionInfo(number=number, source=source, loaded_at=loaded_at, state=state))
        return number, () if is_shadow else self._to_front(entry, number)

    def refuse(self, name: str, source: str, reason: str) -> RefusedError:
        """Note that a version is not taken; the error to raise."""
        self.refusals.append(Refusal(name, source, reason))
        self.num_refused += 1
        return RefusedError(f"policy {name!r}: {source} is refused: {reason}")

    def serve(self, name: str, number: int) -> tuple[int, ...]:
        """A shadow comes in front.

        Returns:
          The versions that are retired by it.

        Raises:
          PolicyNotFound: there is no such version.
          ValueError: it is no shadow.
        """
        entry, version = self._version(name, number)
        if version.state != "shadow":
            raise ValueError(f"version {number} of {name!r} is {version.state}, no shadow")
        entry.set_state(number, "serving")
        return self._to_front(entry, number)

    def shadow(self, name: str, number: int) -> None:
        """A version answers no more, and sees requests. Its share goes to the version in front.

        Raises:
          PolicyNotFound: there is no such version.
          ValueError: it does not serve, or is the one in front.
        """
        entry = self._behind_front(name, number, "serving")
        entry.set_state(number, "shadow")
        entry.shares.pop(number, None)

    def retire(self, name: str, number: int) -> None:
        """A version has no more to do. Its share goes to the version in front.

        Raises:
          PolicyNotFound: there is no such version.
          ValueError: it is retired already, or is the one in front.
        """
        entry = self._behind_front(name, number, "serving", "shadow")
        entry.shares.pop(number, None)
        entry.set_state(number, "retired")

    def remove(self, name: str) -> tuple[int, ...]:
        """A policy is served no more.

        Returns:
          The versions that it had and that were not retired.

        Raises:
          PolicyNotFound: there is no such policy.
        """
        entry = self.entry(name)
        del self._entries[name]
        return tuple(number for number, version in entry.versions.items() if version.state != "retired")

    def share(self, name: str, shares: Mapping[int, float]) -> tuple[int, ...]:
        """Divide the requests that ask for no version.

        Args:
          name: Of the policy.
          shares: Version -> its part, 0 to 1. The rest is for the version in front, whichever that is then; {}: all.

        Returns:
          The versions that are retired, because they have no share any more.

        Raises:
          PolicyNotFound: there is no such policy, or a version does not serve.
          ValueError: parts that are no parts, or are more than the whole.
        """
        entry = self.entry(name)
        for number, part in shares.items():
            entry.check_serves(number)
            if not (math.isfinite(part) and 0.0 <= part <= 1.0):
                raise ValueError(f"the share of {name}:{number} must be from 0 to 1, not {part}")
        if sum(shares.values()) > 1.0 + _ROUNDING:
            raise ValueError(f"the shares of {name!r} are {sum(shares.values()):g} together, more than 1")
        entry.shares = {number: shares[number] for number in sorted(shares)}
        retired = tuple(number for number in entry.serving if number != entry.front and number not in shares)
        for number in retired:
            entry.set_state(number, "retired")
        return retired

    def choose(self, name: str, number: int | None, key: str | int) -> int:
        """The version that answers a request: see ``Entry.choose``.

        Raises:
          PolicyNotFound: no such policy, or the version does not serve.
          Unready: there is no policy at all.
        """
        return self.entry(name).choose(number, key)

    def entry(self, name: str) -> Entry:
        """A policy as it stands, now and later: for who asks at each request. Not to be changed but by the table.

        Raises:
          PolicyNotFound, Unready: as ``choose``.
        """
        entry = self._entries.get(name)
        if entry is None:
            if not self._entries:
                raise Unready("no policy is served yet")
            raise PolicyNotFound(f"no policy {name!r} is served; choose from {', '.join(self.names)}", field="name")
        return entry

    def front(self, name: str) -> int:
        """The version in front.

        Raises:
          PolicyNotFound, Unready: as ``choose``.
        """
        front = self.entry(name).front
        assert front is not None
        return front

    def shadows(self, name: str) -> tuple[int, ...]:
        """The versions that see what others answer."""
        return self.entry(name).shadows

    def serving(self, name: str) -> tuple[int, ...]:
        """The versions that may answer."""
        return self.entry(name).serving

    def versions(self, name: str) -> tuple[VersionInfo, ...]:
        """All that is told of, newest first."""
        return tuple(sorted(self.entry(name).versions.values(), key=lambda version: -version.number))

    def traffic(self, name: str) -> dict[int, float]:
        """Version -> its part of the requests that ask for none; {}: all are for the version in front."""
        entry = self.entry(name)
        if not entry.shares:
            return {}
        assert entry.front is not None
        parts = dict(entry.shares)
        rest = max(0.0, 1.0 - sum(parts.values()))
        parts[entry.front] = parts.get(entry.front, 0.0) + (rest if rest > _ROUNDING else 0.0)
        return parts

    def shares(self, name: str) -> dict[int, float]:
        """As they were given to ``share``."""
        return dict(self.entry(name).shares)

    def _to_front(self, entry: Entry, number: int) -> tuple[int, ...]:
        before, entry.front = entry.front, number
        if before is None or before == number or before in entry.shares:
            return ()
        entry.set_state(before, "retired")
        return (before,)

    def _version(self, name: str, number: int) -> tuple[Entry, VersionInfo]:
        entry = self.entry(name)
        version = entry.versions.get(number)
        if version is None:
            raise entry.not_found(number, "unknown")
        return entry, version

    def _behind_front(self, name: str, number: int, *states: str) -> Entry:
        entry, version = self._version(name, number)
        if version.state not in states:
            raise ValueError(f"version {number} of {name!r} is {version.state}, not {' or '.join(states)}")
        if number == entry.front:
            raise ValueError(f"version {number} of {name!r} is the one in front: put another there first")
        return entry


class Entry:
    """One policy.

    Attributes:
      versions: All that is told of, by number.
      front: The version in front; None until the first one comes.
      greatest: Number of the last one that came.
      shares: As they were given.
      shadows: The versions that see what others answer.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.versions: dict[int, VersionInfo] = {}
        self.front: int | None = None
        self.greatest = -1
        self.shares: dict[int, float] = {}
        self.shadows: tuple[int, ...] = ()

    @property
    def serving(self) -> tuple[int, ...]:
        """The versions that may answer."""
        return self._in("serving")

    def choose(self, number: int | None, key: str | int) -> int:
        """The version that answers a request.

        Args:
          number: The version that was asked for; None: any.
          key: Of the request: the same key gets the same version while shares and versions stay as they are.

        Raises:
          PolicyNotFound: the version does not serve.
        """
        if number is not None:
            self.check_serves(number)
            return number
        assert self.front is not None, "an entry is made with its first version"
        if self.shares:
            place = _place(self._name, key)
            for sharing, part in self.shares.items():
                place -= part
                if place < 0.0:
                    return sharing
        return self.front

    def add(self, version: VersionInfo) -> None:
        """A version comes, greater than those before."""
        self.versions[version.number] = version
        self.greatest = version.number
        self.shadows = self._in("shadow")

    def set_state(self, number: int, state: State) -> None:
        """A version becomes another thing; retired ones that are too many are forgotten."""
        self.versions[number] = dataclasses.replace(self.versions[number], state=state)
        for forgotten in self._in("retired")[:-_RETIRED_KEPT]:
            del self.versions[forgotten]
        self.shadows = self._in("shadow")

    def check_serves(self, number: int) -> None:
        """Raises PolicyNotFound unless a version may answer."""
        version = self.versions.get(number)
        if version is None or version.state != "serving":
            raise self.not_found(number, "unknown" if version is None else version.state)

    def not_found(self, number: int, state: str) -> PolicyNotFound:
        """That a version is not one to answer; the error to raise."""
        served = ", ".join(map(str, sorted(self.serving)))
        return PolicyNotFound(f"version {number} of {self._name!r} is {state}; there are {served}", field="name")

    def _in(self, state: State) -> tuple[int, ...]:
        return tuple(version.number for version in self.versions.values() if version.state == state)


def _place(name: str, key: str | int) -> float:
    """Where a request stands among all, from 0 to 1: evenly spread, and the same on every machine and at any time."""
    digest = hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64
