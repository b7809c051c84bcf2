"""What user code has left behind: its return value as so many objects, or the end of a process that it forked.

Used by every engine that runs user code (execution.py in workers, engines/inline/runs.py here and now).
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Generator
from itertools import islice
from typing import Any, NoReturn

from ..errors import ActorDiedError, TaskError
from ..serialization import values
from ..serialization.values import Serialized


def parts_of(result: Any, count: int) -> list[Serialized]:
    """What a piece of work returned, as `count` values.

    Raises:
      ValueError: it returned another number of them.
      TypeError: it returned no sequence, or one of them cannot be pickled.
    """
    if count == 0:
        return []
    if inspect.isgenerator(result):
        return _first_of(result, count)
    if count == 1:
        return [values.serialize(result)]
    try:
        parts = list(result)
    except TypeError:
        raise TypeError(f"num_returns={count}, but the task returned one {type(result).__name__}") from None
    if len(parts) != count:
        raise ValueError(f"num_returns={count}, but the task returned {len(parts)} values")
    return [values.serialize(part) for part in parts]


def _first_of(generator: Generator[Any, Any, Any], count: int) -> list[Serialized]:
    """The first `count` items of a generator; what it has more is not asked for."""
    parts = [values.serialize(item) for item in islice(generator, count)]
    generator.close()
    if len(parts) < count:
        raise ValueError(f"num_returns={count}, but the generator yielded {len(parts)} values")
    return parts


def stillborn(description: str, actor_id: bytes, error: BaseException, *, ran: bool) -> ActorDiedError:
    """Why an actor has never lived.

    Args:
      error: as it travels, a `TaskError`.
      ran: its ``__init__`` raised it; otherwise one of the arguments could not be had because of it.
    """
    assert isinstance(error, TaskError), "serialize_failure makes nothing else"
    why = "its __init__ raised" if ran else "its __init__ did not run, one of its arguments could not be had"
    return ActorDiedError(
        f"{description} is dead: {why}\n{error.traceback_str}", actor_id=actor_id.hex(), actor_init_failed=True
    )


def exit_code(leaving: SystemExit) -> int:
    """The code with which Python would end a script that raised this."""
    return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1


def end_fork(error: BaseException | None) -> NoReturn:
    """End a process that user code has forked and that has come back into the runtime: what follows is its parent's.

    Its exit code is what it would have been in a script of its own.
    """
    code = 0
    if isinstance(error, SystemExit):
        code = exit_code(error)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
