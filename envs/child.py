"""What runs in each process of a ``ParallelVectorEnv``: some environment copies, and an ear on the line to the parent.

Started by ``parallel.py`` as a fresh interpreter. The copies are in groups, each a ``SerialVectorEnv`` on its own rows
of the shared block; a group is stepped when its number comes down the line. Between two steps the process sleeps in the
kernel. It dies with its parent, also in the midst of native code that never returns: the kernel kills it when the
parent's end of a pipe closes, however that comes about.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .arrays import Arrays
from .channel import ANSWER, CALL, DONE, FAILED, TOLD, Channel, ChannelClosed
from .columns import UnsupportedSpace
from .registry import MissingLibrary
from .replay import State
from .seeds import SeedOfEpisode
from .serial import SerialVectorEnv
from .vector import Checks, EnvFailure

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Group:
    """Copies that are stepped together by one process."""

    rows: slice  #: of the shared block
    env_indices: tuple[int, ...]
    first_episodes: tuple[int, ...]


@dataclass(frozen=True)
class Setup:
    """What a process needs to know before anything else."""

    make: Callable[[], gymnasium.Env[Any, Any]]
    groups: tuple[Group, ...]
    seeds: SeedOfEpisode
    worker_index: int | None
    checks: Checks


@dataclass(frozen=True)
class News:
    """What has happened since the last ones."""

    incidents: list[str]
    replaced: int


def main(line: int, lifeline: int, block: int) -> None:
    """Serve until the parent closes the line.

    Args:
      line: Descriptor of this end of the ``Channel``.
      lifeline: Descriptor of the reading end of a pipe whose writing end only the parent has.
      block: Descriptor of the shared block; it has its size when the parent has answered to the spaces.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    die_with(lifeline)
    channel = Channel(socket.socket(fileno=line))
    try:
        _serve(channel, block)
    except ChannelClosed:
        pass  # the parent is done with this process, or gone
    except (EnvFailure, UnsupportedSpace, MissingLibrary) as error:
        _tell(channel, type(error).__name__, str(error))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must say it, and not wait for an answer
        _tell(channel, "RuntimeError", traceback.format_exc().rstrip())


def _tell(channel: Channel, kind: str, text: str) -> None:
    """Say why this process ends, if anybody still listens: an environment may fail while it is closed."""
    with contextlib.suppress(ChannelClosed):
        channel.send_frame(FAILED, (kind, text))


def die_with(lifeline: int) -> None:
    """Have the kernel kill this process when the other end of a pipe closes.

    ``PR_SET_PDEATHSIG`` would do so when the *thread* that started this process ends, which is too early.
    """
    number = signal.SIGKILL
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, number)
    else:  # elsewhere the signal is always SIGIO, which does nothing by itself
        signal.signal(signal.SIGIO, lambda *_: os._exit(1))
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(lifeline, 1) == b"":  # it had closed before anybody listened
            os._exit(1)
    except BlockingIOError:
        pass  # open, as it should be


def _serve(channel: Channel, block: int) -> None:
    with contextlib.ExitStack() as opened:
        groups = _open(channel, block, opened)
        while True:
            command = channel.receive()
            if command == CALL:
                method, arguments = channel.receive_frame()
                channel.send_frame(ANSWER, _CALLS[method](groups, *arguments))
                continue
            envs = groups[command]
            envs.step(envs.arrays.actions)
            if envs.incidents:
                channel.send_frame(TOLD, _news(groups))
            else:
                channel.send(DONE)


def _open(channel: Channel, block: int, opened: contextlib.ExitStack) -> list[SerialVectorEnv]:
    """Make the environments, and tell their spaces to the parent, who then knows how large the block must be."""
    channel.receive()
    setup: Setup = channel.receive_frame()
    shared: list[Arrays] = []

    def arrays(observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], _: int) -> Arrays:
        if not shared:
            channel.send_frame(ANSWER, (observation_space, action_space))
            channel.receive()
            shared.append(Arrays.map(block, observation_space, action_space, channel.receive_frame()))
        return shared[0].rows(setup.groups[len(made)].rows)

    made: list[SerialVectorEnv] = []
    for group in setup.groups:
        made.append(
            SerialVectorEnv(
                setup.make,
                group.env_indices,
                setup.seeds,
                worker_index=setup.worker_index,
                checks=setup.checks,
                arrays=arrays,
                first_episodes=group.first_episodes,
            )
        )
        opened.callback(made[-1].close)
    channel.send_frame(ANSWER, None)
    return made


def _reset(groups: Sequence[SerialVectorEnv]) -> tuple[bool, News]:
    """Whether there are action masks, and what to tell."""
    for envs in groups:
        envs.reset()
    return groups[0].action_masks is not None, _news(groups)


def _state(groups: Sequence[SerialVectorEnv]) -> list[State]:
    return [envs.state() for envs in groups]


def _restore(groups: Sequence[SerialVectorEnv], states: Sequence[State]) -> tuple[int, bool, News]:
    """How many copies start anew, whether there are action masks, and what to tell."""
    not_continued = sum(envs.restore(state) for envs, state in zip(groups, states, strict=True))
    return not_continued, groups[0].action_masks is not None, _news(groups)


_CALLS: dict[str, Callable[..., Any]] = {"reset": _reset, "state": _state, "restore": _restore}


def _news(groups: Sequence[SerialVectorEnv]) -> News:
    news = News([line for envs in groups for line in envs.incidents], sum(envs.replaced for envs in groups))
    for envs in groups:
        envs.incidents.clear()
        envs.replaced = 0
    return news
