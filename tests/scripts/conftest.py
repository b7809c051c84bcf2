"""A small algorithm that learns nothing, for the tests of the commands: it starts no process and needs no core."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import shoal
from shoal import algorithms
from shoal.rllib.config import AlgorithmConfig, ConfigError, to_dict
from shoal.rllib.policies.policy_spec import PolicySpec
from shoal.rllib.policies.spaces import ActionSpec, InputColumn, ObservationSpec
from shoal.rllib.rollouts.evaluation import Evaluation
from shoal.rllib.training.checkpoints import Checkpoint
from shoal.rllib.training.evaluator import Evaluated
from shoal.rllib.training.loggers import read_csv
from shoal.scripts.train import main as shoal_train


@dataclass(frozen=True, kw_only=True)
class SampleConfig(AlgorithmConfig):
    """Settings of the double."""

    rollout_steps: int = 10
    """Steps of an iteration."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths."""

    anneal: bool = True
    """Let it fall."""

    target_kl: float | None = None
    """Stop early."""


@dataclass
class Story:
    """What happened to the doubles of a test, and what is to happen."""

    events: list[str] = field(default_factory=list)
    on_step: Callable[[int], None] = lambda steps: None
    on_evaluate: Callable[[], None] = lambda: None
    on_start: Callable[[], None] = lambda: None
    incidents: tuple[str, ...] = ()
    bonus: Callable[[int], float] = lambda steps: 0.0
    algorithm: Any = None


class Sample:
    """Counts steps; its return is the number of steps. Its policy pushes the pole where it falls."""

    name: ClassVar[str] = "sample"
    Config: ClassVar[type[AlgorithmConfig]] = SampleConfig
    story: ClassVar[Story]

    def __init__(self, config: SampleConfig) -> None:
        self.story.events.append(f"start with {config.num_workers} workers")
        self.story.on_start()
        self.config = config
        self.steps = self.iteration = 0
        self.incidents: list[str] = []
        self.begun: list[Evaluated] = []

    @property
    def is_done(self) -> bool:
        return self.steps >= self.config.total_steps

    def step(self) -> dict[str, float]:
        self.steps += self.config.rollout_steps
        self.iteration += 1
        self.story.on_step(self.steps)
        self.incidents += self.story.incidents
        return {
            "steps": self.steps,
            "iteration": self.iteration,
            "return_mean": float(self.steps),
            "episode_length_mean": 5.0,
            "learner/loss": 1 / self.steps,
        }

    def evaluate(self, episodes: int) -> Evaluation:
        self.story.events.append(f"evaluate {episodes} at {self.steps}")
        self.story.on_evaluate()
        bonus = self.story.bonus(self.steps)
        return Evaluation(returns=tuple(n + bonus for n in range(episodes)), lengths=(1,) * episodes)

    def begin_evaluation(self, episodes: int, *, films: bool = False) -> None:
        self.begun.append(Evaluated(self.steps, self.evaluate(episodes)))

    def evaluations(self, *, wait: bool = False) -> list[Evaluated]:
        finished, self.begun = self.begun, []
        return finished

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            algorithm=self.name,
            config=to_dict(self.config),
            counters={"steps": self.steps, "iteration": self.iteration},
            tensors={"policy": {"weight": np.full(2, self.steps)}},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        self.story.events.append(f"restore {checkpoint.counters['steps']}")
        self.steps, self.iteration = int(checkpoint.counters["steps"]), int(checkpoint.counters["iteration"])

    def close(self) -> None:
        self.story.events.append("close")

    @staticmethod
    def policy_from(_checkpoint: Checkpoint) -> "Reflex":
        return Reflex()


class Reflex:
    spec = PolicySpec(
        ObservationSpec((InputColumn("observation", "numbers", (4,), is_normalizable=True),)),
        ActionSpec((True,), (2,), (0,)),
    )

    def act(
        self,
        observations: dict[str, np.ndarray],
        states: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        *,
        deterministic: bool,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        pole = observations["observation"]
        return (pole[:, 2:3] > 0).astype(np.int64), np.zeros((len(pole), 0))


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    """The double is the only algorithm, the core only notes that it is started and shut down."""
    Sample.story = Story(algorithm=Sample)

    def load(name: str) -> type[Sample]:
        if name != "sample":
            raise ConfigError(f"unknown algorithm {name!r}: choose from sample")
        return Sample

    monkeypatch.setattr(algorithms, "load", load)
    monkeypatch.setattr(algorithms, "config_class", lambda name: load(name).Config)
    monkeypatch.setattr(algorithms, "NAMES", ("sample",))
    monkeypatch.setattr(shoal, "init", lambda **_: Sample.story.events.append("init"), raising=False)
    monkeypatch.setattr(shoal, "shutdown", lambda: Sample.story.events.append("shutdown"), raising=False)
    return Sample.story


@pytest.fixture
def run_dir(tmp_path: Path, story: Story) -> Path:
    """Where a run of the double leaves what it does."""
    return tmp_path / "run"


@pytest.fixture
def train(story: Story) -> Callable[..., int]:
    """`shoal train` with the double, for 50 steps; gives the exit code."""

    def start(run_dir: Path | str, *flags: str) -> int:
        return shoal_train(["--algo", "sample", "--total-steps", "50", "--run-dir", str(run_dir), *flags])

    return start


@pytest.fixture
def saved_steps() -> Callable[[Path], list[int]]:
    """After which steps a run has saved checkpoints that are kept, but for the best."""

    def read(run_dir: Path) -> list[int]:
        return sorted(int(place.name.removeprefix("step_")) for place in (run_dir / "checkpoints").glob("step_*"))

    return read


@pytest.fixture
def logged_steps() -> Callable[[Path], list[int]]:
    """The steps in the rows of iterations of a run's progress.csv."""

    def read(run_dir: Path) -> list[int]:
        return [int(row["steps"]) for row in read_csv(run_dir / "progress.csv") if row["iteration"]]

    return read
