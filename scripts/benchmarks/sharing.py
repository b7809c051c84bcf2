"""`shoal bench learners`: what it costs that several learners agree, and what it brings that they need not.

Step time. N learners take gradient steps of PPO's loss on minibatches of the same net: by all-reduce (in buckets, and
as a whole where a gradient is larger than a bucket), through a parameter server, and, in turn with these, N processes
with torch's DistributedDataParallel over gloo, each of which has its rows at hand. One thread each, as the learners of
a run have them; torch computes, for all of them.

A straggler. Learners whose gradients take a time that is known and no CPU, one of them 5 times as long, fit a critic to
a given function through a parameter server. With staleness 0 they take `--fit-steps` steps together; with a bound, and
without, minibatches go to whoever is free until the loss on other rows is as small. Compared are the times.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

import shoal
from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.rllib.learner_groups.all_reduce import AllReduceGroup
from shoal.rllib.learner_groups.asynchronous_learners import AsynchronousLearners
from shoal.rllib.learner_groups.learner_group import LearnerGroup
from shoal.rllib.learning.learner import GradientLearner, Learner, Metrics
from shoal.rllib.learning.minibatches import minibatches
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.learning.torch_learner import TorchLearner
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, PolicySpec, policy_spec
from shoal.scripts.benchmarks import report
from shoal.scripts.benchmarks.data_parallel import DataParallel
from shoal.scripts.command_line import DONE, UsageError, parse
from shoal.scripts.standard_streams import printing, say

if TYPE_CHECKING:
    import torch

#: Settings of the loss.
LOSS = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.0}
_RATE, _EPSILON, _MAX_NORM = 3e-3, 1e-5, 0.5
#: How many times as long the slow learner takes, and the seconds of a row.
SLOWER, _ROW_S = 5, 5e-5
#: Rows of a minibatch of the fit, and of those that its loss is looked at with.
_FIT_ROWS, _OTHER_ROWS = 256, 2048
#: What staleness is tried beside 0.
_BOUND = 6
#: All-reduce may take this much longer than DistributedDataParallel, and the bound this much of the time without one.
STEP_GOAL, FIT_GOAL = 1.1, 0.6


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench learners` can be told."""

    learners: int = 2
    """N, at least 2."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Of the policy's and of the critic's net."""

    minibatch_size: int = 2048
    """Rows of a step, of all learners together."""

    steps: int = 30
    """Of each way in each round."""

    bucket_mb: float = 25.0
    """MiB of the gradient that are summed up at once, with all-reduce and by the peer."""

    fit_steps: int = 150
    """Steps of the fit with staleness 0."""

    rounds: int = 3
    """Rounds; the median counts."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure learners that share their work.")
    if options.learners < 2 or options.rounds < 1 or min(options.steps, options.fit_steps) < 1:
        raise UsageError("--learners must be at least 2, --rounds, --steps and --fit-steps at least 1")
    if options.minibatch_size < options.learners or not options.hidden_sizes or min(options.hidden_sizes) < 1:
        raise UsageError("--minibatch-size must be at least --learners, --hidden-sizes one or more of at least 1")
    if not options.bucket_mb > 0.0:
        raise UsageError("--bucket-mb must be positive")
    nets = " x ".join(map(str, options.hidden_sizes))
    told = (
        f"{options.learners} learners of two nets {nets}, {options.minibatch_size} rows, buckets of "
        f"{options.bucket_mb:g} MiB, {report.counted(options.rounds, 'round')}"
    )
    conditions = report.conditions([f"shoal {shoal.__version__}"], told)
    steps = {way: float(np.median(found)) for way, found in step_times(options).items()}
    fits = {way: float(np.median(found)) for way, found in fit_times(options).items()}
    with printing():
        print(report.laid_out(step_table(steps), conditions, [step_verdict(steps)], markdown=options.markdown))
        print()
        print(report.laid_out(fit_table(fits), conditions, [fit_verdict(fits)], markdown=options.markdown))
    return DONE


def step_times(options: Options) -> dict[str, list[float]]:
    """Seconds of a step by each way, in each round."""
    spec = _spec(options.hidden_sizes)
    make = partial(in_torch, spec)
    rows = _rows(np.random.default_rng(0), 4 * options.minibatch_size)
    found: dict[str, list[float]] = {}
    with _session(options, preload=["torch"]) as held:
        groups: dict[str, Learner] = {}
        for way, bucket_mb in _buckets(spec, options.bucket_mb).items():
            groups[way] = AllReduceGroup(spec, make, options.learners, learning_rate=_RATE, bucket_mb=bucket_mb)
            held.callback(groups[way].close)
        server = LearnerGroup(
            spec,
            initial_weights(spec, 0),
            make,
            options.learners,
            learning_rate=_RATE,
            epsilon=_EPSILON,
            max_grad_norm=_MAX_NORM,
        )
        held.callback(server.close)
        peer = DataParallel(
            partial(policy_and_adam, spec),
            ppo_loss,
            rows,
            options.learners,
            options.minibatch_size,
            LOSS,
            bucket_mb=options.bucket_mb,
        )
        held.callback(peer.close)
        ways: dict[str, Callable[[int], None]] = {
            way: partial(_take_steps, group, rows, options.minibatch_size)
            for way, group in {**groups, SERVER: server}.items()
        }
        ways[PEER] = peer.take_steps
        for take_steps in ways.values():
            take_steps(10)
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}: steps")
            for way, take_steps in ways.items():
                began_s = time.perf_counter()
                take_steps(options.steps)
                found.setdefault(way, []).append((time.perf_counter() - began_s) / options.steps)
    return found


def _buckets(spec: PolicySpec, bucket_mb: float) -> dict[str, float]:
    """MiB of a bucket, by the way of summing up; where a gradient needs several, once with a single one, too."""
    whole_mb = sum(4 * math.prod(shape) for shape in spec.array_shapes().values()) / (1 << 20)
    return {ALL_REDUCE: bucket_mb, **({WHOLE: whole_mb} if bucket_mb < whole_mb else {})}


@contextmanager
def _session(options: Options, *, preload: Sequence[str] = ()) -> Iterator[ExitStack]:
    """A session, and what is let go before it ends."""
    shoal.init(num_cpus=2 * options.learners, preload=preload)
    try:
        with ExitStack() as held:
            yield held
    finally:
        shoal.shutdown()


def _take_steps(learner: Learner, rows: Mapping[str, np.ndarray], size: int, count: int) -> None:
    """So many steps, as in the epochs of an iteration."""
    columns, shuffle = learner.to_device(rows), np.random.default_rng(1)
    epochs = (minibatches(columns, size, shuffle) for _ in itertools.count())
    cut = itertools.islice(itertools.chain.from_iterable(epochs), count)
    learner.means([learner.update(minibatch, LOSS) for minibatch in cut])


def fit_times(options: Options) -> dict[str, list[float]]:
    """Seconds until the loss is that of staleness 0 after its steps, by each way, in each round."""
    spec = _spec((64, 64))
    found: dict[str, list[float]] = {TOGETHER: [], BOUNDED: [], UNBOUNDED: []}
    with _session(options):
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}: a straggler")
            goal = -math.inf
            for way, times in found.items():
                seconds, goal = _fit(spec, way, options, goal)
                times.append(seconds)
    return found


def _fit(spec: PolicySpec, way: str, options: Options, goal: float) -> tuple[float, float]:
    """Fit until the loss is the goal, or, together, for as many steps as told; seconds, and the loss or the goal."""
    weights = initial_weights(spec, 0)
    rng = np.random.default_rng(2)
    other = _rows(rng, _OTHER_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        make = partial(straggling, spec, Path(folder, "slow"))
        bound = _BOUND if way == BOUNDED else None
        kind = LearnerGroup if way == TOGETHER else partial(AsynchronousLearners, staleness=bound)
        group = kind(
            spec, weights, make, options.learners, learning_rate=_RATE, epsilon=_EPSILON, max_grad_norm=_MAX_NORM
        )
        try:
            at_once = {**LOSS, "seconds": 0.0}  # so that all have started
            group.means([group.update(_rows(rng, _FIT_ROWS), at_once) for _ in range(options.learners)])
            began_s = time.perf_counter()
            for step in itertools.count(1):
                group.update(_rows(rng, _FIT_ROWS), {**LOSS, "seconds": _ROW_S})
                if way == TOGETHER and step == options.fit_steps:
                    return time.perf_counter() - began_s, _loss(group, other)
                if way != TOGETHER and step % 5 == 0 and _loss(group, other) <= goal:
                    return time.perf_counter() - began_s, goal
        finally:
            group.close()
    raise AssertionError("count() has no end")


def _loss(group: LearnerGroup | AsynchronousLearners, rows: Mapping[str, np.ndarray]) -> float:
    """The critic's mean squared error on these rows, with the weights as they are."""
    policy = Policy(group.weights(0))
    values = policy.values({"observation": rows["observations/observation"]}, policy.initial_states(_OTHER_ROWS))
    return float(np.square(values - rows["returns"]).mean())


def in_torch(spec: PolicySpec) -> GradientLearner:
    """A learner of torch's, of one thread."""
    import torch

    torch.set_num_threads(1)
    return TorchLearner(ActorCritic(spec, 0), ppo_loss, _adam, device=torch.device("cpu"), max_grad_norm=_MAX_NORM)


def policy_and_adam(spec: PolicySpec) -> tuple[ActorCritic, torch.optim.Optimizer]:
    """What that learner learns and with what, for the peer."""
    policy = ActorCritic(spec, 0)
    return policy, _adam(list(policy.nets.parameters()))


def _adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    import torch

    return torch.optim.Adam(parameters, lr=_RATE, eps=_EPSILON, fused=True)


def straggling(spec: PolicySpec, marker: Path) -> GradientLearner:
    """A learner whose gradients take as long as the settings of the loss say for each row; whoever is made first in the
    place of the marker is slow.
    """

    class Sleeping(NumpyLearner):
        def gradients(
            self,
            minibatch: Mapping[str, Any],
            settings: Mapping[str, float],
            *,
            final_from: Callable[[np.ndarray, int], None] | None = None,
        ) -> tuple[np.ndarray, Metrics]:
            time.sleep(settings["seconds"] * len(minibatch["returns"]) * factor)
            return super().gradients(minibatch, settings, final_from=final_from)

    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        factor = SLOWER
    except FileExistsError:
        factor = 1
    return Sleeping(
        spec,
        initial_weights(spec, 0),
        ppo_gradients,
        learning_rate=_RATE,
        epsilon=_EPSILON,
        max_grad_norm=_MAX_NORM,
    )


def _spec(hidden_sizes: tuple[int, ...]) -> PolicySpec:
    """As HalfCheetah's."""
    box = spaces.Box(-1.0, 1.0, (17,), np.float32)
    actions = spaces.Box(-1.0, 1.0, (6,), np.float32)
    return policy_spec("toy", box, actions, NetworkSettings(hidden_sizes=hidden_sizes))


def _rows(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Rows whose returns are a function of the observations, and whose actions are neither good nor bad."""
    observations = rng.standard_normal((count, 17)).astype(np.float32)
    return {
        "observations/observation": observations,
        "actions": rng.standard_normal((count, 6)).astype(np.float32),
        "log_probs": np.full(count, -9.0, np.float32),
        "advantages": np.zeros(count, np.float32),
        "returns": np.sin(observations[:, 0] + 2.0 * observations[:, 1]) + observations[:, 2] * observations[:, 3],
    }


#: Ways of taking steps, and of fitting.
ALL_REDUCE, WHOLE, SERVER = "allreduce", "allreduce, the gradient as a whole", "parameter server"
PEER = "torch DistributedDataParallel, gloo"
TOGETHER, BOUNDED, UNBOUNDED = "staleness 0", f"staleness {_BOUND}", "staleness None"


def step_table(medians: Mapping[str, float]) -> list[list[str]]:
    """A head, and a line for each way."""
    peer = medians[PEER]
    lines = [[way, f"{1000 * took:.2f} ms", f"{took / peer:.2f}"] for way, took in medians.items()]
    return [["learners that agree by", "a step", "of the peer's"], *lines]


def step_verdict(medians: Mapping[str, float]) -> str:
    """Whether all-reduce costs no more than it may."""
    ratio = medians[ALL_REDUCE] / medians[PEER]
    goal = f"goal: allreduce at most {STEP_GOAL:g} times DistributedDataParallel's step"
    return f"{goal}: {'met' if ratio <= STEP_GOAL else 'missed'} ({ratio:.2f})"


def fit_table(medians: Mapping[str, float]) -> list[list[str]]:
    """A head, and a line for each way."""
    together = medians[TOGETHER]
    lines = [[way, f"{took:.2f} s", f"{took / together:.2f}"] for way, took in medians.items()]
    return [[f"one learner {SLOWER} times slower", "to the same loss", "of staleness 0"], *lines]


def fit_verdict(medians: Mapping[str, float]) -> str:
    """Whether the bound brings what it should."""
    ratio = medians[BOUNDED] / medians[TOGETHER]
    return f"goal: at most {FIT_GOAL:g} of the time: {'met' if ratio <= FIT_GOAL else 'missed'} ({ratio:.2f})"
