"""The actor that serves policies: one process, one event loop, any number of policies.

    server = remote(PolicyServer).options(max_restarts=-1).remote({"walker": weights})
    reply = get(server.compute_actions.remote(observations))           from any task, actor or driver
    server.swap.remote("walker", newer)                                between two batches

Requests of all ways in, handle calls and HTTP, meet in ``act``; the batches of each policy are a ``PolicyLine``'s.
Which version answers is in the ``PolicyTable``; what acts is a ``Model``. A version that does not fit, or whose numbers
are not finite, is refused before anybody sees it (``RefusedError``), and the old one serves on. All versions of a
policy take the same observations and give the same actions.

What the constructor is given is what a server that was killed begins with when it is started again: of a run directory
the newest checkpoint, and what its journal has that is newer (``journal.py``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..rllib.policies.weights import Weights
from ..rllib.rollouts.external import Taken
from ..rllib.threads import limit_matrix_threads
from ..rllib.training import checkpoints
from ..rllib.training.checkpoints import CheckpointError
from .episode_desk import EpisodeDesk, EpisodeSettings
from .errors import BadRequest, ServingError, Unready
from .http_server import HttpServer, HttpSettings
from .intake import Intake, Source
from .journal import Journal
from .measures import ServingMetrics
from .model_thread import ModelThread
from .models import Model, PolicyModel
from .policies import PolicyTable, RefusedError
from .policy_line import PolicyLine
from .requests import ActReply, ActRequest, PolicyInfo, parse_name
from .serving_settings import ServingSettings
from .sessions import Sessions
from .spaces import ONLY, Space

_log = logging.getLogger(__name__)

#: How long a thread of the server may keep Python to itself. Python's own 5 ms, several times a batch, would be most of
#: the time of a model that acts while a thousand requests a second are refused.
_SWITCH_S = 0.0005
#: Pause between two looks at a run directory.
_FOLLOW_S = 1.0


class PolicyServer:
    """Policies that answer; a plain class, of which ``remote`` makes an actor.

    Args:
      policies: Name -> what it is made of, to begin with.
      followed: Names of those whose run directory is followed, see ``follow``.
      spaces: Name -> observation and action space of those whose weights do not tell all of them, see ``Intake``.
      settings: Bounds and goals.
      http: Serve over HTTP, too; see ``address``.
      journal: Folder for the newest weights of each policy. A server that finds newer ones there than it was given goes
        on with those: what it had when it was killed.
      episodes: A learner takes the episodes of simulators with one of the policies, see ``take_steps``.
      is_alone: Nobody else works in this process: it is set up for serving.

    Raises:
      RefusedError: one of the policies cannot be served.
      ConfigError: the settings' device is not there.
    """

    def __init__(
        self,
        policies: Mapping[str, Source] | None = None,
        *,
        followed: Sequence[str] = (),
        spaces: Mapping[str, tuple[Space, Space]] | None = None,
        settings: ServingSettings | None = None,
        http: HttpSettings | None = None,
        journal: Path | None = None,
        episodes: EpisodeSettings | None = None,
        is_alone: bool = True,
    ) -> None:
        if is_alone:
            limit_matrix_threads(1)
            sys.setswitchinterval(_SWITCH_S)
        self._settings = settings or ServingSettings()
        self._table = PolicyTable()
        self._sessions = Sessions(max_sessions=self._settings.max_sessions, idle_s=self._settings.session_idle_s)
        self._thread = ModelThread(asyncio.get_running_loop())
        self._lines: dict[str, PolicyLine] = {}
        self._models: dict[str, dict[int, Model]] = {}
        self._intake = Intake(self._table, self._models, self._settings, spaces or {})
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._is_leaving = False
        #: For simulators, if a learner takes what they do.
        self.episodes: EpisodeDesk | None = None
        self._journal = None if journal is None else Journal(journal)
        self._unwritten: dict[str, Weights] = {}
        self._writing: asyncio.Task[None] | None = None
        sources = policies or {}
        for name, source in sources.items():
            self._take(name, *self._intake.made(name, source, None))
        if self._journal is not None:
            self._go_on_with(self._journal)
        if episodes is not None:
            line = self._lines[episodes.policy]
            self.episodes = EpisodeDesk(episodes, line.info(), partial(line.act, number=None))
            self.episodes.publish(self._table.front(episodes.policy))
        for name in followed:
            self.follow(name, str(sources[name]))
        self._http = None if http is None else HttpServer(self, http)
        #: Under way from here on: a constructor cannot wait.
        self._listening = None if self._http is None else asyncio.ensure_future(self._http.start())

    # ---- requests

    async def compute_actions(
        self,
        observations: np.ndarray | Mapping[str, np.ndarray],
        *,
        policy: str | None = None,
        action_mask: np.ndarray | None = None,
        sessions: tuple[str, ...] | None = None,
        state: np.ndarray | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        want_log_prob: bool = False,
        want_value: bool = False,
        want_drawn: bool = False,
        timeout_s: float | None = None,
    ) -> ActReply:
        """Actions for rows of observations; ``ActRequest`` says what the arguments are.

        Args:
          observations: Columns [N, *shape], or the array alone where there is only one.
          policy: "name" or "name:version"; None where only one policy is served.

        Raises:
          ServingError: see ``errors.py``.
        """
        # Whether something is an array is asked first: Python takes long to find out that it is no Mapping.
        if not isinstance(observations, np.ndarray) and isinstance(observations, Mapping):
            columns = dict(observations)
        else:
            columns = {ONLY: observations}
        request = ActRequest(
            observations=columns,
            action_mask=action_mask,
            sessions=sessions,
            state=state,
            episode_start=episode_start,
            deterministic=deterministic,
            want_log_prob=want_log_prob,
            want_value=want_value,
            want_drawn=want_drawn,
            timeout_s=timeout_s,
        )
        try:
            line, number = self._line(self._only() if policy is None else policy)
            return await line.act(request, number)
        except ServingError as error:
            # How it came to be raised says nothing to the caller, and to write it out takes 0.3 ms of each refusal.
            raise error.with_traceback(None) from None

    async def act(self, policy: str, request: ActRequest) -> ActReply:
        """Answer a request; see ``interface.Policies``."""
        line, number = self._line(policy)
        return await line.act(request, number)

    async def take_steps(self, num_steps: int, version: int, wait_s: float) -> Taken | None:
        """For the learner: see ``EpisodeDesk.take``."""
        assert self.episodes is not None, "this server was told of no learner"
        return await self.episodes.take(num_steps, version, wait_s)

    # ---- what is told

    def infos(self) -> list[PolicyInfo]:
        return [self._lines[name].info() for name in self._table.names]

    def ready(self) -> bool:
        return bool(self._lines) and not self._is_leaving

    def metrics(self) -> ServingMetrics:
        return ServingMetrics(
            policies=tuple(metrics for name in self._table.names for metrics in self._lines[name].metrics()),
            sessions=len(self._sessions),
            refused_weights=self._table.num_refused,
        )

    async def address(self) -> int | None:
        """The port at which HTTP is served, when it is; None where it is not.

        Raises:
          OSError: the address cannot be had.
        """
        if self._http is None or self._listening is None:
            return None
        await asyncio.shield(self._listening)
        return self._http.port

    def refusals(self) -> list[str]:
        """The last versions that were not taken, and why, oldest first."""
        return [f"{each.policy}: {each.source}: {each.reason}" for each in self._table.refusals]

    # ---- what changes

    async def load(self, name: str, source: Source, *, version: int | None = None, is_shadow: bool = False) -> int:
        """Serve another version of a policy, or a new policy: in front, or as a shadow.

        Args:
          name: Of the policy.
          source: What acts, weights, or where a checkpoint or run directory is.
          version: Its number, greater than those before; None: that of the weights, or the next.
          is_shadow: It sees requests and answers none.

        Returns:
          Its number.

        Raises:
          RefusedError, CheckpointError: it cannot be served; all is as before.
        """
        made = await asyncio.to_thread(self._intake.made, name, source, version)
        return self._take(name, *made, is_shadow=is_shadow)

    async def swap(self, name: str, weights: Weights, *, version: int | None = None) -> int:
        """Newer weights for a policy: the next batch is theirs. As ``load``, but here and now where nets are small.

        Raises:
          RefusedError: as ``load``.
        """
        return self._take(name, *self._intake.made(name, weights, version))

    async def renew(self, name: str, weights: Weights) -> int:
        """As ``swap``, but of weights that keep their version; it may be sent again: what is no newer is nothing new.

        Raises:
          RefusedError: as ``load``.
        """
        front = self._table.front(name)
        return front if weights.version <= front else await self.swap(name, weights, version=weights.version)

    def share(self, name: str, shares: Mapping[int, float]) -> None:
        """Divide the requests for a policy: see ``PolicyTable.share``."""
        self._drop(name, self._table.share(name, shares))

    def promote(self, name: str, number: int) -> None:
        """Put a shadow in front: see ``PolicyTable.serve``."""
        self._drop(name, self._table.serve(name, number))
        self._write_down(name)

    def shadow(self, name: str, number: int) -> None:
        """Let a version look on: see ``PolicyTable.shadow``."""
        self._table.shadow(name, number)

    def retire(self, name: str, number: int) -> None:
        """Let a version go: see ``PolicyTable.retire``."""
        self._table.retire(name, number)
        self._drop(name, (number,))

    def follow(self, name: str, run_dir: str | Path) -> None:
        """Serve the newest checkpoint of a run from now on, looking once a second. One that is damaged or does not fit
        is refused, and the next one waited for.
        """
        before = self._followers.pop(name, None)
        if before is not None:
            before.cancel()
        self._followers[name] = asyncio.get_running_loop().create_task(self._following(name, Path(run_dir)))

    async def drain(self, timeout_s: float = 10.0) -> bool:
        """Take no more requests and wait for those that are here; /readyz says no.

        Returns:
          Whether all were answered in time.
        """
        self._is_leaving = True
        if self.episodes is not None:
            self.episodes.close()
        for follower in self._followers.values():
            follower.cancel()
        waiting: set[asyncio.Future[None]] = set()
        if self._lines:
            _, waiting = await asyncio.wait(
                [asyncio.ensure_future(line.emptied()) for line in self._lines.values()], timeout=timeout_s
            )
        if self._http is not None:
            await self._http.drain()
        return not waiting

    async def stay(self) -> None:
        """Returns never: who waits for it learns when the server is dead for good."""
        await asyncio.get_running_loop().create_future()

    # ---- inside

    def _line(self, policy: str) -> tuple[PolicyLine, int | None]:
        """Where requests for a policy go, and the version that they want."""
        if self._is_leaving:
            raise Unready("the server is leaving")
        line = self._lines.get(policy)
        if line is not None:
            return line, None
        name, number = parse_name(policy)
        line = self._lines.get(name)
        if line is None:
            self._table.front(name)  # raises what is to be told
            raise AssertionError("every policy of the table has a line")
        return line, number

    def _only(self) -> str:
        if len(self._lines) == 1:
            [name] = self._lines
            return name
        if self._lines:
            names = ", ".join(self._table.names)
            raise BadRequest(f"there are several policies, {names}: say which", field="policy")
        raise Unready("no policy is served yet")

    def _take(self, name: str, model: Model, number: int | None, source: str, *, is_shadow: bool = False) -> int:
        number, retired = self._table.add(
            name, number=number, source=source, loaded_at=time.time(), is_shadow=is_shadow
        )
        models = self._models.setdefault(name, {})
        models[number] = model
        if name not in self._lines:
            self._lines[name] = PolicyLine(name, self._table, models, self._sessions, self._settings, self._thread)
        self._drop(name, retired)
        if not is_shadow:
            self._write_down(name)
            if self.episodes is not None and name == self.episodes.policy:
                self.episodes.publish(number)
        return number

    def _go_on_with(self, journal: Journal) -> None:
        for name, kept in journal.read():
            front = self._table.front(name) if name in self._lines else -1
            if isinstance(kept, CheckpointError):
                _log.warning("what was served as %r is lost: %s", name, kept)
            elif kept.version > front:
                try:
                    self._take(name, *self._intake.made(name, kept, None))
                except RefusedError as error:
                    _log.warning("%s", error)

    def _write_down(self, name: str) -> None:
        """Have the weights in front written into the journal, if there is one; of many in a row, the last."""
        number = self._table.front(name)
        model = self._models[name][number]
        if self._journal is None or not isinstance(model, PolicyModel):
            return
        self._unwritten[name] = dataclasses.replace(model.weights, version=number)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write(self._journal))

    async def _write(self, journal: Journal) -> None:
        while self._unwritten:
            name, weights = self._unwritten.popitem()
            try:
                await asyncio.to_thread(journal.write, name, weights)
            except OSError as error:  # serving goes on; what is lost is told
                _log.warning("version %d of %r is not written down: %s", weights.version, name, error)

    def _drop(self, name: str, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            del self._models[name][number]

    async def _following(self, name: str, run_dir: Path) -> None:
        seen = Path(self._table.versions(name)[0].source) if name in self._lines else None
        while True:
            try:
                newest = await asyncio.to_thread(checkpoints.latest, run_dir)
                if newest != seen:
                    seen = newest
                    await self.load(name, newest)
            except (CheckpointError, ValueError) as error:  # told by the refusals, too
                _log.warning("following %s: %s", run_dir, error)
            await asyncio.sleep(_FOLLOW_S)
