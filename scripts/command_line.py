"""Flags from typed dataclasses, and bad input told in one line.

`parse` lets tyro read a dataclass from the arguments and turns whatever tyro has to say against them, which it draws as
boxes, into one line with the valid choices. `run_command` is the frame of every command: it turns what users can do
wrong into that line on stderr and exit code 2, an environment's own failure into the environment's own traceback, what
can go wrong with a run (a full disk, a dead process) into a line and exit code 1, and Ctrl-C into a clean message.
Everything else keeps its traceback: then the fault is ours.

Used by the commands in this folder. Of training it knows only the errors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import math
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from shoal import exceptions
from shoal.envs.columns import UnsupportedSpace
from shoal.envs.registry import MissingLibrary, UnknownEnvironment
from shoal.envs.vector import EnvFailure
from shoal.rllib.config import ConfigError
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.training.callbacks import CallbackFailure, UnknownCallback
from shoal.rllib.training.checkpoints import CheckpointError
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts.standard_streams import OutputError, make_ready, printing, say

T = TypeVar("T")

#: Exit codes. Bad input is 2 as everywhere on Unix; a process ended by signal N counts as 128 + N.
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

NEWLINE = "\n"
#: Escape sequences by which a terminal sets colours.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


#: What Python and tyro say of wrong values, and how users would say it.
_IN_PLAIN_WORDS = (
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"Could not find valid parse for arguments: \[(.*)\]", r"cannot be read from \1"),
    (r"no type matching .* could be instantiated from \[(.*)\]\.?", r"cannot be read from \1"),
    (r"Missing value for argument '(.*?)'\. Expected \d+ values?\.", r"\1 needs a value behind it"),
    (r"^Missing from (shoal \w+): ([A-Z_]+) (.*?)\.? \(required\)$", r"\2 is missing, as in `\1 \2`: \3"),
)


class UsageError(ValueError):
    """The command was called wrongly. One line of text: what is wrong, and what to write instead."""


class RunDirectoryError(RuntimeError):
    """A run directory cannot be written or read any more: the disk is full, the folder is gone. One line of text."""


class Stopped(RuntimeError):  # noqa: N818 - reads as what it says
    """Training ended before its time; the ``__cause__`` says why, the text what is saved and how to go on."""


def parse(options: type[T], arguments: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """Read `arguments` into the dataclass `options`, nested dataclasses included.

    Args:
      options: a dataclass; docstrings under its fields become the help.
      arguments: what stood on the command line.
      prog: how the command is called, for the help.
      description: first paragraph of the help.
      default: values of flags that are not given; None takes the dataclass's own.

    Returns:
      An instance of `options`.

    Raises:
      UsageError: a flag is unknown, its value is of the wrong type or missing, or a number that is not finite.
      SystemExit: with 0, after `--help` was printed.
    """
    known = flags(options)
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") not in (*known, "--help"):
            raise UsageError(_unknown(flag, known))
    told = io.StringIO()
    more: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(told), printing():
            parsed: T = tyro.cli(options, prog=prog, description=description, args=arguments, **more)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_headline(told.getvalue())) from None
    _check_finite(parsed)
    return parsed


def _check_finite(options: Any) -> None:
    """Refuse NaN, which passes every comparison that looks for what is out of range, and what never ends."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            _check_finite(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{field.name.replace('_', '-')} must be a finite number, not {value}")


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What stands behind a flag, before the rest of the command line can be understood; None if nothing does.

    As `parse` does, it takes the last of several.
    """
    found = None
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            found = argument.partition("=")[2]
        elif argument == flag:
            behind = arguments[position + 1 : position + 2]
            if behind and not behind[0].startswith("--"):
                found = behind[0]
    return found


def flags(options: Any) -> list[str]:
    """Every flag that `parse` knows for a dataclass, in the order of its fields; not the positional ones."""
    origin = typing.get_origin(options) or options
    types = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(options), strict=False))
    hints = typing.get_type_hints(origin, include_extras=True)
    found = []
    for field in dataclasses.fields(origin):
        annotation, *markers = _taken_apart(hints[field.name])
        if tyro.conf.Positional in markers:
            continue
        annotation = types.get(annotation, annotation)
        name = f"--{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(annotation):
            found += flags(annotation)
        elif annotation is bool:
            found += [name, f"--no-{name[2:]}"]
        else:
            found.append(name)
    return found


def _taken_apart(annotation: Any) -> tuple[Any, ...]:
    """The type and the markers of an `Annotated`; a plain type alone."""
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Annotated else (annotation,)


def run_command(prog: str, body: Callable[[], int]) -> int:
    """Run a command's body and turn what went wrong into words and an exit code.

    Args:
      prog: how the command is called; starts the line on stderr.
      body: does the work and returns an exit code. It cleans up behind itself.

    Returns:
      The exit code for the process.
    """
    # `--env my_games:Maze` shall find my_games.py in the folder where the user stands, as with `python -m`. At the end
    # of the path, so that nothing there can stand before a library.
    make_ready()
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        say(f"{prog}: the folder that you are in has been deleted: go to another")
        return BAD_INPUT
    if not {"", here} & set(sys.path):
        sys.path.append(here)
    try:
        code = body()
        with printing():
            pass  # what the body printed outside of such a block is now at its reader's
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else DONE
    except KeyboardInterrupt as interrupt:
        say(f"{prog}: {str(interrupt) or 'interrupted'}")
        return INTERRUPTED
    except Exception as error:
        if _came_of_an_interrupt(error):
            say(f"{prog}: interrupted")
            return INTERRUPTED
        verdict = _verdict(error)
        if verdict is None:
            raise
        code, text = verdict
        if text:
            say(f"{prog}: {text}")
    return code


def _came_of_an_interrupt(error: BaseException | None) -> bool:
    """Whether a library has made an error of its own of what Ctrl-C has raised in it, as torch does in its export."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _verdict(error: BaseException | None) -> tuple[int, str] | None:
    """The exit code and the words for an error that a user can do something about; None for a fault of ours."""
    one_line = " ".join(str(error).split())
    if isinstance(error, Stopped):
        reason = _verdict(error.__cause__)
        return reason and (reason[0], f"{reason[1]}{NEWLINE if NEWLINE in reason[1] else '; '}{one_line}")
    if isinstance(error, UsageError | ConfigError | UnknownCallback | CheckpointError):
        return BAD_INPUT, one_line
    if isinstance(error, UnknownEnvironment | MissingLibrary | UnsupportedSpace):
        return BAD_INPUT, one_line
    if isinstance(error, exceptions.EngineUnavailableError):
        return BAD_INPUT, one_line
    if isinstance(error, EnvFailure | CallbackFailure):
        return BAD_INPUT, str(error)
    if isinstance(error, DivergedError | WorkerLostError):
        return FAILED, str(error)
    if isinstance(error, MemoryError):
        return FAILED, f"there is not enough memory: {one_line or 'it is used up'}"
    if isinstance(error, OutputError | RunDirectoryError | exceptions.HeadDiedError | exceptions.SessionError):
        return FAILED, one_line
    return None


def _headline(box: str) -> str:
    """What a box that tyro drew complains of, on one line: `--num-workers INT: invalid literal for int() ...`."""
    lines = [line.strip().strip("│|").strip() for line in COLOUR.sub("", box).splitlines()]
    words: list[str] = []
    for line in lines[1:]:  # the first is the title
        if set(line) <= set("─-╰╯"):  # a rule; where the terminal has no lines to draw, one stands below the title too
            if words:
                break
            continue
        words += line.split()
    message = " ".join(words)
    for pattern, plain in _IN_PLAIN_WORDS:
        message = re.sub(pattern, plain, message)
    about = re.match(r"Error parsing (?P<what>[^:]+): (?P<reason>.*)", message)
    if about is None:
        return message
    if not about["what"].startswith("-"):  # the name of our class says nothing to a user
        return about["reason"]
    # Further down the box explains the flag, beginning with what it wants.
    usage = next((line for line in lines if line.startswith(f"{about['what']} ")), about["what"])
    return f"{usage}: {about['reason']}"


def _unknown(flag: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(flag.replace("_", "-"), known, n=2)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return f"unknown flag {flag}{hint}; there are these: {', '.join(known)}"
