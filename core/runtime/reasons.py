"""What an object is waiting for, in words, to the deepest reason. Pure: facts come from a callback.

    object --made by--> task or call --waits for--> its argument       -> that object
                                                    resources          -> who holds them
                                                    its placement group -> resources, likewise
                                                    its actor          -> its creation: arguments, resources, __init__
                                                    a turn at a worker -> what runs there
                                     --runs at a worker--, and waits in get or wait for objects -> the first of those

The facts are rows of `inspecting.py`, asked of one process after the other along the chain; so each step costs a round
trip, and nothing is known beforehand. A chain that comes back to itself is a wait that never ends.

`Reason.kind` says whether something goes on at its end: see `Kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..resources import ResourceSet
from ..scheduling import bundles
from .history import Row

#: (subject, key, target) -> the rows of that process, None if it is silent or gone. An empty target is the head.
Ask = Callable[[str, bytes, bytes], "list[Row] | None"]

#: Steps that are followed; a longer chain ends in words.
_STEPS = 100
#: Objects of one wait that are looked at.
_OBJECTS = 5
#: Holders of resources that are named.
_HOLDERS = 3


class Kind(Enum):
    """What is at the end of a chain."""

    OVER = "over"  #: there is a value, or a failure
    RUNNING = "running"  #: user code runs: this is progress
    BUSY = "busy"  #: resources are used by tasks that run and will end
    STUCK = "stuck"  #: nothing that runs now will end it by itself
    ENDLESS = "endless"  #: it waits for itself
    UNKNOWN = "unknown"  #: somebody did not tell


@dataclass(frozen=True)
class Reason:
    """Why an object is not there.

    key: the same for waits with the same cause, so that each cause is told once.
    """

    kind: Kind
    text: str
    key: str = ""


class Chain:
    """One walk from an object to the reason."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._path: list[bytes] = []  # objects that have been passed
        self._pids: dict[bytes, int] = {}

    def of_first(self, wanted: Sequence[Sequence[bytes]]) -> Reason:
        """Of several (id, owner) that somebody waits for: something that runs, if any; else the first that waits."""
        first = Reason(Kind.OVER, "there is nothing to wait for")
        for object_id, owner in list(wanted)[:_OBJECTS]:
            reason = self.of(object_id, owner)
            if reason.kind is Kind.RUNNING:
                return reason
            if first.kind is Kind.OVER:
                first = reason
        return first

    def of(self, object_id: bytes, owner: bytes) -> Reason:
        """Why an object is not there."""
        if object_id in self._path:
            # The cycle has no first object: its name is the same wherever it was entered.
            cycle = min(self._path[self._path.index(object_id) :])
            return Reason(Kind.ENDLESS, "which waits for this very object: that never ends", f"endless:{cycle.hex()}")
        if len(self._path) >= _STEPS:
            return Reason(Kind.UNKNOWN, f"and so on: the chain is longer than {_STEPS} steps")
        rows = self._ask("object", object_id, owner) if owner else []
        if rows is None:
            return self._silent(owner, f"{_ref(object_id)} belongs to {self._process(owner)}")
        if not rows:
            return Reason(Kind.OVER, f"nobody owns {_ref(object_id)}: it was made by hand from an id")
        (facts,) = rows
        if "name" in facts:
            self._path.append(object_id)
            try:
                return self._of_maker(facts)
            finally:
                self._path.pop()
        if "group_id" in facts:
            return self._of_group(_ref(object_id), facts["group_id"])
        return _ENDS[facts["state"]](object_id)

    # ---- steps

    def _of_maker(self, facts: Row) -> Reason:
        name, state = facts["name"], facts["task_state"]
        if facts["missing"]:
            whose = f"behind {facts['behind']}(), an earlier call, which waits" if facts["behind"] else "waits"
            argument, owner = facts["missing"][0]
            deeper = self.of(argument, owner)
            return _join(f"{name}() {whose} for its argument {_ref(argument)}", deeper)
        if state == "SUBMITTED_TO_WORKER":
            return self._at_worker(facts)
        if facts["actor_id"]:
            return self._of_actor(name, facts["actor_id"])
        return self._of_resources(f"{name}()", facts["resources"], at_work=facts["same_shape_at_work"])

    def _at_worker(self, facts: Row) -> Reason:
        name, worker = f"{facts['name']}()", facts["worker_id"]
        rows = self._ask("running", b"", worker)
        where = self._process(worker)
        if rows is None:
            return self._silent(worker, f"{name} was given to {where}")
        for row in rows:
            if row["task_id"] == facts["task_id"]:
                return self._of_running(f"{name} runs on {where} since {row['for_s']:.1f} s", row)
        if not rows:
            return Reason(Kind.RUNNING, f"{name} was given to {where}, which is about to begin it")
        row = rows[0]
        return self._of_running(f"{name} waits on {where} for its turn after {row['name']}(), which runs there", row)

    def _of_running(self, words: str, row: Row) -> Reason:
        if not row["wanted"]:
            return Reason(Kind.RUNNING, words)
        deeper = self.of_first(row["wanted"])
        if deeper.kind is Kind.OVER:
            return Reason(Kind.RUNNING, words)
        return _join(f"{words} and waits in {row['verb']} for {_ref(row['wanted'][0][0])}", deeper)

    def _of_actor(self, name: str, actor_id: bytes) -> Reason:
        found = self._ask("actors", actor_id, b"") or []
        if not found:
            return self._of_creation(f"{name}() waits for its actor", actor_id)
        (actor,) = found
        which = f"{actor['class_name']} (actor {actor['actor_id']})"
        if actor["state"] == "ALIVE":
            return Reason(Kind.RUNNING, f"{name}() is about to be sent to {which}")
        if actor["state"] == "DEAD":
            return Reason(Kind.OVER, f"{name}() is about to fail: {which} is dead")
        words = f"{name}() waits for {which}, which "
        words += f"is being restarted ({actor['num_restarts']} times so far)" if actor["num_restarts"] else "is pending"
        worker = bytes.fromhex(actor["worker_id"] or "")
        if worker:
            rows = self._ask("running", b"", worker)
            if rows is None:
                return self._silent(worker, f"{words} on {self._process(worker)}")
            if rows:
                return self._of_running(f"{words}: its __init__ runs since {rows[0]['for_s']:.1f} s", rows[0])
            return Reason(Kind.RUNNING, f"{words}: its __init__ is about to begin")
        if actor["num_restarts"]:
            return _join(words, self._of_resources("it", actor["required_resources"]), by=": ")
        return self._of_creation(words, actor_id)

    def _of_creation(self, words: str, actor_id: bytes) -> Reason:
        creator = actor_id[:12]
        rows = self._ask("creation", actor_id, creator)
        if rows is None:
            return self._silent(creator, f"{words}, created by {self._process(creator)}")
        if not rows:
            return Reason(Kind.UNKNOWN, f"{words}, whose creation nobody knows of", f"actor:{actor_id.hex()}")
        (facts,) = rows
        if facts["missing"]:
            argument, owner = facts["missing"][0]
            return _join(f"{words}, whose creation waits for its argument {_ref(argument)}", self.of(argument, owner))
        return _join(words, self._of_resources("it", facts["resources"]), by=": ")

    def _of_resources(self, who: str, shape: Mapping[str, int], *, at_work: Iterable[bytes] = ()) -> Reason:
        group = bundles.group_of(shape)
        if group:
            row = self._group(bytes.fromhex(group))
            if row is None or row["state"] != "CREATED":
                return self._of_group(who, bytes.fromhex(group))
        usage = self._ask("usage", b"", b"") or []
        totals = next((row for row in usage if "total" in row), None)
        if totals is None:
            return Reason(Kind.UNKNOWN, f"{who} waits for a worker; the head does not say why")
        leases = [row for row in usage if "total" not in row]
        turn = [row for row in leases if row["worker_id"] in set(at_work) and not row["blocked"]]
        if turn:
            tasks = "task" if len(turn) == 1 else "tasks"
            return Reason(Kind.RUNNING, f"{who} waits for its turn behind {len(turn)} running {tasks} of the same kind")
        need = ResourceSet(shape)
        free = ResourceSet({name: max(0, amount) for name, amount in totals["available"].items()})
        if need.fits(free):
            return Reason(Kind.STUCK, f"{who} waits for a worker process, which is being started", f"starting:{who}")
        short = [name for name in need if need.amount(name) > free.amount(name)]
        told = list({_words(name): name for name in short}.values())  # a bundle's share is of the group's, too
        total = ResourceSet(totals["total"])
        words = ", ".join(
            f"it needs {_words(name)} {need.amount(name):g}, {free.amount(name):g} of {total.amount(name):g} "
            f"{'is' if free.amount(name) == 1 else 'are'} free"
            for name in told
        )
        holders = [row for row in leases if any(row["shape"].get(name) for name in short) and not row["blocked"]]
        passing = ResourceSet({})
        for row in holders:
            if not row["actor_id"]:
                passing += ResourceSet(row["shape"])
        kind = Kind.BUSY if need.fits(free + passing) else Kind.STUCK
        key = f"resources:{who}:{need.describe()}"
        return Reason(kind, f"{who} waits in the queue: {words}{self._held_by(holders, short)}", key)

    def _of_group(self, who: str, group_id: bytes) -> Reason:
        """Why a placement group is not there."""
        row, words = self._group(group_id), f"{who} waits for placement group {group_id.hex()}"
        if row is None:
            return Reason(Kind.UNKNOWN, f"{words}, which nobody has announced", f"group:{group_id.hex()}")
        if row["state"] != "PENDING":
            return Reason(Kind.OVER, f"{words}, which is {row['state']}")
        demand = ResourceSet({})
        for bundle in row["bundles"]:
            demand += ResourceSet(bundle)
        return _join(words, self._of_resources("the group", demand.parts()), by=": ")

    def _group(self, group_id: bytes) -> Row | None:
        rows = self._ask("placement_groups", group_id, b"") or []
        return rows[0] if rows else None

    def _held_by(self, holders: Sequence[Row], short: Sequence[str]) -> str:
        groups = [row for row in self._ask("placement_groups", b"", b"") or [] if row["state"] == "CREATED"]
        reserved = [
            f"placement group {row['placement_group_id']} has {_amounts(row['bundles'], short)}"
            for row in groups
            if _amounts(row["bundles"], short)
        ]
        if not holders and not reserved:
            return ""
        classes = {row["actor_id"]: row["class_name"] for row in self._ask("actors", b"", b"") or []}
        told = []
        for row in holders[:_HOLDERS]:
            what = classes.get(row["actor_id"].hex(), "an actor") if row["actor_id"] else "a task"
            pid = f" (pid {row['pid']})" if row["pid"] else ""
            told.append(f"{what}{pid} has {_amounts([row['shape']], short)}")
        told += reserved[: _HOLDERS - len(told)]
        more = len(holders) + len(reserved) - len(told)
        return f"; {', '.join(told)}{f' and {more} more' if more else ''}"

    # ---- words

    def _process(self, worker_id: bytes) -> str:
        if not self._pids:
            self._pids = {bytes.fromhex(row["worker_id"]): row["pid"] for row in self._ask("workers", b"", b"") or []}
        pid = self._pids.get(worker_id)
        return f"pid {pid}" if pid else f"worker {worker_id.hex()}, which is gone"

    def _silent(self, worker_id: bytes, words: str) -> Reason:
        return Reason(Kind.UNKNOWN, f"{words}, which does not answer", f"silent:{worker_id.hex()}")


def _join(words: str, deeper: Reason, by: str = "; ") -> Reason:
    link = ", " if deeper.text.startswith("which") else by
    return Reason(deeper.kind, f"{words}{link}{deeper.text}", deeper.key)


def _amounts(shapes: Iterable[Mapping[str, int]], names: Sequence[str]) -> str:
    """What there is of some resources in several shapes together, under their plain names; empty if nothing."""
    found: dict[str, ResourceSet] = {}
    for name in names:
        amount = sum(shape.get(name, 0) for shape in shapes)
        if amount:
            found[bundles.plain_name(name)] = ResourceSet({bundles.plain_name(name): amount})
    return ", ".join(part.describe() for part in found.values())


def _words(resource: str) -> str:
    """``CPU of placement group ab...`` for what is named ``CPU_group_ab...``."""
    group = bundles.group_of({resource.replace(bundles.plain_name(resource), "bundle", 1): 0})
    return f"{bundles.plain_name(resource)} of placement group {group}" if group else resource


def _ref(object_id: bytes) -> str:
    return f"ObjectRef({object_id.hex()})"


_ENDS: Mapping[str, Callable[[bytes], Reason]] = {
    "ready": lambda object_id: Reason(Kind.OVER, f"{_ref(object_id)} is there"),
    "failed": lambda object_id: Reason(Kind.OVER, f"{_ref(object_id)} is there: it is an error, which get raises"),
    "unknown": lambda object_id: Reason(Kind.OVER, f"{_ref(object_id)} was freed by its owner: get raises"),
    "actor": lambda object_id: Reason(Kind.STUCK, f"{_ref(object_id)} stands for an actor and has no value", "handle"),
    "pending": lambda object_id: Reason(Kind.RUNNING, f"{_ref(object_id)} is about to be submitted, or to come"),
}


def reason_of(ask: Ask, wanted: Sequence[tuple[bytes, bytes]]) -> Reason:
    """Why the objects (id, owner) that somebody waits for are not there."""
    return Chain(ask).of_first(wanted)
