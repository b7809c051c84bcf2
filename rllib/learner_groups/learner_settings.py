"""What a config says of learners that share the work: ``SharingSettings``. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import RolloutConfig, require


@dataclass(frozen=True, kw_only=True)
class SharingSettings:
    """How many learn, and how they agree. The configs of algorithms whose learner may be many are children of this."""

    num_learners: int = 1
    """Learners that share the work. 1 learns in the driver's process; more are actors, each with a process of its own
    that computes on the CPU."""

    sync: Literal["allreduce", "ps"] = "allreduce"
    """How several learners agree. allreduce: each takes a part of every minibatch, they sum up their gradients among
    themselves (torch's gloo) and all take the same step. ps: they push gradients to a parameter server, which takes the
    steps. Both take the steps of one learner, but for the last digits."""

    staleness: int | None = 0
    """For ps. 0: all wait for all in each step. More: each minibatch goes to whoever is free, and who is slow may be so
    many rounds behind; None: as many as may be. Gradients are of older weights then, and the curve is not the same each
    time."""

    num_shards: int = 1
    """For ps: parts of the weights, each in a process of its own that takes their steps; for large nets."""

    bucket_mb: float = 25.0
    """For allreduce: MiB of the gradient that are summed up at once. As soon as so much of it is there, that begins,
    while learners in torch compute the rest; for nets larger than that."""


def check_sharing(sharing: SharingSettings, config: RolloutConfig, *, is_recurrent: bool) -> None:
    """Look at the settings and what does not go with them.

    Args:
      sharing: The settings.
      config: The whole config that they are of.
      is_recurrent: Whether the policy has a memory.

    Raises:
      ConfigError: one is out of range, or cannot be combined with another. One line.
    """
    require(sharing, "num_learners", sharing.num_learners >= 1, "at least 1")
    require(sharing, "num_shards", sharing.num_shards >= 1, "at least 1")
    require(sharing, "staleness", sharing.staleness is None or sharing.staleness >= 0, "None or at least 0")
    many = sharing.num_learners > 1
    agrees = many or sharing.sync == "allreduce"
    require(sharing, "sync", agrees, "allreduce with one learner, which has nobody to agree with")
    served = many and sharing.sync == "ps"
    require(sharing, "staleness", served or sharing.staleness == 0, "0 without several learners that sync by ps")
    require(sharing, "num_shards", served or sharing.num_shards == 1, "1 without several learners that sync by ps")
    require(sharing, "bucket_mb", sharing.bucket_mb > 0.0, "positive")
    sums = many and sharing.sync == "allreduce"
    default = SharingSettings.bucket_mb
    is_usual = sharing.bucket_mb == default
    require(sharing, "bucket_mb", sums or is_usual, f"{default:g} without several learners that sync by allreduce")
    if many:
        single = "for minibatches that are sequences cannot be shared"
        require(sharing, "num_learners", not is_recurrent, f"1 with a recurrent policy, {single}")
        on_cpu = config.device in ("auto", "cpu")
        require(config, "device", on_cpu, "auto or cpu with several learners, which compute on the CPU")
        require(config, "compile", not config.compile, "False with several learners")
