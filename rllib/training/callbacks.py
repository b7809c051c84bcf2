"""A user's own code in a training run: `on_iteration`, `on_evaluation`, `on_checkpoint`, `on_end`.

Override what you need of `Callback`; the rest does nothing. `shoal train --callback my_module:MyCallback` makes one
(a class or a function is called without arguments, anything else is taken as it is), `run(..., callbacks=[...])` in
`scripts/train.py` takes them as they are. They run in the driver, between iterations, in the order in which they were
given; what one raises ends the run as `CallbackFailure`, after the last checkpoint was told.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rollouts.evaluation import Evaluation

if TYPE_CHECKING:
    from ..trainable import Trainable


class CallbackFailure(RuntimeError):  # noqa: N818 - reads as what it says
    """A callback raised. The text names it, and holds its own traceback; the exception is the `__cause__`."""


class UnknownCallback(ValueError):  # noqa: N818 - reads as what it says
    """No callback has this name, or it could not be made. One line of text."""


class Callback:
    """Does nothing at each of the points; override what you need."""

    def on_iteration(self, algorithm: Trainable, row: dict[str, float]) -> bool | None:
        """After each iteration.

        Args:
          algorithm: What trains; between two steps, so it may be asked and saved.
          row: What the logs get of the iteration. Numbers that are added go into the logs, too.

        Returns:
          True ends training here, as if all its steps were done.
        """

    def on_evaluation(self, algorithm: Trainable, steps: int, evaluation: Evaluation) -> None:
        """After each evaluation; those beside training are of a policy of some iterations before.

        Args:
          algorithm: What trains.
          steps: Environment steps that the policy had learned from.
          evaluation: What it earned.
        """

    def on_checkpoint(self, algorithm: Trainable, place: Path) -> None:
        """After a checkpoint was written to the folder ``place``."""

    def on_end(self, algorithm: Trainable) -> None:
        """When training is over, interrupted or done, and all is written. Not after an error."""


def load(name: str) -> Callback:
    """The callback that ``module:attribute`` names.

    Raises:
      UnknownCallback: there is no such module or attribute, it cannot be made, or it is no ``Callback``.
    """
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise UnknownCallback(f"callback {name!r} is no module:attribute, as in my_module:MyCallback")
    try:
        found: object = getattr(importlib.import_module(module_name), attribute)
        made = found() if callable(found) and not isinstance(found, Callback) else found
    except AttributeError as error:
        raise UnknownCallback(f"callback {name!r} cannot be made: {error}") from error
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UnknownCallback(f"callback {name!r} cannot be made: {told}") from error
    if not isinstance(made, Callback):
        raise UnknownCallback(
            f"callback {name!r} is a {type(made).__name__}, and no shoal.rllib.training.callbacks.Callback"
        )
    return made


class Callbacks:
    """Several callbacks called as one; see ``Callback`` for the points."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_iteration(self, algorithm: Trainable, row: dict[str, float]) -> bool:
        """Whether one of them wants training to end here; all are asked."""
        is_over = False
        for callback in self._callbacks:
            is_over |= self._call(callback, "on_iteration", algorithm, row) is True
            left: Mapping[str, object] = row
            for name, value in left.items():
                if not isinstance(value, Real):  # the logs take nothing else; numpy's numbers are real ones, too
                    told = f"callback {type(callback).__qualname__}: its on_iteration left row[{name!r}] as"
                    raise CallbackFailure(f"{told} a {type(value).__name__}: rows hold numbers")
        return is_over

    def on_evaluation(self, algorithm: Trainable, steps: int, evaluation: Evaluation) -> None:
        for callback in self._callbacks:
            self._call(callback, "on_evaluation", algorithm, steps, evaluation)

    def on_checkpoint(self, algorithm: Trainable, place: Path) -> None:
        for callback in self._callbacks:
            self._call(callback, "on_checkpoint", algorithm, place)

    def on_end(self, algorithm: Trainable) -> None:
        for callback in self._callbacks:
            self._call(callback, "on_end", algorithm)

    @staticmethod
    def _call(callback: Callback, point: str, *arguments: Any) -> Any:
        try:
            return getattr(callback, point)(*arguments)
        except Exception as error:
            own_traceback = "".join(traceback.format_exception(error)).rstrip()
            told = f"callback {type(callback).__qualname__}: its {point} raised {type(error).__name__}"
            raise CallbackFailure(f"{told}: {error}\n{own_traceback}") from error
