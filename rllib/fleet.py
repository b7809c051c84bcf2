"""A run's environment copies, dealt out to rollout workers; and where each of them stands.

    begin -> next_number -> collect, or requests of an algorithm's own -> came -> learned -> state -> resume

Copies are numbered over the whole run, whatever the number of workers. Each rollout that a worker sends tells where its
copies stand behind it (``whereabouts.py``), so a worker that dies is followed by one that goes on there, and a
checkpoint tells where all stood behind what was learned from. Where that cannot be known, new episodes begin, with
seeds that the run has not used; those are told as incidents.

Where external simulators play there are no workers, and this is empty. Lives in the driver; who decides when to play,
and counts what was learned, is ``Algorithm``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..core import api
from ..envs.replay import State, split_state
from .config import RolloutConfig
from .external_settings import is_external
from .inference.inference_actors import InferenceActors
from .learner_groups.gradient_worker import Advanced
from .policies.policy_spec import NetworkSettings, PolicySpec
from .rollouts.batch import Batch, concatenate
from .rollouts.collection import Segment
from .rollouts.env_runner import Collected, EnvRunner
from .rollouts.evaluation import Evaluation
from .rollouts.whereabouts import Whereabouts
from .worker_set import WorkerSet


class Fleet:
    """The rollout workers of a run.

    Args:
      config: The run's settings.
      runner: What workers are.
      incidents: What happened to environments is appended to it, a line each.
      begin_anew: Told of the copies whose worker died and that begin new episodes.

    Attributes:
      workers: The actors, for requests of an algorithm's own.
      shards: The copies of each worker, by number.
      rollouts: How many were asked for so far.
      began_at: Iteration at which the run last began new episodes everywhere: the key of their seeds.
    """

    def __init__(
        self,
        config: RolloutConfig,
        runner: type[EnvRunner],
        *,
        incidents: list[str],
        begin_anew: Callable[[Sequence[int]], None],
    ) -> None:
        self._config, self._runner = config, runner
        self._incidents, self._begin_anew = incidents, begin_anew
        self._environments_replaced = 0
        count = 0 if is_external(config) else config.num_workers
        self.shards = np.array_split(np.arange(config.num_envs), count) if count else []
        self.rollouts = 0
        self.began_at = 0
        self._whereabouts = Whereabouts(count)
        self._held = ExitStack()
        actors = config.num_inference_actors if config.inference == "actor" else 0
        self._inference = InferenceActors(actors, num_rows=config.num_envs, device=config.inference_device)
        self._held.callback(self._inference.close)
        try:
            self.workers = WorkerSet(self._make_worker, count, about=_about(config))
        except BaseException:
            self.close()
            raise
        self._held.callback(self.workers.close)

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """The shape of the policy that fits the environment, by asking every worker: an environment that cannot be
        made anywhere fails here, before training.
        """
        specs: list[PolicySpec] = self.workers.map("policy_spec", [(network,)] * len(self.workers))
        return specs[0]

    def weights_of(self, weights_ref: Any) -> Any:
        """What workers are to be given for these weights, a reference: they act by themselves, or ask who acts."""
        return self._inference.weights_of(weights_ref)

    def begin(self, weights_ref: Any) -> None:
        """Have the workers make their environments now, so that ``state`` knows also of one that sends nothing yet."""
        self._whereabouts.begin(self.workers.map("begin", [(weights_ref,)] * len(self.workers)))

    def next_number(self, iteration: int) -> int:
        """The number of the next rollout, which picks its random streams. Of rollouts that all workers play together it
        is the iteration's.
        """
        number = max(self.rollouts, iteration)
        self.rollouts = number + 1
        return number

    def collect(self, acts_with: Any, num_steps: int, number: int) -> Batch:
        """A rollout of every worker, that is learned from.

        Args:
          acts_with: Of ``weights_of``.
          num_steps: T.
          number: Of the rollout.

        Returns:
          One batch, [num_steps, num_envs], by copy.
        """
        collected: list[Collected] = self.workers.map("collect", [(acts_with, num_steps, number)] * len(self.workers))
        batch = concatenate([each.batch for each in collected])
        for worker, each in enumerate(collected):
            self.came(worker, each)
            self.learned(worker, each)
        return batch

    def evaluate(self, weights_ref: Any, episodes: int) -> Evaluation:
        """Have the workers play so many evaluation episodes, the first ones, with the likeliest actions; nothing may be
        in flight on them.
        """
        shares = [share.tolist() for share in np.array_split(np.arange(episodes), len(self.workers)) if len(share)]
        by_worker = self.workers.map("evaluate", [(weights_ref, share) for share in shares])
        return Evaluation.of(itertools.chain.from_iterable(by_worker))

    def came(self, worker: int, collected: Collected) -> None:
        """A rollout has come: a worker that dies from now on is replaced by one that goes on behind it."""
        self._whereabouts.came(worker, collected.state)
        self._inference.note(collected.exchange, collected.seconds)

    def learned_where_played(self, worker: int, advanced: Advanced) -> None:
        """A rollout was learned from by its worker, and never came: both in one."""
        self._whereabouts.came(worker, advanced.state)
        self.learned(worker, advanced)

    def learned(self, worker: int, rollout: Collected | Advanced) -> None:
        """A rollout is learned from: a checkpoint goes on behind it."""
        self._whereabouts.counted(worker, rollout.state)
        self._environments_replaced += rollout.replaced
        self._incidents += rollout.incidents

    def copies_of(self, segments: Sequence[Segment]) -> np.ndarray:
        """Which of the run's copies each column of these segments is of, side by side, [B] int64; a copy that is there
        twice goes on in the later column where it stopped in the earlier, or begins a new episode.
        """
        return np.concatenate([self.shards[segment.worker] for segment in segments])

    def state(self) -> State | None:
        """Where all copies stand behind what was learned from; None if that is not known of one."""
        return self._whereabouts.all_counted()

    def resume(self, state: State | None, *, began_at: int, iteration: int) -> bool:
        """Lead the workers' environments to where they stood, or to new episodes if that is not known. Nothing may be
        in flight on them.

        Args:
          state: Of all copies.
          began_at: What it was then.
          iteration: The run's, from now on.

        Returns:
          Whether it is known; if not, all begin new episodes.
        """
        places: list[State | None] = [None] * len(self.workers)
        is_known = state is not None and len(state["length"]) == self._config.num_envs
        if state is not None and is_known:
            places = [*split_state(state, [len(shard) for shard in self.shards])]
        elif iteration and len(self.workers):
            why = "the checkpoint does not tell where they stood" if state is None else "there were others"
            self._incidents.append(f"all {self._config.num_envs} environments start new episodes: {why}")
        self.began_at = began_at if is_known else iteration
        self._whereabouts.begin(places)
        self.workers.map("resume", [(self.began_at, place) for place in places])
        return is_known

    def replacements(self) -> dict[str, float]:
        """Workers that died, and environments that crashed or hung, and were replaced so far."""
        return {"workers_replaced": self.workers.replacements, "environments_replaced": self._environments_replaced}

    def inference_metrics(self) -> dict[str, float]:
        """Of the actors that act, where there are any."""
        return self._inference.metrics()

    def close(self) -> None:
        """Kill the workers, and the actors that act for them. May be called twice."""
        self._held.close()

    def _make_worker(self, worker: int, replacement: int) -> Any:
        config = self._config
        env_indices: Sequence[int] = self.shards[worker].tolist()
        is_exact = self._whereabouts.successor_is_exact(worker)
        if replacement and not is_exact:
            self._begin_anew(env_indices)
            self._incidents.append(f"the environments of rollout worker {worker} start new episodes: it died")
        return (
            api.remote(self._runner)
            .options(num_cpus=1)
            .remote(
                env_id=config.env,
                worker_index=worker,
                env_indices=env_indices,
                seed=config.seed,
                resumed_at=self.began_at,
                replacement=0 if is_exact else replacement,
                state=self._whereabouts.places[worker],
                vector=config.vector,
                num_processes=config.env_processes,
                num_groups=config.env_groups,
                checks=config.checks,
                inference=self._inference.of(worker),
            )
        )


def _about(config: RolloutConfig) -> str:
    """What workers do, for when one keeps dying; and what helps, if that is what an environment does to its process."""
    plays = f"it plays {config.env}"
    if config.vector != "serial":
        return plays
    return f"{plays}; with --vector parallel, an environment that ends its process is replaced"
