"""The newest weights of each policy, written down, so that a server that is killed goes on with them.

    FOLDER/walker/     a checkpoint (``training/checkpoints.py``) of weights and what observations are normalised by

A folder belongs to one server. What is in it is whole or not there; what is damaged is as good as not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from ..rllib.policies.normalization import ObservationNormalizer
from ..rllib.policies.policy_spec import PolicySpec
from ..rllib.policies.weights import Weights
from ..rllib.training import checkpoints
from ..rllib.training.checkpoints import Checkpoint, CheckpointError

#: Names of the numbers of what a column is normalised by, behind the column's name.
_MEAN, _SCALE = ".mean", ".scale"


class Journal:
    """The folder.

    Args:
      folder: It need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, weights: Weights) -> None:
        """Keep these instead of the ones before.

        Args:
          name: Of the policy.
          weights: What it acts with now.

        Raises:
          OSError: the folder cannot be written.
        """
        numbers = {f"{column}{_MEAN}": each.mean for column, each in weights.normalizers.items()}
        numbers |= {f"{column}{_SCALE}": each.scale for column, each in weights.normalizers.items()}
        checkpoint = Checkpoint(
            algorithm="served",
            config={},
            counters={"iteration": weights.version},
            tensors={"policy": dict(weights.arrays), "normalizers": numbers},
            extra={"policy_spec": weights.spec.to_dict()},
        )
        checkpoints.save(checkpoint, self._folder / quote(name, safe=""))

    def read(self) -> Iterator[tuple[str, Weights | CheckpointError]]:
        """Each policy, and what was kept of it; or why it cannot be read."""
        if not self._folder.is_dir():
            return
        for place in sorted(self._folder.iterdir()):
            if place.name.startswith(checkpoints.ASIDE):
                continue  # the server was killed while it wrote
            try:
                yield unquote(place.name), _weights(checkpoints.load(place))
            except CheckpointError as error:
                yield unquote(place.name), error


def _weights(checkpoint: Checkpoint) -> Weights:
    try:
        spec = PolicySpec.from_dict(checkpoint.extra["policy_spec"])
        numbers = checkpoint.tensors["normalizers"]
        columns = [name.removesuffix(_MEAN) for name in numbers if name.endswith(_MEAN)]
        normalizers = {name: ObservationNormalizer(numbers[name + _MEAN], numbers[name + _SCALE]) for name in columns}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"what was kept of a policy lacks {error}") from error
    arrays = checkpoint.group("policy", spec.array_shapes())
    return Weights(checkpoint.counter("iteration"), spec, arrays, normalizers)
