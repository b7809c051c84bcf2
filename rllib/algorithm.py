"""What every algorithm that learns from rollouts is made of: workers, a learner, counters, checkpoints.

An algorithm is a subclass that says how to build its learner and what one iteration does; it reads from top to bottom
in its own file. It is a ``Trainable``. Here is what it need not repeat. ``scripts/train.py`` drives it:

    collect:  weights by reference ->  rollout workers  -> batches through the object store
    learn:    batches              ->  learner          -> weights of the next version, put once

Same seed, same curve, for any number of workers: copies of the environment are numbered over the whole run, random
streams belong to the copies (``streams.py``), rollouts are joined in the order of the copies, and acting gives a row
the same bits in any batch (``policy.py``).
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from ..core import api
from ..envs import opening
from ..envs.registry import UnknownEnvironment
from ..envs.replay import State, split_state
from . import external_settings
from .config import AlgorithmConfig, ConfigError, RolloutConfig, to_dict
from .external_collection import ExternalCollection
from .external_settings import EXTERNAL, check_supported, is_external
from .inference.inference_actors import InferenceActors
from .learner_groups.gradient_worker import Advanced
from .learning.learner import LearnedPolicy
from .policies.normalization import ObservationMoments, RewardScaler
from .policies.policy import Policy
from .policies.policy_spec import NetworkSettings, PolicySpec, policy_spec, told_apart
from .policies.weights import Weights
from .rollouts.batch import Batch, FinishedEpisode, concatenate
from .rollouts.collection import DynamicCollection, Segment
from .rollouts.env_runner import Collected, EnvRunner
from .rollouts.evaluation import Evaluation
from .rollouts.external import EpisodeSource
from .rollouts.whereabouts import Whereabouts
from .training import saved_state
from .training.checkpoints import Checkpoint, CheckpointError
from .training.evaluator import Evaluated, Evaluator
from .training.metrics import Window
from .worker_set import WorkerSet

C = TypeVar("C", bound=RolloutConfig)

#: Episodes over which ``return_mean`` and ``episode_length_mean`` are taken.
EPISODE_WINDOW = 100


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
        has_workers = not is_external(config)
        try:
            if has_workers:
                opening.check(config.env, config.vector)
            else:
                check_supported(self.name, config)
        except UnknownEnvironment as error:
            raise ConfigError(f"env: {error}") from error
        self.config = config
        self.steps = 0  #: environment steps done so far
        self.iteration = 0  #: iterations done so far
        self.episodes = 0  #: training episodes that ended so far
        self._returns = Window(EPISODE_WINDOW)
        self._lengths = Window(EPISODE_WINDOW)
        #: statistics of observations and rewards that the algorithm keeps, by name; saved with it
        self.normalizers: dict[str, ObservationMoments | RewardScaler] = {}
        #: numbers that follow from how training went, and not from its progress alone; saved with it
        self.schedules: dict[str, float] = {}
        self.environments_replaced = 0  #: environments that crashed or hung and were replaced so far
        #: what happened to environments, a line each, since whoever shows it last emptied the list
        self.incidents: list[str] = []
        #: rollouts as they come, for algorithms that have made it, see ``dynamic_collection``
        self.collection: DynamicCollection | None = None
        #: steps of simulators, where these play: then there are no workers
        self.external: ExternalCollection | None = None
        self._resumed_at = 0
        self._rollouts = 0  # asked for so far; whatever wants another gets the next number
        self._held = ExitStack()
        self._evaluator = Evaluator(env_id=config.env, seed=config.seed, checks=config.checks)
        num_workers = config.num_workers if has_workers else 0
        self._shards = np.array_split(np.arange(config.num_envs), num_workers) if has_workers else []
        self._whereabouts = Whereabouts(num_workers)
        actors = config.num_inference_actors if config.inference == "actor" else 0
        self._inference = InferenceActors(actors, num_rows=config.num_envs, device=config.inference_device)
        self._held.callback(self._inference.close)
        self.workers = WorkerSet(self._make_worker, num_workers)
        self._held.callback(self.workers.close)
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
        """Whether all steps are done."""
        return self.steps >= self.config.total_steps

    @property
    def last_death(self) -> str:
        """Why the rollout worker that was replaced last had died."""
        return self.workers.last_death

    def runner_class(self) -> type[EnvRunner]:
        """What rollout workers are."""
        return EnvRunner

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """The shape of the policy that fits the environment, by asking every worker: an environment that cannot be
        made anywhere fails here, before training.
        """
        if is_external(self.config):
            return policy_spec(EXTERNAL, *external_settings.spaces(check_supported(self.name, self.config)), network)
        specs: list[PolicySpec] = self.workers.map("policy_spec", [(network,)] * len(self.workers))
        return specs[0]

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
        kept: dict[str, ObservationMoments | RewardScaler | None] = {"observations": moments, "rewards": scaler}
        self.normalizers = {name: statistics for name, statistics in kept.items() if statistics is not None}
        return moments, scaler

    def collect(self, num_steps: int) -> Batch:
        """``num_steps`` steps in every environment copy, with the weights of the last ``broadcast``; counts them.

        Returns:
          One batch, [num_steps, num_envs], by copy.
        """
        request = (self._acted_with, num_steps, self._next_rollout())
        collected: list[Collected] = self.workers.map("collect", [request] * len(self.workers))
        batch = concatenate([each.batch for each in collected])
        for worker, each in enumerate(collected):
            self._arrived(worker, each)
            self._note_environments(worker, each)
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
            [len(shard) for shard in self._shards],
            max_in_flight=max_in_flight,
            max_lag=max_lag,
            next_rollout=self._next_rollout,
            arrived=self._arrived,
            taken=self._taken,
        )

    def external_collection(self, num_steps: int, *, max_lag: int) -> ExternalCollection:
        """The way to take steps of external simulators; what is taken is counted. To be kept as ``external``, by
        ``build_learner``, where these play: then ``broadcast`` publishes there.

        Args:
          num_steps, max_lag: See ``external_collection.py``.
        """
        return ExternalCollection(num_steps, max_lag=max_lag, taken=self._count)

    def copies_of(self, segments: Sequence[Segment]) -> np.ndarray:
        """Which of the run's copies each column of these segments is of, side by side, [B] int64; a copy that is there
        twice goes on in the later column where it stopped in the earlier, or begins a new episode.
        """
        return np.concatenate([self._shards[segment.worker] for segment in segments])

    def broadcast(self) -> None:
        """Put the learner's weights into the object store, once for all workers; they come with the next request."""
        self._weights_ref = api.put(self.weights())
        self._acted_with = self._inference.weights_of(self._weights_ref)
        if self.collection is not None:
            if self.collection.is_new:
                # So that a checkpoint knows, also of a worker that has not sent anything yet.
                self._whereabouts.begin(self.workers.map("begin", [(self._weights_ref,)] * len(self.workers)))
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
            "return_mean": self._returns.mean,
            "episode_length_mean": self._lengths.mean,
            "workers_replaced": self.workers.replacements,
            "environments_replaced": self.environments_replaced,
            **self._collection_metrics(),
            **{f"learners/{name}": value for name, value in self.learner.counters().items()},
            **self._inference.metrics(),
        }

    def evaluate(self, episodes: int) -> Evaluation:
        """Play episodes with the present policy, frozen, and its likeliest actions; does not count as training.

        Args:
          episodes: How many; split over the workers. The same ones each time, whatever the number of workers.

        Raises:
          ConfigError: external simulators play: there is nothing here to evaluate in.
        """
        self._check_can_evaluate()
        if self.collection is not None:
            self.collection.settle()
        shares = [share.tolist() for share in np.array_split(np.arange(episodes), len(self.workers)) if len(share)]
        by_worker = self.workers.map("evaluate", [(self._weights_ref, share) for share in shares])
        return Evaluation.of(itertools.chain.from_iterable(by_worker))

    def begin_evaluation(self, episodes: int, *, films: bool = False) -> None:
        """Have the present policy play the episodes that ``evaluate`` plays, in an actor of its own while training goes
        on; see ``evaluations``. Waits only if two such evaluations are under way already.

        Args:
          episodes: How many.
          films: Whether to make a film of the first, see ``video.py``.

        Raises:
          EnvFailure, WorkerLostError: an earlier one failed.
          ConfigError: as ``evaluate``.
        """
        self._check_can_evaluate()
        self._evaluator.submit(self.steps, self._weights_ref, episodes, films=films)

    def evaluations(self, *, wait: bool = False) -> list[Evaluated]:
        """What ``begin_evaluation`` began and has finished since the last call, oldest first.

        Args:
          wait: Until nothing is under way.

        Raises:
          EnvFailure, WorkerLostError: one failed.
        """
        return self._evaluator.finished(wait=wait)

    def checkpoint(self) -> Checkpoint:
        """All that going on needs, between two steps: the run that goes on is the one that was not interrupted, bit for
        bit, with any number of workers.

        Where rollouts come one by one it is not, for their order is nobody's choice; but nothing is lost or counted
        twice: environments go on behind the last rollouts that were learned from, and what has come since, or is under
        way, is played again.

        Random streams need no state, see ``streams.py``. Environments that cannot tell theirs (``NoStateError``) are no
        part of it: after ``restore`` they start new episodes, with seeds that the run has not used.
        """
        weights, environments = self.weights(), self._whereabouts.all_counted()
        return Checkpoint(
            algorithm=self.name,
            config=to_dict(self.config),
            counters={name: getattr(self, attribute) for name, attribute in _COUNTERS.items()}
            | {"rollouts": self._rollouts},
            tensors={
                "policy": dict(weights.arrays),
                "optimizer": self.learner.optimizer_arrays(),
                "episodes": {
                    "returns": np.array(self._returns.values, np.float64),
                    "lengths": np.array(self._lengths.values, np.float64),
                },
                **{saved_state.group_of(name): normalizer.arrays() for name, normalizer in self.normalizers.items()},
                **({} if environments is None else {saved_state.ENVIRONMENTS: environments}),
            },
            extra={"policy_spec": weights.spec.to_dict(), "schedules": dict(self.schedules)},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same algorithm, environment and network.

        Raises:
          CheckpointError: it is of another algorithm, or of a network of another shape, or something is missing from
            it; nothing was changed.
        """
        if checkpoint.algorithm != self.name:
            raise CheckpointError(f"a checkpoint of {checkpoint.algorithm!r} cannot go on as {self.name!r}")
        weights = saved_state.weights_from(checkpoint)
        if weights.spec != self.learner.spec:
            raise CheckpointError(f"the checkpoint's policy {told_apart(weights.spec, self.learner.spec)}")
        saved = {name for name in ("observations", "rewards") if saved_state.group_of(name) in checkpoint.tensors}
        if saved != set(self.normalizers):
            raise CheckpointError(
                f"the checkpoint normalises {' and '.join(sorted(saved)) or 'nothing'}, "
                f"this run {' and '.join(sorted(self.normalizers)) or 'nothing'}"
            )
        # All is looked at before anything is taken over.
        statistics = {
            name: checkpoint.group(saved_state.group_of(name), saved_state.shapes_of(normalizer))
            for name, normalizer in self.normalizers.items()
        }
        counters = {name: checkpoint.counter(name) for name in _COUNTERS}
        # There was no such counter when all workers played together.
        rollouts = checkpoint.counter("rollouts") if "rollouts" in checkpoint.counters else counters["iteration"]
        optimizer = checkpoint.group("optimizer", self.learner.optimizer_shapes() if counters["iteration"] else {})
        episodes = checkpoint.group("episodes", {"returns": (None,), "lengths": (None,)})
        schedules = saved_state.schedules_from(checkpoint, self.schedules)
        environments = saved_state.environments_from(checkpoint)

        for name, normalizer in self.normalizers.items():
            normalizer.load(statistics[name])
        self.schedules = schedules
        self.learner.load(weights.arrays, optimizer)
        self.steps = counters["steps"]
        self.iteration = counters["iteration"]
        self.episodes = counters["episodes"]
        self._returns = Window(EPISODE_WINDOW, episodes["returns"].tolist())
        self._lengths = Window(EPISODE_WINDOW, episodes["lengths"].tolist())
        self._rollouts = rollouts
        self._resume_environments(environments, counters["environments_since"])
        self.broadcast()

    @staticmethod
    def policy_from(checkpoint: Checkpoint) -> Policy:
        """The policy of a checkpoint, ready to act. Needs neither workers nor torch.

        Raises:
          CheckpointError: the checkpoint holds no policy, or not all of one.
        """
        return Policy(saved_state.weights_from(checkpoint))

    def close(self) -> None:
        """Kill the workers, and learners and inference actors in processes of their own. May be called twice."""
        self._held.close()

    def _resume_environments(self, state: State | None, began_at: int) -> None:
        """Lead the workers' environments to where they stood, or to new episodes if that is not known.

        Args:
          state: Of all copies.
          began_at: Iteration at which the run last began new episodes everywhere: the key of their seeds.
        """
        if self.external is not None:
            self._resumed_at = self.iteration
            self.incidents.append("episodes that simulators were in are lost: their states are no part of a checkpoint")
            return
        if self.collection is not None:
            self.collection.settle()
            self.collection.restart(self.iteration)
        places: list[State | None] = [None] * len(self.workers)
        if state is not None and len(state["length"]) == self.config.num_envs:
            self._resumed_at = began_at
            places = [*split_state(state, [len(shard) for shard in self._shards])]
        else:
            self._resumed_at = self.iteration
            self._restart_rewards()
            if self.iteration:
                why = "the checkpoint does not tell where they stood" if state is None else "there were others"
                self.incidents.append(f"all {self.config.num_envs} environments start new episodes: {why}")
        self._whereabouts.begin(places)
        self.workers.map("resume", [(self._resumed_at, place) for place in places])

    def _restart_rewards(self, copies: Sequence[int] | None = None) -> None:
        """These copies, by default all, begin new episodes: what rewards are scaled by counts from there."""
        for normalizer in self.normalizers.values():
            if isinstance(normalizer, RewardScaler):
                normalizer.restart(copies)

    def weights(self) -> Weights:
        """The policy as it is now, with what observations are normalised by."""
        weights = self.learner.weights(self.iteration)
        moments = self.normalizers.get("observations")
        if isinstance(moments, ObservationMoments):
            return replace(weights, normalizers=moments.normalizers())
        return weights

    def _next_rollout(self) -> int:
        """The number of the next rollout, which picks its random streams. Of rollouts that all workers play together it
        is the iteration's.
        """
        number = max(self._rollouts, self.iteration)
        self._rollouts = number + 1
        return number

    def _arrived(self, worker: int, collected: Collected) -> None:
        """A rollout has come: a worker that dies from now on is replaced by one that goes on behind it."""
        self._whereabouts.came(worker, collected.state)
        self._inference.note(collected.exchange, collected.seconds)

    def _taken(self, worker: int, collected: Collected) -> None:
        """A rollout that came by itself is learned from."""
        self._note_environments(worker, collected)
        self._count(collected.batch.num_steps, collected.batch.episodes)

    def learned_where_played(self, worker: int, advanced: Advanced) -> None:
        """A rollout was played and learned from by its worker; counts it."""
        self._whereabouts.came(worker, advanced.state)
        self._note_environments(worker, advanced)
        self._count(advanced.steps, advanced.episodes)

    def _note_environments(self, worker: int, collected: Collected | Advanced) -> None:
        self._whereabouts.counted(worker, collected.state)
        self.environments_replaced += collected.replaced
        self.incidents += collected.incidents

    def _count(self, steps: int, episodes: Sequence[FinishedEpisode]) -> None:
        self.steps += steps
        self.episodes += len(episodes)
        self._returns.extend(finished.episode.episode_return for finished in episodes)
        self._lengths.extend(finished.episode.length for finished in episodes)

    def _collection_metrics(self) -> dict[str, float]:
        if self.external is not None:
            return {f"external/{name}": value for name, value in self.external.metrics().items()}
        metrics = {} if self.collection is None else self.collection.metrics()
        return {f"collection/{name}": value for name, value in metrics.items()}

    def _check_can_evaluate(self) -> None:
        if self.external is not None:
            raise ConfigError("env: external simulators play, so there is no environment here to evaluate in")

    def _make_worker(self, worker: int, replacement: int) -> Any:
        env_indices: Sequence[int] = self._shards[worker].tolist()
        is_exact = self._whereabouts.successor_is_exact(worker)
        if replacement and not is_exact:
            if self.collection is None:  # else rollouts of before may not have been counted yet, see ``starts``
                self._restart_rewards(env_indices)
            self.incidents.append(f"the environments of rollout worker {worker} start new episodes: it died")
        return (
            api.remote(self.runner_class())
            .options(num_cpus=1)
            .remote(
                env_id=self.config.env,
                worker_index=worker,
                env_indices=env_indices,
                seed=self.config.seed,
                resumed_at=self._resumed_at,
                replacement=0 if is_exact else replacement,
                state=self._whereabouts.places[worker],
                vector=self.config.vector,
                num_processes=self.config.env_processes,
                num_groups=self.config.env_groups,
                checks=self.config.checks,
                inference=self._inference.of(worker),
            )
        )


#: Counters of a checkpoint, and where they come from.
_COUNTERS = {
    "steps": "steps",
    "iteration": "iteration",
    "episodes": "episodes",
    "environments_since": "_resumed_at",
}
