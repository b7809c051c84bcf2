"""What of an algorithm is in a checkpoint besides counters, by name; and reading it again, believing nothing.

    policy, optimizer, episodes     tensors of the learner, returns and lengths of the last episodes
    normalization_NAME              tensors of the statistics of observations and of rewards
    environments                    tensors: where each environment copy stood, see ``envs/replay.py``
    policy_spec, schedules          plain values

All failures are ``CheckpointError``s that name what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...envs.replay import State, split_state
from ..policies.normalization import ObservationMoments, ObservationNormalizer, RewardScaler
from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights
from .checkpoints import Checkpoint, CheckpointError

#: Group of tensors of a checkpoint that holds the state of the environments.
ENVIRONMENTS = "environments"


def group_of(name: str) -> str:
    """The group of tensors of the statistics called so."""
    return f"normalization_{name}"


def shapes_of(normalizer: ObservationMoments | RewardScaler) -> dict[str, tuple[int | None, ...]]:
    """The shapes of what ``arrays`` gives; None where any length will do."""
    shapes: dict[str, tuple[int | None, ...]] = {name: array.shape for name, array in normalizer.arrays().items()}
    return shapes | {"returns": (None,)} if isinstance(normalizer, RewardScaler) else shapes


def schedules_from(checkpoint: Checkpoint, expected: Iterable[str]) -> dict[str, float]:
    """The numbers of these schedules."""
    saved = checkpoint.extra.get("schedules")
    if not isinstance(saved, dict) or not all(isinstance(saved.get(name), int | float) for name in expected):
        raise CheckpointError(f"the checkpoint's schedules are {saved!r}; there must be {', '.join(expected)}")
    return {name: float(saved[name]) for name in expected}


def environments_from(checkpoint: Checkpoint) -> State | None:
    """Where all copies stood; None if it does not tell."""
    state = checkpoint.tensors.get(ENVIRONMENTS)
    if state is None:
        return None
    try:
        split_state(state, [len(state["length"])])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's tensors {ENVIRONMENTS!r} are no state ({error})") from error
    return state


def weights_from(checkpoint: Checkpoint) -> Weights:
    """The policy's numbers, with what observations are normalised by."""
    try:
        spec = PolicySpec.from_dict(checkpoint.extra["policy_spec"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint of {checkpoint.algorithm!r} holds no policy: its policy_spec is missing or lacks {error}"
        ) from error
    arrays = checkpoint.group("policy", spec.array_shapes())
    normalizers: dict[str, ObservationNormalizer] = {}
    if group_of("observations") in checkpoint.tensors:
        moments = ObservationMoments(spec.observations.normalizable_shapes)
        moments.load(checkpoint.group(group_of("observations"), shapes_of(moments)))
        normalizers = moments.normalizers()
    return Weights(checkpoint.counter("iteration"), spec, arrays, normalizers)
