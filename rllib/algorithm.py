"""What every algorithm that learns from rollouts is made of: rollout workers, a learner, counters, evaluation.

An algorithm is a subclass that says how to build its learner and what one iteration does; it reads from top to bottom
in its own file. It is a ``Trainable``. Here is what it need not repeat. ``scripts/train.py`` drives it:

    collect:  weights by reference ->  rollout workers  -> batches through the object store   (``fleet.py``)
    learn:    batches              ->  learner          -> weights of the next version, put once
    evaluate: weights by reference ->  whole episodes, by the workers or beside them          (``evaluator.py``)
    restore:  parts <-> what they must remember <-> a checkpoint                              (``saved_run.py``)

Same seed, same curve, for any number of workers: copies of the environment are numbered over the whole run, random
streams belong to the copies (``streams.py``), rollouts are joined in the order of the copies, and acting gives a row
the same bits in any batch (``policy.py``).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from ..core import api
from ..envs import opening
from ..envs.registry import UnknownEnvironment
from . import external_settings
from .config import AlgorithmConfig, ConfigError, RolloutConfig, to_dict
from .external_collection import ExternalCollection
from .external_settings import EXTERNAL, check_supported, is_external
from .fleet import Fleet
from .learner_groups.gradient_worker import Advanced
from .learning.learner import LearnedPolicy
from .policies.normalization import ObservationMoments, RewardScaler, Statistics
from .policies.policy import Policy
from .policies.policy_spec import NetworkSettings, PolicySpec, policy_spec
from .policies.weights import Weights
from .rollouts.batch import Batch, FinishedEpisode
from .rollouts.collection import DynamicCollection
from .rollouts.env_runner import Collected, EnvRunner
from .rollouts.evaluation import Evaluation
from .rollouts.external import EpisodeSource
from .training import saved_state
from .training.checkpoints import Checkpoint
from .training.evaluator import Evaluated, Evaluator
from .training.metrics import RecentEpisodes
from .training.saved_run import SavedRun

C = TypeVar("C", bound=RolloutConfig)


class Algorithm(abc.ABC, Generic[C]):
    """A learner and its rollout workers.

    Args:
      config: Settings. ``shoal.init`` has been called.

    Raises:
      ConfigError: no such environment, or one with spaces that are not supported.
      EnvFailure: the environment's constructor raised.
    """

    name: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]

    def __init__(self, config: C) -> None:
        try:
            if is_external(config):
                check_supported(self.name, config)
            else:
                opening.check(config.env, config.vector)
        except UnknownEnvironment as error:
            raise ConfigError(f"env: {error}") from error
        self.config = config
        self.steps = 0  #: environment steps done so far
        self.iteration = 0  #: iterations done so far
        self.episodes = 0  #: training episodes that ended so far
        self._recent = RecentEpisodes()
        #: of observations and rewards, as far as the algorithm keeps some; saved with it
        self.statistics = Statistics()
        #: numbers that follow from how training went, and not from its progress alone; saved with it
        self.schedules: dict[str, float] = {}
        #: what happened to environments, a line each, since whoever shows it last emptied the list
        self.incidents: list[str] = []
        #: rollouts as they come, for algorithms that have made it, see ``dynamic_collection``
        self.collection: DynamicCollection | None = None
        #: steps of simulators, where these play: then there are no workers
        self.external: ExternalCollection | None = None
        self._held = ExitStack()
        self.fleet = Fleet(config, self.runner_class(), incidents=self.incidents, begin_anew=self._begin_anew)
        self._held.callback(self.fleet.close)
        self.workers = self.fleet.workers
        self._evaluator = Evaluator(env_id=config.env, seed=config.seed, checks=config.checks)
        self._held.callback(self._evaluator.close)
        try:
            self.learner = self.build_learner()
            self._held.callback(self.learner.close)
            self.broadcast()
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def build_learner(self) -> LearnedPolicy:
        """The learner, with fresh weights. Called once, when the workers are there: see ``policy_spec``."""

    @abc.abstractmethod
    def step(self) -> dict[str, float]:
        """One iteration: collect, learn, broadcast.

        Returns:
          What happened, ``report()`` among it.

        Raises:
          EnvFailure: an environment raised.
          WorkerLostError: a worker keeps dying.
          DivergedError: the loss has diverged.
        """

    @property
    def is_done(self) -> bool:
        """As in ``Trainable``: all steps are."""
        return self.steps >= self.config.total_steps

    @property
    def last_death(self) -> str:
        """As in ``Trainable``."""
        return self.workers.last_death

    def runner_class(self) -> type[EnvRunner]:
        """What rollout workers are."""
        return EnvRunner

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """The shape of the policy that fits the environment; see ``Fleet.policy_spec``."""
        if is_external(self.config):
            return policy_spec(EXTERNAL, *external_settings.spaces(check_supported(self.name, self.config)), network)
        return self.fleet.policy_spec(network)

    def keep_statistics(
        self, spec: PolicySpec, *, observations: bool, rewards: bool, gamma: float
    ) -> tuple[ObservationMoments | None, RewardScaler | None]:
        """What observations and rewards are normalised by, as far as they are; saved with the algorithm.

        Args:
          spec: The policy's shape.
          observations, rewards: Whether these are normalised.
          gamma: Discount of the rewards.
        """
        moments = ObservationMoments(spec.observations.normalizable_shapes) if observations else None
        scaler = RewardScaler(self.config.num_envs, gamma) if rewards else None
        self.statistics = Statistics(moments, scaler)
        return moments, scaler

    def collect(self, num_steps: int) -> Batch:
        """``num_steps`` steps in every environment copy, with the weights of the last ``broadcast``; counts them.

        Returns:
          One batch, [num_steps, num_envs], by copy.
        """
        batch = self.fleet.collect(self._acted_with, num_steps, self.next_rollout())
        self._count(batch.num_steps, batch.episodes)
        return batch

    def dynamic_collection(self, num_steps: int, *, max_in_flight: int, max_lag: int | None) -> DynamicCollection:
        """The way to take rollouts as they come, of ``num_steps`` steps each; what is taken is counted. To be kept as
        ``collection``, by ``build_learner``: then ``broadcast`` publishes there, too.

        Args:
          num_steps: T.
          max_in_flight, max_lag: See ``collection.py``.
        """
        return DynamicCollection(
            self.workers,
            num_steps,
            [len(shard) for shard in self.fleet.shards],
            max_in_flight=max_in_flight,
            max_lag=max_lag,
            next_rollout=self.next_rollout,
            arrived=self.fleet.came,
            taken=self._taken,
        )

    def external_collection(self, num_steps: int, *, max_lag: int) -> ExternalCollection:
        """The way to take steps of external simulators; what is taken is counted. To be kept as ``external``, by
        ``build_learner``, where these play: then ``broadcast`` publishes there.

        Args:
          num_steps, max_lag: See ``external_collection.py``.
        """
        return ExternalCollection(num_steps, max_lag=max_lag, taken=self._count)

    def next_rollout(self) -> int:
        """The number of the next rollout, which picks its random streams."""
        return self.fleet.next_number(self.iteration)

    def learned_where_played(self, worker: int, advanced: Advanced) -> None:
        """A rollout was played and learned from by its worker; counts it."""
        self.fleet.learned_where_played(worker, advanced)
        self._count(advanced.steps, advanced.episodes)

    def weights(self) -> Weights:
        """The policy as it is now, with what observations are normalised by."""
        return replace(self.learner.weights(self.iteration), normalizers=self.statistics.normalizers())

    def broadcast(self) -> None:
        """Put the learner's weights into the object store, once for all workers; they come with the next request."""
        self._weights_ref = api.put(self.weights())
        self._acted_with = self.fleet.weights_of(self._weights_ref)
        if self.collection is not None:
            if self.collection.is_new:
                # So that a checkpoint knows, also of a worker that has not sent anything yet.
                self.fleet.begin(self._weights_ref)
            self.collection.publish(self._acted_with, self.iteration)
        if self.external is not None:
            self.external.publish(self._weights_ref, self.iteration)

    def learn_from(self, source: EpisodeSource) -> None:
        """Take the steps of simulators from there: with env external, before the first ``step``.

        Raises:
          ConfigError: environments of the cluster play.
        """
        if self.external is None:
            raise ConfigError(f"env: {self.config.env!r} is played in the cluster; with external simulators play")
        self.external.connect(source)

    def report(self) -> dict[str, float]:
        """Progress: steps, iteration, episodes; mean return and length of the last episodes, NaN before the first."""
        return {
            "steps": self.steps,
            "iteration": self.iteration,
            "episodes": self.episodes,
            **self._recent.means(),
            **self.fleet.replacements(),
            **self._collection_metrics(),
            **{f"learners/{name}": value for name, value in self.learner.counters().items()},
            **self.fleet.inference_metrics(),
        }

    def evaluate(self, episodes: int) -> Evaluation:
        """As in ``Trainable``, split over the workers.

        Raises:
          ConfigError: external simulators play: there is nothing here to evaluate in.
        """
        self._check_can_evaluate()
        if self.collection is not None:
            self.collection.settle()
        return self.fleet.evaluate(self._weights_ref, episodes)

    def begin_evaluation(self, episodes: int, *, films: bool = False) -> None:
        """As in ``Trainable``.

        Raises:
          ConfigError: as ``evaluate``.
        """
        self._check_can_evaluate()
        self._evaluator.submit(self.steps, self._weights_ref, episodes, films=films)

    def evaluations(self, *, wait: bool = False) -> list[Evaluated]:
        """As in ``Trainable``."""
        return self._evaluator.finished(wait=wait)

    def checkpoint(self) -> Checkpoint:
        """All that going on needs, between two steps, with any number of workers: see ``saved_run.py``."""
        return SavedRun(
            weights=self.weights(),
            optimizer=self.learner.optimizer_arrays(),
            statistics=self.statistics.arrays(),
            recent=self._recent.arrays(),
            schedules=self.schedules,
            environments=self.fleet.state(),
            steps=self.steps,
            iteration=self.iteration,
            episodes=self.episodes,
            environments_since=self.fleet.began_at,
            rollouts=self.fleet.rollouts,
        ).checkpoint(self.name, to_dict(self.config))

    def restore(self, checkpoint: Checkpoint) -> None:
        """As in ``Trainable``; what does not fit ``SavedRun.read`` tells."""
        saved = SavedRun.read(
            checkpoint,
            algorithm=self.name,
            spec=self.learner.spec,
            optimizer_shapes=self.learner.optimizer_shapes,
            statistics=self.statistics,
            schedules=self.schedules,
        )
        self.statistics.load(saved.statistics)
        self.schedules = dict(saved.schedules)
        self.learner.load(saved.weights.arrays, saved.optimizer)
        self.steps, self.iteration, self.episodes = saved.steps, saved.iteration, saved.episodes
        self._recent.load(saved.recent)
        self.fleet.rollouts = saved.rollouts
        self._resume_environments(saved)
        self.broadcast()

    @staticmethod
    def policy_from(checkpoint: Checkpoint) -> Policy:
        """As in ``Trainable``. Needs neither workers nor torch."""
        return Policy(saved_state.weights_from(checkpoint))

    def close(self) -> None:
        """Kill the workers, and learners and inference actors in processes of their own. May be called twice."""
        self._held.close()

    def _resume_environments(self, saved: SavedRun) -> None:
        """Lead the workers' environments to where they stood, or to new episodes if that is not known."""
        if self.collection is not None:
            self.collection.settle()
            self.collection.restart(self.iteration)
        is_known = self.fleet.resume(saved.environments, began_at=saved.environments_since, iteration=self.iteration)
        if self.external is not None:
            self.incidents.append("episodes that simulators were in are lost: their states are no part of a checkpoint")
        elif not is_known:
            self.statistics.restart_rewards()

    def _begin_anew(self, copies: Sequence[int]) -> None:
        """The worker of these copies died, and they begin new episodes."""
        if self.collection is None:  # else rollouts of before may not have been counted yet, see ``starts``
            self.statistics.restart_rewards(copies)

    def _taken(self, worker: int, collected: Collected) -> None:
        """A rollout that came by itself is learned from."""
        self.fleet.learned(worker, collected)
        self._count(collected.batch.num_steps, collected.batch.episodes)

    def _count(self, steps: int, episodes: Sequence[FinishedEpisode]) -> None:
        self.steps += steps
        self.episodes += len(episodes)
        self._recent.extend(
            [finished.episode.episode_return for finished in episodes],
            [finished.episode.length for finished in episodes],
        )

    def _collection_metrics(self) -> dict[str, float]:
        if self.external is not None:
            return {f"external/{name}": value for name, value in self.external.metrics().items()}
        metrics = {} if self.collection is None else self.collection.metrics()
        return {f"collection/{name}": value for name, value in metrics.items()}

    def _check_can_evaluate(self) -> None:
        if self.external is not None:
            raise ConfigError("env: external simulators play, so there is no environment here to evaluate in")
