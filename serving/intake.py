"""What policies are made of, and whether it can be served.

    a model, weights, a checkpoint, a run directory --made--> a model that is known to act | RefusedError

All versions of a policy take the same observations, give the same actions and have states of the same size. A version
that does not, that cannot be read, or that gives no numbers for an observation of zeros, is refused before anybody asks
it anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..rllib.inference.inference import ActingPolicy
from ..rllib.policies.policy import Policy
from ..rllib.policies.torch_policy import TorchPolicies
from ..rllib.policies.weights import Weights
from ..rllib.training import checkpoints, saved_state
from ..rllib.training.checkpoints import CheckpointError
from .models import Model, PolicyModel, Rows
from .policies import PolicyTable
from .serving_settings import ServingSettings
from .spaces import Space, columns_of

#: What a policy can be made of: what acts, its weights, or where a checkpoint or a run directory is.
Source = Model | Weights | str | Path


class Intake:
    """Makes models for one server.

    Args:
      table: What is served; refusals are noted there.
      models: Name -> version -> what acts, shared with the server.
      settings: Of the server.
      spaces: Name -> observation space (without a mask) and action space of policies that the shape of weights would
        tell less of: bounds, names of the parts of an action.

    Raises:
      ConfigError: the settings' device is not there.
    """

    def __init__(
        self,
        table: PolicyTable,
        models: Mapping[str, Mapping[int, Model]],
        settings: ServingSettings,
        spaces: Mapping[str, tuple[Space, Space]],
    ) -> None:
        self._given = spaces
        self._table, self._models, self._seed = table, models, settings.seed
        device = settings.device
        self._make: Callable[[Weights], ActingPolicy] = Policy if device == "cpu" else TorchPolicies(device)

    def made(self, name: str, source: Source, version: int | None) -> tuple[Model, int | None, str]:
        """What acts, its number and where it came from; looked at before anybody asks it. In any thread.

        Raises:
          RefusedError, CheckpointError: it cannot be served.
        """
        told, number = "a model", version
        if isinstance(source, str | Path):
            told = str(source)
            try:
                place = checkpoint_at(Path(source))
                told = str(place)
                source = saved_state.weights_from(checkpoints.load(place))
            except CheckpointError as error:
                raise self._table.refuse(name, told, str(error)) from error
        elif isinstance(source, Weights):
            told = "weights"
        if isinstance(source, Weights):
            number = self._number_of(name, source) if version is None else version
            try:
                spaces = self._spaces(name, source)
                source = PolicyModel(source, make=self._make, spaces=spaces, seed=self._seed)
            except ValueError as error:
                raise self._table.refuse(name, told, str(error)) from error
        if reason := self._unfit(name, source):
            raise self._table.refuse(name, told, reason)
        return source, number, told

    def _spaces(self, name: str, weights: Weights) -> tuple[Space, Space] | None:
        """Those of the policy, which may say more than the shape of such weights does; None if these are others."""
        if not self._models.get(name):
            return self._given.get(name)
        present = self._models[name][self._table.front(name)]
        if not isinstance(present, PolicyModel):
            return None
        its, mine = present.spec, weights.spec
        fits = (its.observations, its.actions) == (mine.observations, mine.actions)
        return (present.observation_space, present.action_space) if fits else None

    def _number_of(self, name: str, weights: Weights) -> int | None:
        """The version of weights as the policy's, if it is newer than those before."""
        known = [each.number for each in self._table.versions(name)] if self._models.get(name) else []
        return weights.version if weights.version > max(known, default=-1) else None

    def _unfit(self, name: str, model: Model) -> str:
        """Why a model cannot be served under this name; "" if it can."""
        if self._models.get(name):
            present = self._models[name][self._table.front(name)]
            for what in ("observation_space", "action_space", "state_size", "tells"):
                mine, its = getattr(model, what), getattr(present, what)
                if mine != its:
                    return f"its {what} is {mine}; the policy that is served has {its}"
        if isinstance(model, PolicyModel):
            try:
                answers = model.act(_trial(model))
            except Exception as error:  # noqa: BLE001 - told as a reason
                return f"it raises {type(error).__name__} on an observation of zeros: {error}"
            if answers.failed is not None or (answers.value is not None and not np.isfinite(answers.value).all()):
                return "it gives numbers that are not finite"
        return ""


def checkpoint_at(place: Path) -> Path:
    """A checkpoint itself, or the newest one of a run directory.

    Raises:
      CheckpointError: there is none.
    """
    return place if (place / checkpoints.MANIFEST).is_file() else checkpoints.latest(place)


def _trial(model: Model) -> Rows:
    """An observation of zeros, or of first choices."""
    columns = {
        name: np.broadcast_to(
            np.reshape(leaf.start, leaf.shape if len(leaf.start) > 1 else ()) if leaf.start else 0, (1, *leaf.shape)
        ).astype(leaf.dtype)
        for name, leaf in columns_of(model.observation_space).items()
    }
    states = np.zeros((1, model.state_size), np.float32)
    return Rows(columns, states, None, deterministic=True, wants_log_prob=True, wants_value=True)
