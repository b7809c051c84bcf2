"""A parameter server: the weights of a policy as slices in actors, which learners push gradients to and pull weights
from (Li et al. 2014). ``ParameterServer`` starts and ends it, ``ParameterClient`` goes to whoever pushes and pulls.

Shard i of S owns the numbers bounds[i] to bounds[i + 1] of the flat weights [P], their Adam and a version, see
``parameter_shard.py``; when pushes are applied is its mode. Messages, all of which may be sent twice:

    push(learner, step, slice of the gradient) -> Ack       after the push is in the log on disk (``push_log.py``)
    commit(step, scale)                        -> version   likewise; for steps of bulk that wait for their scale
    pull(newer_than, step)                     -> Pulled    version, and a reference to the slice if that is newer;
                                                            answers when ``step`` may start, or raises after ``wait_s``

Each version of a slice is put into the object store once, when somebody first asks for it, and fetched by those whose
own is older. Slices of different shards may differ in version where the mode is not bulk.

Who dies. A shard: the runtime starts it again and sends it what was not answered; it comes back from its log as it was,
every acknowledged push included, and knows by (learner, step) what it is sent twice. The slice that a client was about
to fetch goes with the process that owned it: the client pulls again. A learner: its successor goes on at the learner's
clock. The driver: all ends with its session, and what it had saved by ``arrays`` is what there is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core import api, errors
from ..config import ConfigError
from ..learning.learner import check_length
from ..threads import limit_matrix_threads
from .parameter_shard import Commit, Entry, Push, Shard, ShardSettings
from .push_log import PushLog

#: Entries after which a shard makes a snapshot, so that its log stays short: that of one of 10 MB is up to 640 MB.
SNAPSHOT_EVERY = 64
#: Seconds for which a pull waits for other learners. Their step may wait for a straggler's rollout, not for ever.
WAIT_S = 120.0
#: Deaths of shards, one after the other, while one version is fetched, after which the client gives up.
_MOST_LOSSES = 20


@dataclass(frozen=True)
class Ack:
    """What a shard says when a push is in its log."""

    version: int  #: of its weights after that
    squared_norm: float | None  #: of its part of the gradient, if the step is complete and waits for its scale


@dataclass(frozen=True)
class Pulled:
    """What a shard has for a client."""

    version: int
    weights: Any  #: reference to the slice, float32; None: the client has this version


@dataclass(frozen=True)
class ShardStatus:
    """How a shard is."""

    pid: int
    lives: int  #: processes that it has lived in
    version: int
    clocks: tuple[int, ...]  #: pushes that are in, by learner


class ShardActor:
    """A shard in a process of its own; a plain class, of which ``ParameterServer`` makes an actor. Its methods run in
    turn on one event loop: each leaves the table as it should be before another runs.

    Args:
      weights: Its slice [P], if there is nothing in the log.
      settings: Of the server.
      directory: Of its log.
      snapshot_every: Entries after which it makes a snapshot.
      driver_pid: The process that started it.

    Raises:
      FileNotFoundError, DamagedLogError: of the log.
    """

    def __init__(
        self, weights: np.ndarray, settings: ShardSettings, directory: Path, snapshot_every: int, *, driver_pid: int
    ) -> None:
        import asyncio

        if os.getpid() != driver_pid:  # inline, the actor lives in the driver
            limit_matrix_threads(1)
        self._shard = Shard(weights, settings)
        self._log = PushLog(directory)
        self._snapshot_every = snapshot_every
        self._published: tuple[int, Any] | None = None
        self._changed = asyncio.Condition()
        arrays, entries = self._log.recover()
        if arrays is not None:
            self._shard.load(arrays)
        for entry in entries:
            self._shard.take(entry)
        self._since_snapshot = len(entries)

    async def push(self, push: Push) -> Ack:
        """Take a gradient, for good.

        Raises:
          ValueError: it is none that can come now, see ``Shard.is_new``.
        """
        await self._take(push)
        return Ack(self._shard.version, self._shard.squared_norm)

    async def commit(self, commit: Commit) -> int:
        """Apply a complete step, or give it up; the version after that.

        Raises:
          ValueError: it is none that can be, see ``Shard.is_new``.
        """
        await self._take(commit)
        return self._shard.version

    async def pull(self, newer_than: int, step: int, wait_s: float) -> Pulled:
        """The weights, if they are newer, as soon as they will do for this step.

        Raises:
          TimeoutError: they do not after ``wait_s`` seconds; says whom they wait for.
        """
        import asyncio

        async with self._changed:
            try:
                may_start = self._changed.wait_for(lambda: self._shard.may_start(step))
                await asyncio.wait_for(may_start, wait_s)
            except (TimeoutError, asyncio.TimeoutError) as error:
                raise TimeoutError(f"waited {wait_s:g} s in vain: {self._shard.waits_for(step)}") from error
        version = self._shard.version
        if version == newer_than:
            return Pulled(version, None)
        if self._published is None or self._published[0] != version:
            self._published = version, api.put(self._shard.weights)
        return Pulled(*self._published)

    async def arrays(self) -> dict[str, np.ndarray]:
        """A copy of its state, see ``Shard.arrays``.

        Raises:
          RuntimeError: pushes are pending.
        """
        return self._shard.arrays()

    async def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from a state, see ``Shard.load``; it is in the log then."""
        self._shard.load(arrays)
        self._snapshot()
        self._published = None  # versions may come again with other numbers
        async with self._changed:
            self._changed.notify_all()

    async def status(self) -> ShardStatus:
        """How it is."""
        return ShardStatus(os.getpid(), self._log.lives, self._shard.version, tuple(self._shard.clocks))

    async def _take(self, entry: Entry) -> None:
        if not self._shard.is_new(entry):
            return
        self._log.append(entry)
        self._shard.take(entry)
        self._since_snapshot += 1
        if self._since_snapshot >= self._snapshot_every and not self._shard.has_pending:
            self._snapshot()
        async with self._changed:
            self._changed.notify_all()

    def _snapshot(self) -> None:
        self._log.snapshot(self._shard.arrays())
        self._since_snapshot = 0


class ParameterClient:
    """What a learner has of a parameter server. Travels to actors; not for two threads at once.

    Args:
      shards: Handles of the actors.
      bounds: [S + 1] where the slices begin, and the number of weights P.

    Attributes:
      versions: [S] of the weights that were pulled, by shard; -1: none were.
      weights: [P] float32 as pulled last. The next ``pull`` writes into it.
    """

    def __init__(self, shards: Sequence[Any], bounds: Sequence[int]) -> None:
        self._shards = list(shards)
        self._bounds = list(bounds)
        self.versions = [-1] * len(self._shards)
        self.weights = np.zeros(self._bounds[-1], np.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        return ParameterClient, (self._shards, self._bounds)  # weights are pulled where they are needed

    def push(self, learner: int, step: int, gradient: np.ndarray, *, rows: int, learning_rate: float) -> list[Ack]:
        """Push a gradient [P] to all shards; returns when all have it for good.

        Args:
          learner: Who.
          step: How many it has pushed before.
          gradient: Mean over the rows, finite.
          rows: Of its minibatch, at least 1.
          learning_rate: Of Adam, for this step.

        Raises:
          ValueError: the push is none that can come now, or the gradient not of this policy.
          ActorDiedError: a shard cannot be brought back.
        """
        check_length("a gradient", gradient, self._bounds[-1])
        return api.get(
            [
                shard.push.remote(Push(learner, step, rows, learning_rate, part))
                for shard, part in zip(self._shards, self._parts(gradient), strict=True)
            ]
        )

    def commit(self, step: int, scale: float | None) -> None:
        """Have all shards apply a complete step of bulk, times ``scale``; None: give it up.

        Raises:
          ValueError: it is not complete, or not the next.
        """
        api.get([shard.commit.remote(Commit(step, scale)) for shard in self._shards])

    def pull(self, step: int = 0, *, wait_s: float = WAIT_S) -> bool:
        """Bring ``weights`` and ``versions`` up to date, as soon as step ``step`` may start; what has not changed since
        the last pull is not fetched.

        Returns:
          Whether anything was newer.

        Raises:
          TimeoutError: the step may not start after ``wait_s`` seconds.
          ActorDiedError: a shard cannot be brought back.
        """
        asked = [
            shard.pull.remote(version, step, wait_s) for shard, version in zip(self._shards, self.versions, strict=True)
        ]
        before = list(self.versions)
        for index, (part, answer) in enumerate(zip(self._parts(self.weights), asked, strict=True)):
            self._fetch(index, part, answer, step, wait_s)
        return before != self.versions

    def clock(self, learner: int) -> int:
        """How many steps of a learner are in, with all shards.

        Raises:
          ActorDiedError: a shard cannot be brought back.
        """
        statuses: list[ShardStatus] = api.get([shard.status.remote() for shard in self._shards])
        return min(status.clocks[learner] for status in statuses)

    def _fetch(self, index: int, part: np.ndarray, answer: Any, step: int, wait_s: float) -> None:
        for loss in range(_MOST_LOSSES):
            pulled: Pulled = api.get(answer)
            try:
                if pulled.weights is not None:
                    part[:] = api.get(pulled.weights)
            except errors.ObjectLostError:
                # The shard that owned them has died; there is another.
                if loss == _MOST_LOSSES - 1:
                    raise
                answer = self._shards[index].pull.remote(-1, step, wait_s)
                continue
            self.versions[index] = pulled.version
            return

    def _parts(self, flat: np.ndarray) -> list[np.ndarray]:
        return np.split(flat, self._bounds[1:-1])


class ParameterServer:
    """Starts the shards of a parameter server, saves and ends them. Lives in the driver.

    Args:
      weights: [P] float32, to begin with.
      settings: Of all shards.
      num_shards: S, at least 1 and at most P.
      directory: Where to keep the shards' logs; must be seen by all nodes of a cluster, and hold nothing of another
        server. None: a new one for temporary files, which goes with ``close``.
      snapshot_every: Entries after which a shard makes a snapshot.

    Raises:
      ConfigError: there are fewer weights than shards.
      FileExistsError: the directory has logs already.
    """

    def __init__(
        self,
        weights: np.ndarray,
        settings: ShardSettings,
        *,
        num_shards: int = 1,
        directory: Path | None = None,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        if not 1 <= num_shards <= len(weights):
            raise ConfigError(f"num_shards must be from 1 to {len(weights)}, the number of weights, not {num_shards}")
        self._is_temporary = directory is None
        self._directory = _temporary_directory() if directory is None else directory
        bounds = [index * len(weights) // num_shards for index in range(num_shards + 1)]
        # Retries are safe, for pushes are known by (learner, step), and restarts lose nothing that was acknowledged.
        made = api.remote(ShardActor).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        self._shards: list[Any] = []
        for index, part in enumerate(np.split(weights.astype(np.float32), bounds[1:-1])):
            folder = self._directory / f"shard.{index}"
            folder.mkdir(parents=True)
            self._shards.append(made.remote(part, settings, folder, snapshot_every, driver_pid=os.getpid()))
        self._bounds = bounds

    def client(self) -> ParameterClient:
        """A new client; it may be sent to actors."""
        return ParameterClient(self._shards, self._bounds)

    def arrays(self) -> dict[str, np.ndarray]:
        """The state of all shards as one of all weights, see ``Shard.arrays``; in mode bulk, between two steps.

        Raises:
          RuntimeError: pushes are pending, or (not in bulk) some have reached only part of the shards.
        """
        states = api.get([shard.arrays.remote() for shard in self._shards])
        for name in ("steps", "version", "clocks"):
            if any(not np.array_equal(state[name], states[0][name]) for state in states):
                found = [state[name].tolist() for state in states]
                raise RuntimeError(f"{name} of the shards differ: {found}; learners are pushing")
        flat = {
            name: np.concatenate([state[name] for state in states]) for name in ("weights", "exp_avg", "exp_avg_sq")
        }
        return {**states[0], **flat}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what ``arrays`` gave, whatever the number of shards then. Clients that have pulled weights of the
        same version keep those.

        Raises:
          ValueError: it is of another policy or another number of learners.
        """
        check_length("weights", arrays["weights"], self._bounds[-1])
        parts: dict[str, list[np.ndarray]] = {
            name: np.split(arrays[name], self._bounds[1:-1]) for name in ("weights", "exp_avg", "exp_avg_sq")
        }
        states = [
            {**arrays, **{name: mine[index] for name, mine in parts.items()}} for index in range(len(self._shards))
        ]
        api.get([shard.load.remote(state) for shard, state in zip(self._shards, states, strict=True)])

    def statuses(self) -> list[ShardStatus]:
        """How each shard is."""
        return api.get([shard.status.remote() for shard in self._shards])

    def close(self) -> None:
        """Kill the shards, and remove their logs if the directory is a temporary one. May be called twice."""
        while self._shards:
            api.kill(self._shards.pop())
        if self._is_temporary:
            shutil.rmtree(self._directory, ignore_errors=True)  # a dying shard may write in it


def _temporary_directory() -> Path:
    """A new folder for logs, with this process in it as its owner: as with the folders of sessions, one whose owner was
    killed is removed when the next session starts, and no other is.
    """
    directory = Path(tempfile.mkdtemp(prefix="shoal-parameters-"))
    (directory / "owners").write_text(str(os.getpid()))
    return directory
