"""What evolution strategies can be told, whichever they are: policy, episodes, workers. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

from ..envs.vector import Checks
from ..rllib.config import require
from ..rllib.evolution.pair_book import Rule
from ..rllib.policies.policy_spec import NetworkSettings

#: A report counts its blocks in 16 bits, see ``rllib/evolution/reports.py``.
_MOST_BLOCKS = 65_000


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """What a config says about candidates and who tries them. The configs of evolution strategies are children of this,
    too.
    """

    population_size: int = 40
    """Candidates of a generation, an even number: each direction of noise is tried with both signs, as a pair."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers; none for a linear policy. Linear ones start from 0."""

    activation: Literal["tanh", "relu", "elu"] = "tanh"
    """What follows each hidden layer."""

    normalize_observations: bool = False
    """Shift and scale observations by the mean and deviation of all seen before this generation."""

    episodes_per_candidate: int = 1
    """Episodes of each candidate, over which its return is averaged."""

    action_noise: float = 0.0
    """Deviation of noise on continuous actions, in the environment's units; 0.01 in Salimans et al. Smooths returns."""

    reward_shift: float = 0.0
    """Taken from the reward of each step before it is learned from: 1 where staying upright earns 1 a step, so that
    doing nothing is worth nothing (Mania et al. 2018)."""

    step_limit: int = 0
    """Steps after which an episode is cut, to begin with; 0: only the environment's own limit. Short episodes first
    save time while all fail."""

    step_limit_share: float = 0.1
    """Share of a generation's episodes at the limit from which on it grows; Salimans et al. let it follow the lengths,
    too."""

    step_limit_growth: float = 1.5
    """What the limit is multiplied by then."""

    noise: Literal["counter", "table"] = "counter"
    """Where noise comes from. counter: a counter-based generator, 6 ns a number. table: slices of one long table, made
    once, which all processes of a machine share; for nets with hundreds of thousands of weights."""

    noise_table_length: int = 2**24
    """Numbers in that table, 4 bytes each."""

    block_size: int = 8
    """Pairs that a worker is asked for at once. It plays their episodes side by side, which saves time beside the
    environments'; small blocks spread better over workers."""

    max_in_flight: int = 2
    """Requests that each worker has in flight: with 2 it need not wait for the next."""

    fan_out: int = 0
    """Most workers, or aggregators, below each aggregator of a tree that joins results and adds up noise; 0: no tree,
    the driver does it. For hundreds of workers."""

    stragglers: Rule = "wait"
    """wait for all pairs of a generation: the same seed gives the same bits. next and discard go on when there are
    population_size candidates, of spare_pairs more; those that come later are used in the next generation, or not."""

    spare_pairs: int = 0
    """Pairs that are tried beyond population_size where nobody waits for stragglers."""

    centre_episodes: int = 1
    """Episodes in each generation that the policy itself plays, without noise: what it earns by now."""

    stop_at_return: float | None = None
    """Stop training when these episodes earn this on average."""

    def check_evolution(self) -> None:
        """Look at the values.

        Raises:
          ConfigError: one is out of range.
        """
        even = self.population_size >= 2 and self.population_size % 2 == 0
        require(self, "population_size", even, "an even number of at least 2: each direction is tried with both signs")
        require(self, "hidden_sizes", min(self.hidden_sizes, default=1) >= 1, "widths of at least 1")
        for field, least in _LEAST.items():
            require(self, field, getattr(self, field) >= least, f"at least {least}")
        require(self, "step_limit_share", 0.0 < self.step_limit_share <= 1.0, "above 0 and at most 1")
        require(self, "step_limit_growth", self.step_limit_growth > 1.0, "above 1")
        require(self, "fan_out", self.fan_out != 1, "0, or at least 2")
        most = 2 * self.block_size * _MOST_BLOCKS
        require(self, "population_size", self.population_size <= most, f"at most {most} in blocks of {self.block_size}")
        if self.stragglers == "wait":
            require(self, "spare_pairs", self.spare_pairs == 0, "0 where stragglers are waited for")
        else:
            # Aggregators join the reports of one generation; stragglers' are of another.
            require(self, "fan_out", self.fan_out == 0, f"0 with stragglers {self.stragglers}: a tree waits for all")
        if self.stop_at_return is not None:
            require(self, "centre_episodes", self.centre_episodes >= 1, "at least 1 with stop_at_return")

    def evolution_settings(self) -> EvolutionSettings:
        """These alone, where this is all of a config."""
        return EvolutionSettings(**{field.name: getattr(self, field.name) for field in fields(EvolutionSettings)})

    @property
    def num_pairs(self) -> int:
        """Of a generation."""
        return self.population_size // 2

    def network_settings(self) -> NetworkSettings:
        """The nets. The critic, of which nothing is asked, has only a head."""
        return NetworkSettings(
            network="mlp", hidden_sizes=self.hidden_sizes, activation=self.activation, shared_value_net=True
        )


class EvolutionConfig(Protocol):
    """What ``Evolution`` reads of a config: child of ``EvolutionSettings`` and of ``AlgorithmConfig``."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def env(self) -> str: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def total_steps(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def checks(self) -> Checks: ...

    def evolution_settings(self) -> EvolutionSettings:
        """See ``EvolutionSettings``."""
        ...


#: Least values.
_LEAST: Mapping[str, float] = {
    "episodes_per_candidate": 1,
    "action_noise": 0.0,
    "step_limit": 0,
    "noise_table_length": 1,
    "block_size": 1,
    "max_in_flight": 1,
    "fan_out": 0,
    "spare_pairs": 0,
    "centre_episodes": 0,
}
