"""Playing episodes with candidates: pairs of parameter vectors in, returns out. Runs in the workers; numpy only.

A block of pairs becomes a queue of episodes; as many as there are lanes are under way at once, each in an environment
of its own with a net of its own (``candidate_nets.py``), and a lane whose episode is over takes the next. So one
product serves all lanes, and the time beside the environments' is small.

What an episode is follows from (seed, generation, pair) and the candidate: both signs of a pair start from the same
seed, and nothing is carried from one episode to the next. So a report's bits depend neither on lanes nor on who makes
it. Besides pairs there are *centre episodes*: of the centre itself, without any noise, as an evaluation plays them.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...envs import registry
from ...envs.actions import ActionLayout
from ...envs.columns import Row
from ...envs.copies import EnvCopy
from ...envs.vector import USUAL_CHECKS, Checks, EnvFailure
from .. import streams
from ..config import ConfigError
from ..policies.normalization import ObservationNormalizer
from ..policies.policy_spec import PolicySpec
from .asks import Ask, Candidates
from .candidate_nets import CandidateNets
from .noise import Noise
from .observation_tally import ObservationTally
from .reports import RECORD, Report

#: Steps for which a lane's action noise is drawn at once.
_NOISE_STEPS = 64


@dataclass(frozen=True)
class Generation:
    """All that playing a generation needs; in the object store once, for all workers."""

    asked: Ask | Candidates
    num_pairs: int  #: to be tried; those beyond what was asked for are spare
    spec: PolicySpec
    normalizers: Mapping[str, ObservationNormalizer]  #: where observations are counted
    step_limit: int  #: steps after which an episode is cut; 0: none

    @property
    def number(self) -> int:
        """Of the generation."""
        return self.asked.generation


@dataclass(frozen=True)
class PlaySettings:
    """How episodes are played; the same for all workers of a run."""

    env_id: str  #: the environment's name
    seed: int  #: the run's
    block_size: int  #: pairs of a block: the unit of work
    lanes: int  #: L, episodes under way at once in a worker
    episodes: int = 1  #: of each candidate; its fitness is their mean
    action_noise: float = 0.0  #: deviation of the noise on real-valued actions, in the environment's units
    reward_shift: float = 0.0  #: what each step's reward is less by for the fitness
    counts_observations: bool = False  #: whether they are normalised, and reports hold their moments
    checks: Checks = USUAL_CHECKS


@dataclass
class Outcome:
    """What an episode came to."""

    fitness: float = 0.0
    score: float = 0.0
    length: int = 0
    sums: np.ndarray | None = field(default=None, repr=False)  #: of its observations


@dataclass
class _Episode:
    """One episode of a task."""

    row: int  #: of the records
    sign: int  #: 0 for +, 1 for -
    seed: int  #: of the reset
    flat: np.ndarray  #: [P] the candidate
    title: str  #: for messages
    noise: np.random.Generator | None = None  #: of its actions
    outcome: Outcome = field(default_factory=Outcome)


class CandidatePlayer:
    """A worker's environments and nets.

    Args:
      settings: How to play.
      spec: The policy's shape.
      noise: What pairs are made with.
      worker_index: For messages.

    Raises:
      ConfigError: the policy does not fit.
      EnvFailure: an environment cannot be made.
    """

    def __init__(self, settings: PlaySettings, spec: PolicySpec, noise: Noise, worker_index: int) -> None:
        self._settings, self._spec, self._noise = settings, spec, noise
        if settings.action_noise and not spec.actions.low:
            raise ConfigError(f"action_noise must be 0 where actions are choices, not {settings.action_noise}")
        lanes = settings.lanes
        self._nets = CandidateNets(spec, lanes)
        make = functools.partial(registry.make, settings.env_id)
        self._copies = [EnvCopy(make, lane, worker_index=worker_index) for lane in range(lanes)]
        writer = self._copies[0].writer
        self._layout = ActionLayout.of(self._copies[0].action_space)
        self._columns = writer.allocate(lanes)
        self._rows: list[Row] = writer.rows(self._columns)
        self._looks_at_each = settings.checks.bounds or any(spec_.kind != "box" for spec_ in writer.specs.values())
        self._reals = ~np.array(spec.actions.is_choice)
        self._drawn = np.zeros((lanes, _NOISE_STEPS, int(self._reals.sum())), np.float32)
        self._noise_now = np.zeros((lanes, int(self._reals.sum())), np.float32)
        self._parameters = np.zeros((lanes, spec.actions.distribution.num_parameters), np.float32)
        shapes = spec.observations.normalizable_shapes if settings.counts_observations else {}
        self._tally = ObservationTally(shapes, lanes) if shapes else None
        self._masks: np.ndarray | None = None
        self._seeds = streams.pair_seeds(settings.seed)
        self._centre_seeds = streams.centre_seeds(settings.seed)

    def play(self, generation: Generation, block: int) -> Report:
        """Play a block of pairs, with both signs.

        Args:
          generation: What to try.
          block: Number of the block; its pairs are ``block_size * block`` and on, as far as there are.

        Raises:
          EnvFailure: an environment raised, or gave what cannot be used; names the pair and the seed.
        """
        episodes = self._block(generation, block)
        self._run(generation, episodes)
        return self._report(generation, block, [episode.outcome for episode in episodes])

    def play_centre(self, generation: Generation, number: int) -> Report:
        """Play one centre episode; its record holds it with the sign +, and -1 - number for the pair.

        Raises:
          EnvFailure: as ``play``.
        """
        episode = self._centre(generation, number)
        self._run(generation, [episode])
        return self._report(generation, -1 - number, [episode.outcome])

    def titles(self, generation: Generation, task: int) -> list[str]:
        """What the episodes of a task are called, in their order: generation, pair, sign and seed."""
        return [episode.title for episode in self._episodes(generation, task)]

    def play_one(self, generation: Generation, task: int, place: int) -> Outcome:
        """Play one episode of a task by itself: for one in which somebody may be harmed.

        Raises:
          EnvFailure: as ``play``.
        """
        episode = self._episodes(generation, task)[place]
        self._run(generation, [episode])
        return episode.outcome

    def join(self, generation: Generation, task: int, outcomes: Sequence[Outcome]) -> Report:
        """The report of a task whose episodes have been played one by one, here or elsewhere: the same to the bit."""
        if self._tally is not None:
            self._tally.shift(generation.normalizers)
        return self._report(generation, task, outcomes)

    def close(self) -> None:
        """Free what the environments hold."""
        for copy in self._copies:
            copy.close()

    def _episodes(self, generation: Generation, task: int) -> list[_Episode]:
        """Of a task, see ``evolution_worker.py``."""
        return self._block(generation, task) if task >= 0 else [self._centre(generation, -1 - task)]

    def _block(self, generation: Generation, block: int) -> list[_Episode]:
        pairs = self._pairs(generation, block)
        candidates = generation.asked.pairs(self._noise, pairs)
        episodes: list[_Episode] = []
        for row, pair in enumerate(pairs.tolist()):
            for sign in (0, 1):
                for again in range(self._settings.episodes):
                    seed = self._seeds(pair * self._settings.episodes + again, generation.number)
                    title = self._title(generation, f"pair {pair}, sign {'+-'[sign]}", seed)
                    noise = None
                    if self._settings.action_noise:
                        key = (generation.number, pair, sign, again)
                        noise = streams.candidate_noise_stream(self._settings.seed, *key)
                    episodes.append(_Episode(row, sign, seed, candidates[row, sign], title, noise))
        return episodes

    def _centre(self, generation: Generation, number: int) -> _Episode:
        seed = self._centre_seeds(number, generation.number)
        return _Episode(0, 0, seed, generation.asked.centre, self._title(generation, "centre", seed))

    def _title(self, generation: Generation, who: str, seed: int) -> str:
        """All that an episode follows from."""
        return f"seed {self._settings.seed}, generation {generation.number}, {who}, episode seed {seed}"

    def _pairs(self, generation: Generation, block: int) -> np.ndarray:
        first = block * self._settings.block_size
        return np.arange(first, min(first + self._settings.block_size, generation.num_pairs))

    def _report(self, generation: Generation, task: int, outcomes: Sequence[Outcome]) -> Report:
        """Of all episodes of a task, in their order, whatever order they ended in."""
        is_centre, again = task < 0, self._settings.episodes
        pairs = np.array([task]) if is_centre else self._pairs(generation, task)
        records = np.zeros(len(pairs), RECORD)
        records["pair"] = pairs
        for place, outcome in enumerate(outcomes):
            row, sign = divmod(place // again, 2)
            share = 1 if is_centre else again
            records["fitness"][row, sign] += outcome.fitness / share
            records["score"][row, sign] += outcome.score / share
            records["length"][row, sign] += outcome.length
        if is_centre:
            records["fitness"][:, 1] = records["score"][:, 1] = np.nan
        moments = np.zeros((1, 0))
        if self._tally is not None:
            sums = np.add.reduce([outcome.sums for outcome in outcomes if outcome.sums is not None], axis=0)
            moments = self._tally.moments(sum(outcome.length for outcome in outcomes), sums)[None]
        return Report(generation.number, np.array([task], np.int32), records, moments)

    def _run(self, generation: Generation, episodes: Sequence[_Episode]) -> None:
        """Play all of these, as many at once as there are lanes."""
        if self._tally is not None:
            self._tally.shift(generation.normalizers)
        waiting = deque(episodes)
        playing: dict[int, _Episode] = {}
        for lane in range(min(len(self._copies), len(waiting))):
            playing[lane] = waiting.popleft()
            self._begin(lane, playing[lane])
        while playing:
            self._look(playing)
            actions = self._act(playing)
            for lane, episode in list(playing.items()):
                if self._step(lane, episode, actions[lane], generation.step_limit):
                    if self._tally is not None:
                        episode.outcome.sums = self._tally.taken(lane)
                    if waiting:
                        playing[lane] = waiting.popleft()
                        self._begin(lane, playing[lane])
                    else:
                        del playing[lane]

    def _begin(self, lane: int, episode: _Episode) -> None:
        copy = self._copies[lane]
        try:
            copy.reset(self._rows[lane], episode.seed)
            copy.check_outcome(0, self._rows[lane], 0.0, self._settings.checks)
            if copy.mask is not None:
                if self._masks is None:
                    self._masks = np.ones((len(self._copies), self._layout.num_choices), bool)
                copy.write_mask(self._layout, self._masks[lane], 0)
        except EnvFailure as error:
            raise _titled(error, episode) from error
        self._nets.load(lane, episode.flat)
        if self._tally is not None:
            self._tally.begin(lane)

    def _act(self, playing: Mapping[int, _Episode]) -> list[Any]:
        """What each lane does next, as its environment takes it."""
        observations = self._columns if self._tally is None else self._tally.add(self._columns)
        self._nets.inputs[...] = self._spec.observations.flat(observations)
        outputs = self._nets()
        self._parameters[:, : outputs.shape[1]] = outputs
        actions = self._spec.actions.distribution.mode(self._parameters, self._masks)
        if self._settings.action_noise:
            actions = actions.copy()
            actions[:, self._reals] += self._noise_of(playing)
        actions = self._layout.read(self._spec.actions.for_environment(actions), len(self._copies))
        return self._layout.unflatten_all(actions)

    def _step(self, lane: int, episode: _Episode, action: Any, step_limit: int) -> bool:
        """One step of a lane; whether its episode is over."""
        copy, outcome = self._copies[lane], episode.outcome
        try:
            reward, terminated, truncated = copy.step(action, self._rows[lane])
            outcome.length += 1
            if self._looks_at_each or not math.isfinite(reward):
                copy.check_outcome(outcome.length, self._rows[lane], reward, self._settings.checks)
            if self._masks is not None:
                copy.write_mask(self._layout, self._masks[lane], outcome.length)
        except EnvFailure as error:
            raise _titled(error, episode) from error
        outcome.fitness += reward - self._settings.reward_shift
        outcome.score += copy.score
        if (terminated or truncated) and not copy.goes_on:
            return True
        return outcome.length == step_limit

    def _look(self, playing: Mapping[int, _Episode]) -> None:
        """Refuse observations that no net can use, all lanes at once: 1 us instead of 1 us each."""
        if not self._settings.checks.finite or self._looks_at_each:
            return
        for column in self._columns.values():
            # A sum is not finite if a number is not; that one overflows costs a look and nothing else.
            if column.dtype.kind == "f" and not math.isfinite(np.add.reduce(column, axis=None)):
                for lane, episode in playing.items():
                    try:
                        steps = episode.outcome.length
                        self._copies[lane].check_outcome(steps, self._rows[lane], 0.0, self._settings.checks)
                    except EnvFailure as error:
                        raise _titled(error, episode) from error

    def _noise_of(self, playing: Mapping[int, _Episode]) -> np.ndarray:
        """[L, reals] of each episode's own stream, whose numbers are drawn many steps at a time; 0 of the centre's."""
        for lane, episode in playing.items():
            at = episode.outcome.length % _NOISE_STEPS
            if at == 0:
                self._drawn[lane] = 0.0
                if episode.noise is not None:
                    episode.noise.standard_normal(dtype=np.float32, out=self._drawn[lane])
                    self._drawn[lane] *= np.float32(self._settings.action_noise)
            self._noise_now[lane] = self._drawn[lane, at]
        return self._noise_now


def _titled(error: EnvFailure, episode: _Episode) -> EnvFailure:
    return type(error)(f"{episode.title}: {error}")
