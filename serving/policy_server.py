"""The actor that serves policies: one process, one event loop, any number of policies.

    server = remote(PolicyServer).options(max_restarts=-1).remote({"walker": weights})
    reply = get(server.compute_actions.remote(observations))           from any task, actor or driver
    server.swap.remote("walker", newer)                                between two batches

Requests of all ways in, handle calls and HTTP, meet in ``act``; the batches of each policy are a ``PolicyLine``'s.
Which version answers is in the ``PolicyTable``; what acts is a ``Model``. A version that does not fit, or whose numbers
are not finite, is refused before anybody sees it (``RefusedError``), and the old one serves on. All versions of a
policy take the same observations and give the same actions.

What the constructor is given is what a server that was killed begins with when it is started again: of a run directory
the newest checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..rllib import checkpoints, saved_state
from ..rllib.checkpoints import CheckpointError
from ..rllib.threads import limit_matrix_threads
from ..rllib.weights import Weights
from .errors import BadRequest, ServingError, Unready
from .http_server import HttpServer, HttpSettings
from .measures import ServingMetrics
from .model_thread import ModelThread
from .models import Model, PolicyModel, Rows
from .policies import PolicyTable
from .policy_line import PolicyLine
from .requests import ActReply, ActRequest, PolicyInfo, parse_name
from .serving_settings import ServingSettings
from .sessions import Sessions
from .spaces import ONLY, Space, columns_of

_log = logging.getLogger(__name__)

#: What a policy can be made of: what acts, its weights, or where a checkpoint or a run directory is.
Source = Model | Weights | str | Path
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
      settings: Bounds and goals.
      http: Serve over HTTP, too; see ``address``.
      is_alone: Nobody else works in this process: it is set up for serving.

    Raises:
      RefusedError: one of the policies cannot be served.
    """

    def __init__(
        self,
        policies: Mapping[str, Source] | None = None,
        *,
        followed: Sequence[str] = (),
        settings: ServingSettings | None = None,
        http: HttpSettings | None = None,
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
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._is_leaving = False
        sources = policies or {}
        for name, source in sources.items():
            self._take(name, *self._made(name, source, None))
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
        timeout_s: float | None = None,
    ) -> ActReply:
        """Actions for rows of observations; ``ActRequest`` says what the arguments are.

        Args:
          observations: Columns [N, *shape], or the array alone where there is only one.
          policy: "name" or "name:version"; None where only one policy is served.

        Raises:
          ServingError: see ``errors.py``.
        """
        request = ActRequest(
            observations=dict(observations) if isinstance(observations, Mapping) else {ONLY: observations},
            action_mask=action_mask,
            sessions=sessions,
            state=state,
            episode_start=episode_start,
            deterministic=deterministic,
            want_log_prob=want_log_prob,
            want_value=want_value,
            timeout_s=timeout_s,
        )
        try:
            return await self.act(self._only() if policy is None else policy, request)
        except ServingError as error:
            # How it came to be raised says nothing to the caller, and to write it out takes 0.3 ms of each refusal.
            raise error.with_traceback(None) from None

    async def act(self, policy: str, request: ActRequest) -> ActReply:
        """Answer a request; see ``interface.Policies``."""
        if self._is_leaving:
            raise Unready("the server is leaving")
        line, number = self._lines.get(policy), None
        if line is None:
            name, number = parse_name(policy)
            line = self._lines.get(name)
            if line is None:
                self._table.front(name)  # raises what is to be told
                raise AssertionError("every policy of the table has a line")
        return await line.act(request, number)

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
        made = await asyncio.to_thread(self._made, name, source, version)
        return self._take(name, *made, is_shadow=is_shadow)

    async def swap(self, name: str, weights: Weights, *, version: int | None = None) -> int:
        """Newer weights for a policy: the next batch is theirs. As ``load``, but here and now where nets are small.

        Raises:
          RefusedError: as ``load``.
        """
        return self._take(name, *self._made(name, weights, version))

    def share(self, name: str, shares: Mapping[int, float]) -> None:
        """Divide the requests for a policy: see ``PolicyTable.share``."""
        self._drop(name, self._table.share(name, shares))

    def promote(self, name: str, number: int) -> None:
        """Put a shadow in front: see ``PolicyTable.serve``."""
        self._drop(name, self._table.serve(name, number))

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

    def _only(self) -> str:
        names = self._table.names
        if len(names) > 1:
            raise BadRequest(f"there are several policies, {', '.join(names)}: say which", field="policy")
        if not names:
            raise Unready("no policy is served yet")
        return names[0]

    def _made(self, name: str, source: Source, version: int | None) -> tuple[Model, int | None, str]:
        """What acts, its number and where it came from; looked at before anybody asks it. In any thread.

        Raises:
          RefusedError, CheckpointError: it cannot be served.
        """
        told, number = "a model", version
        if isinstance(source, str | Path):
            told = str(source)
            try:
                place = checkpoint_at(Path(source))
                told = str(place)
                source = saved_state.weights_from(checkpoints.load(place))
            except CheckpointError as error:
                raise self._table.refuse(name, told, str(error)) from error
        elif isinstance(source, Weights):
            told = "weights"
        if isinstance(source, Weights):
            number = self._number_of(name, source) if version is None else version
            try:
                source = PolicyModel(source, spaces=self._spaces(name, source), seed=self._settings.seed)
            except ValueError as error:
                raise self._table.refuse(name, told, str(error)) from error
        if reason := self._unfit(name, source):
            raise self._table.refuse(name, told, reason)
        return source, number, told

    def _take(self, name: str, model: Model, number: int | None, source: str, *, is_shadow: bool = False) -> int:
        number, retired = self._table.add(
            name, number=number, source=source, loaded_at=time.time(), is_shadow=is_shadow
        )
        models = self._models.setdefault(name, {})
        models[number] = model
        if name not in self._lines:
            self._lines[name] = PolicyLine(name, self._table, models, self._sessions, self._settings, self._thread)
        self._drop(name, retired)
        return number

    def _drop(self, name: str, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            del self._models[name][number]

    def _spaces(self, name: str, weights: Weights) -> tuple[Space, Space] | None:
        """Those of the policy, which may say more than the shape of such weights does; None if they are others."""
        present = self._models[name][self._table.front(name)] if name in self._lines else None
        if not isinstance(present, PolicyModel):
            return None
        its, mine = present.spec, weights.spec
        fits = (its.observations, its.actions) == (mine.observations, mine.actions)
        return (present.observation_space, present.action_space) if fits else None

    def _number_of(self, name: str, weights: Weights) -> int | None:
        """The version of weights as the policy's, if it is newer than those before."""
        known = [each.number for each in self._table.versions(name)] if name in self._lines else []
        return weights.version if weights.version > max(known, default=-1) else None

    def _unfit(self, name: str, model: Model) -> str:
        """Why a model cannot be served under this name; "" if it can."""
        if name in self._lines:
            present = self._models[name][self._table.front(name)]
            for what in ("observation_space", "action_space", "state_size", "tells"):
                mine, its = getattr(model, what), getattr(present, what)
                if mine != its:
                    return f"its {what} is {mine}; the policy that is served has {its}"
        if isinstance(model, PolicyModel):
            try:
                answers = model.act(_trial(model))
            except Exception as error:  # noqa: BLE001 - told as a reason
                return f"it raises {type(error).__name__} on an observation of zeros: {error}"
            if answers.failed is not None or (answers.value is not None and not np.isfinite(answers.value).all()):
                return "it gives numbers that are not finite"
        return ""

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


def checkpoint_at(place: Path) -> Path:
    """A checkpoint itself, or the newest one of a run directory.

    Raises:
      CheckpointError: there is none.
    """
    return place if (place / checkpoints.MANIFEST).is_file() else checkpoints.latest(place)


def _trial(model: Model) -> Rows:
    """An observation of zeros, or of first choices."""
    columns = {
        name: np.broadcast_to(
            np.reshape(leaf.start, leaf.shape if len(leaf.start) > 1 else ()) if leaf.start else 0, (1, *leaf.shape)
        ).astype(leaf.dtype)
        for name, leaf in columns_of(model.observation_space).items()
    }
    states = np.zeros((1, model.state_size), np.float32)
    return Rows(columns, states, None, deterministic=True, wants_log_prob=True, wants_value=True)
