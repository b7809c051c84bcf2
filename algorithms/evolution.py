"""What every evolution strategy is made of, besides its mathematics: workers, batches, exact sums, checkpoints.

``es.py`` and its like are a config and a ``Strategy`` (``strategies/``); here is one generation, whichever it is:

    ask      centre, spread and number of pairs -> the object store, once
    play     blocks of pairs -> workers -> reports of some dozens of bytes a pair   (``crew.py``, ``pair_book.py``)
    weigh    returns -> weights
    sum      weights -> sums of noise, here or in a tree of aggregators             (``exact_sums.py``)
    tell     sums -> the next centre

The same seed gives the same parameters after every generation, bit for bit, whatever the number of workers, the tree,
and whoever dies: pairs are numbered, episodes follow from their numbers, sums are of whole numbers, and what is merged
in floating point is merged by number. (Not where stragglers are not waited for: who comes first is nobody's choice.)

So what fails can be done again: an ``EnvFailure`` names the run's seed, generation, pair, sign and episode seed, and
the same flags come to it again, from the start or from a checkpoint; in one process, where a ``breakpoint()`` works, by

    shoal train ...the same flags... --engine inline --num-workers 1

It is a ``Trainable``, as ``Algorithm`` is, with which it shares the parts and no class: there is no learner here, and
there are no rollouts that go on where others stopped.
"""

from __future__ import annotations

import abc
import time
from typing import ClassVar, Generic, TypeVar

import numpy as np

from ..core import api
from ..envs import opening
from ..envs.registry import UnknownEnvironment
from ..envs.vector import EnvFailure
from ..rllib import streams
from ..rllib.capacity import check_numbers_fit
from ..rllib.config import AlgorithmConfig, ConfigError, to_dict
from ..rllib.evolution.candidate_nets import check_dense
from ..rllib.evolution.candidate_player import Generation, PlaySettings
from ..rllib.evolution.crew import Crew, CrewSettings
from ..rllib.evolution.evolution_worker import NoiseSource
from ..rllib.evolution.exact_sums import Share, as_floats
from ..rllib.evolution.noise import noise_table
from ..rllib.evolution.observation_tally import as_moments
from ..rllib.evolution.pair_book import PairBatch, PairBook
from ..rllib.evolution.parameter_vector import ParameterVector
from ..rllib.evolution.tree import Branch, grow
from ..rllib.learning.learner import DivergedError
from ..rllib.policies.initial_weights import initial_weights
from ..rllib.policies.normalization import ObservationMoments
from ..rllib.policies.policy import Policy
from ..rllib.policies.policy_spec import told_apart
from ..rllib.policies.weights import Weights
from ..rllib.rollouts.evaluation import Evaluation
from ..rllib.training import saved_state
from ..rllib.training.checkpoints import Checkpoint, CheckpointError
from ..rllib.training.evaluator import Evaluated, Evaluator
from ..rllib.training.metrics import RecentEpisodes
from .evolution_settings import EvolutionConfig
from .strategies.strategy import Strategy, candidate_name

C = TypeVar("C", bound=EvolutionConfig)

#: Environments of a worker, at most: more save little time.
_MOST_LANES = 16
#: Name of a schedule: the steps after which episodes are cut.
_STEP_LIMIT = "step_limit"


class Evolution(abc.ABC, Generic[C]):
    """A strategy and the workers that try its candidates.

    Args:
      config: Settings. ``shoal.init`` has been called.

    Raises:
      ConfigError: no such environment, one with spaces that are not supported, or settings that the strategy refuses.
      EnvFailure: the environment's constructor raised.
    """

    name: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]

    def __init__(self, config: C) -> None:
        try:
            opening.check(config.env, "serial")
        except UnknownEnvironment as error:
            raise ConfigError(f"env: {error}") from error
        self.config, self.settings = config, config.evolution_settings()
        self.steps = 0  #: environment steps done so far
        self.iteration = 0  #: generations done so far
        self.episodes = 0  #: training episodes that ended so far
        self.incidents: list[str] = []
        self._recent = RecentEpisodes()
        self._schedules: dict[str, float] = {_STEP_LIMIT: self.settings.step_limit}
        self._has_reached = False
        self._evaluator = Evaluator(env_id=config.env, seed=config.seed, checks=config.checks)
        self._crew = self._make_crew()
        try:
            self.spec = self._crew.policy_spec(self.settings.network_settings())
            check_dense(self.spec)
            self.spec.check_size()
            self._vector = ParameterVector(self.spec)
            self._moments = (
                ObservationMoments(self.spec.observations.normalizable_shapes)
                if self.settings.normalize_observations
                else None
            )
            try:
                self.strategy = self.build_strategy(self._start())
                self._noise = self._noise_source.open(self._vector.size)
            except (ValueError, ModuleNotFoundError) as error:
                raise ConfigError(str(error)) from error
            self._book = PairBook(self.strategy.ask().num_pairs, self.settings.stragglers)
            self._publish()
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def build_strategy(self, centre: np.ndarray) -> Strategy:
        """The strategy, that starts from this centre [P] float32.

        Raises:
          ValueError: a setting is out of range.
        """

    def step(self) -> dict[str, float]:
        """One generation.

        Returns:
          What happened, ``report()`` among it.

        Raises:
          EnvFailure: an environment raised.
          WorkerLostError: a worker keeps dying.
          DivergedError: the parameters are not finite.
        """
        started = time.monotonic()
        batch, centre = self._play()
        self._count(batch, centre)
        played = time.monotonic()
        # The policy that has reached its goal is the one to keep.
        metrics = {} if self._has_reached else self._learn(batch)
        self.iteration += 1
        self._publish()
        fitness = batch.records["fitness"]
        return {
            **self.report(),
            **metrics,
            **({"centre/return_mean": float(centre["score"][:, 0].mean())} if len(centre) else {}),
            "population/fitness_mean": float(fitness.mean()),
            "population/fitness_std": float(fitness.std()),
            "population/fitness_max": float(fitness.max()),
            "population/step_limit": self._schedules[_STEP_LIMIT],
            "population/stragglers_used": self._book.used_late,
            "population/pairs_discarded": self._book.discarded,
            "time/collect_s": played - started,
            "time/learn_s": time.monotonic() - played,
        }

    def report(self) -> dict[str, float]:
        """Progress: steps, iteration, episodes; mean return and length of the last episodes, NaN before the first."""
        return {
            "steps": self.steps,
            "iteration": self.iteration,
            "episodes": self.episodes,
            **self._recent.means(),
            "workers_replaced": self._crew.replaced,
        }

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, or the return is reached that was to be."""
        return self._has_reached or self.steps >= self.config.total_steps

    @property
    def last_death(self) -> str:
        """Why the worker or aggregator that was replaced last had died."""
        return self._crew.last_death

    def evaluate(self, episodes: int) -> Evaluation:
        """Play episodes with the centre and its likeliest actions; does not count as training.

        Args:
          episodes: How many; split over the workers. The same ones each time, whatever the number of workers.
        """
        for report in self._crew.reports():  # of stragglers
            self.steps += int(report.records["length"].sum())
            self._book.add(report.pairs())
        return Evaluation.of(self._crew.evaluate(self._weights_ref, range(episodes)))

    def begin_evaluation(self, episodes: int, *, films: bool = False) -> None:
        """Have the centre play the episodes that ``evaluate`` plays, in an actor of its own while training goes on.

        Raises:
          EnvFailure, WorkerLostError: an earlier one failed.
        """
        self._evaluator.submit(self.steps, self._weights_ref, episodes, films=films)

    def evaluations(self, *, wait: bool = False) -> list[Evaluated]:
        """What ``begin_evaluation`` began and has finished since the last call, oldest first.

        Raises:
          EnvFailure, WorkerLostError: one failed.
        """
        return self._evaluator.finished(wait=wait)

    def weights(self) -> Weights:
        """The centre as a policy, with what observations are normalised by."""
        normalizers = {} if self._moments is None else self._moments.normalizers()
        return Weights(self.iteration, self.spec, self._vector.arrays(self.strategy.centre), normalizers)

    def checkpoint(self) -> Checkpoint:
        """All that going on needs, between two generations: the run that goes on is the one that was not interrupted,
        bit for bit. Stragglers that are under way are no part of it.
        """
        return Checkpoint(
            algorithm=self.name,
            config=to_dict(self.config),
            counters={name: int(getattr(self, attribute)) for name, attribute in _COUNTERS.items()},
            tensors={
                "policy": self._vector.arrays(self.strategy.centre),
                "strategy": self.strategy.state(),
                "episodes": self._recent.arrays(),
                **({} if self._moments is None else {saved_state.group_of("observations"): self._moments.arrays()}),
            },
            extra={"policy_spec": self.spec.to_dict(), "schedules": dict(self._schedules)},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same algorithm, environment and network.

        Raises:
          CheckpointError: it does not fit, or something is missing from it.
        """
        if checkpoint.algorithm != self.name:
            raise CheckpointError(f"a checkpoint of {checkpoint.algorithm!r} cannot go on as {self.name!r}")
        weights = saved_state.weights_from(checkpoint)
        if weights.spec != self.spec:
            raise CheckpointError(f"the checkpoint's policy {told_apart(weights.spec, self.spec)}")
        group = saved_state.group_of("observations")
        if (group in checkpoint.tensors) != (self._moments is not None):
            saved, ours = ("observations", "nothing") if self._moments is None else ("nothing", "observations")
            raise CheckpointError(f"the checkpoint normalises {saved}, this run {ours}")
        counters = {name: checkpoint.counter(name) for name in _COUNTERS}
        recent = checkpoint.group("episodes", RecentEpisodes.SHAPES)
        schedules = saved_state.schedules_from(checkpoint, self._schedules)
        statistics = None if self._moments is None else checkpoint.group(group, saved_state.shapes_of(self._moments))
        try:
            self.strategy.restore(checkpoint.tensors.get("strategy", {}))
        except ValueError as error:
            raise CheckpointError(f"the checkpoint's tensors 'strategy': {error}") from error

        if self._moments is not None and statistics is not None:
            self._moments.load(statistics)
        self.steps, self.iteration, self.episodes = (counters[name] for name in ("steps", "iteration", "episodes"))
        self._has_reached = bool(counters["reached"])
        self._recent.load(recent)
        self._schedules = schedules
        self._publish()

    @staticmethod
    def policy_from(checkpoint: Checkpoint) -> Policy:
        """The policy of a checkpoint, ready to act. Needs neither workers nor torch.

        Raises:
          CheckpointError: the checkpoint holds no policy, or not all of one.
        """
        return Policy(saved_state.weights_from(checkpoint))

    def close(self) -> None:
        """Kill the workers. May be called twice."""
        self._evaluator.close()
        self._crew.close()

    def _play(self) -> tuple[PairBatch, np.ndarray]:
        """Have a generation played.

        Returns:
          Its pairs; and the records of the centre's episodes, by number.
        """
        asked, settings = self.strategy.ask(), self.settings
        num_pairs = asked.num_pairs + settings.spare_pairs
        normalizers = {} if self._moments is None else self._moments.normalizers()
        generation = Generation(asked, num_pairs, self.spec, normalizers, int(self._schedules[_STEP_LIMIT]))
        blocks = list(range(-(-num_pairs // settings.block_size)))
        of_centre = [-1 - number for number in range(settings.centre_episodes)]
        # What is short fills up the end; but where nobody waits for the end, the centre's episodes must not be in it.
        tasks = [*blocks, *of_centre] if settings.stragglers == "wait" else [*of_centre, *blocks]
        self._book.begin(generation.number)
        self._crew.begin(api.put(generation), tasks)
        centre: list[np.ndarray] = []
        for report in self._crew.reports():
            self.steps += int(report.records["length"].sum())
            centre.append(report.centre().records)
            self._book.add(report.pairs())
            if settings.stragglers != "wait" and self._book.is_full and sum(map(len, centre)) == len(of_centre):
                break
        played = np.concatenate(centre)
        return self._book.take(), played[np.argsort(-played["pair"])]

    def _count(self, batch: PairBatch, centre: np.ndarray) -> None:
        """Note what the episodes earned, and let the step limit follow their lengths."""
        again, lengths = self.settings.episodes_per_candidate, batch.records["length"]
        self.episodes += again * lengths.size + len(centre)
        self._recent.extend(batch.records["score"].ravel().tolist(), (lengths / again).ravel().tolist())
        limit = int(self._schedules[_STEP_LIMIT])
        if limit and (lengths == again * limit).mean() >= self.settings.step_limit_share:
            self._schedules[_STEP_LIMIT] = int(limit * self.settings.step_limit_growth) + 1
        goal = self.settings.stop_at_return
        self._has_reached = goal is not None and float(centre["score"][:, 0].mean()) >= goal

    def _learn(self, batch: PairBatch) -> dict[str, float]:
        """Weigh, sum, tell; gives the strategy's figures."""
        weighing = self.strategy.weigh(_fitness(batch, self.config.seed), np.ones(len(batch.records), bool))
        share = Share.of(batch.generations, batch.records["pair"], weighing.weights)
        sums = self._crew.sums(self._noise, share) if share.weights else {}
        metrics = self.strategy.tell(as_floats(sums, share), weighing)
        if not np.isfinite(self.strategy.centre).all():
            raise DivergedError("the search has diverged: parameters are not finite; a smaller learning_rate may help")
        if self._moments is not None:
            shapes = self.spec.observations.normalizable_shapes
            for told in batch.moments:
                self._moments.merge(as_moments(told, shapes))
        return {f"learner/{name}": value for name, value in metrics.items()}

    def _publish(self) -> None:
        """Put the centre into the object store, for evaluations."""
        self._weights_ref = api.put(self.weights())

    def _start(self) -> np.ndarray:
        """Where the search begins, [P]: a linear policy at 0, as in Mania et al. 2018; others as PPO's."""
        if not self.settings.hidden_sizes:
            return np.zeros(self._vector.size, np.float32)
        return self._vector.flat(initial_weights(self.spec, streams.weight_seed(self.config.seed)))

    def _make_crew(self) -> Crew:
        config, settings = self.config, self.settings
        if settings.noise == "table":
            check_numbers_fit("noise_table_length", settings.noise_table_length)
            self._noise_source = NoiseSource(
                config.seed, api.put(noise_table(config.seed, settings.noise_table_length))
            )
        else:
            self._noise_source = NoiseSource(config.seed)
        play = PlaySettings(
            env_id=config.env,
            seed=config.seed,
            block_size=settings.block_size,
            lanes=min(2 * settings.block_size * settings.episodes_per_candidate, _MOST_LANES),
            episodes=settings.episodes_per_candidate,
            action_noise=settings.action_noise,
            reward_shift=settings.reward_shift,
            counts_observations=settings.normalize_observations,
            checks=config.checks,
        )
        workers = range(config.num_workers)
        branches = grow(config.num_workers, settings.fan_out) if settings.fan_out else ()
        return Crew(CrewSettings(play, self._noise_source, settings.max_in_flight), Branch(workers, branches))


def _fitness(batch: PairBatch, seed: int) -> np.ndarray:
    """What is learned from, [N, 2] float64.

    Raises:
      EnvFailure: some of it is no number, and nobody was to look at the environment's numbers.
    """
    fitness: np.ndarray = batch.records["fitness"]
    wrong = np.argwhere(~np.isfinite(fitness))
    if len(wrong):
        row, sign = wrong[0].tolist()
        pair, generation = int(batch.records["pair"][row]), int(batch.generations[row])
        raise EnvFailure(
            f"the rewards add up to {fitness[row, sign]} for {candidate_name(generation, pair, sign, seed)}"
        )
    return fitness


#: Counters of a checkpoint, and where they come from.
_COUNTERS = {"steps": "steps", "iteration": "iteration", "episodes": "episodes", "reached": "_has_reached"}
