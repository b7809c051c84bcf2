"""`shoal train --serve :8000`: the policy answers over HTTP while it is trained, in an actor beside the learner.

The server begins with the weights that the run begins with, and gets newer ones after an iteration, but no more than
twice a second, and not while it still has those before in hand. What it refuses, weights that are no numbers for
instance, is told among the run's incidents, and the ones before serve on. It ends with the run. The token that requests
need lies in the run directory, readable by its owner alone, and ends with the run; or it is that of --token-file, which
stays, so that whoever has it goes on when the run is resumed.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoal
from shoal import exceptions
from shoal.envs import registry
from shoal.envs.vector import EnvFailure
from shoal.rllib.external_settings import spaces_at
from shoal.rllib.policies.policy_spec import PolicySpec, check_fits
from shoal.rllib.policies.weights import Weights
from shoal.rllib.training.callbacks import Callback
from shoal.scripts.command_line import UsageError
from shoal.serving import http_access
from shoal.serving.episode_desk import EpisodeSettings
from shoal.serving.http_server import HttpSettings
from shoal.serving.policies import RefusedError
from shoal.serving.policy_server import PolicyServer
from shoal.serving.serving_settings import ServingSettings
from shoal.serving.spaces import Space, space_form

if TYPE_CHECKING:
    from shoal.rllib.trainable import Trainable

#: Name of a policy that was given none.
USUAL_NAME = "policy"
#: File of a run directory that holds the token.
TOKEN = "serve_token"
#: Folder of a run directory that holds what the server goes on with when it was killed.
JOURNAL = "serving"
#: Least time between two versions: forty a second, as small nets learn, cost training a tenth of its speed.
_PAUSE_S = 0.5
#: How long the server may take to listen, and to take the last weights.
_START_S, _LAST_S = 60.0, 10.0


@dataclass(frozen=True)
class ServedAt:
    """Where the policy of a run answers."""

    host: str
    port: int  #: 0: any that is free
    token_file: Path | None = None  #: with the token, of the user's own; None: one is made for this run

    @property
    def flags(self) -> str:
        """What the user said."""
        return f"--serve {self.host}:{self.port}"

    @property
    def arguments(self) -> list[str]:
        """What to say again on another command line."""
        token = [] if self.token_file is None else ["--token-file", str(self.token_file)]
        return ["--serve", f"{self.host}:{self.port}", *token]


def address_of(flag: str) -> tuple[str, int]:
    """Host and port of ":8000", "8000" or "0.0.0.0:8000".

    Raises:
      UsageError: it is none.
    """
    host, _, port = flag.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise UsageError(f"--serve {flag!r} is no address: give a port, as in :8000, or HOST:PORT")
    host = host.strip("[]") or "127.0.0.1"
    try:
        http_access.served_hosts(host, ())
    except ValueError as error:
        raise UsageError(f"--serve {flag}: {error}; `shoal serve RUN_DIR --follow --allow-host` can be told") from error
    return host, int(port)


def token_in(path: Path) -> str:
    """The token in the file that --token-file names; if it is not there, it is made.

    Raises:
      UsageError: it cannot be read, or made, or holds none; or others can read it.
    """
    try:
        if path.exists():
            return http_access.read_token(path)
        token = http_access.make_token()
        http_access.write_token(path, token)
    except ValueError as error:
        raise UsageError(f"--token-file: {error}") from error
    except OSError as error:
        raise UsageError(f"--token-file {path}: {error.strerror}") from error
    return token


def given(spaces: Mapping[str, tuple[Space, Space] | None]) -> dict[str, tuple[Space, Space]]:
    """Those that are known."""
    return {name: each for name, each in spaces.items() if each is not None}


def free_port(host: str, port: int, flags: str) -> int:
    """The port, or one that is free if it is 0; so that a server that is started again listens where it did.

    Args:
      flags: What to call them in the error.

    Raises:
      UsageError: nobody can listen there.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)  # create_server hides which kind of error that is
        with socket.create_server((host, port), family=family) as tried:
            found: int = tried.getsockname()[1]
            return found
    except UnicodeError as error:
        raise UsageError(f"{flags}: {host!r} is no name of a host") from error
    except OSError as error:
        raise _cannot_listen(flags, error) from error


def wait_until_it_listens(server: Any, flags: str) -> None:
    """Until a server answers over HTTP.

    Args:
      server: Handle of a ``PolicyServer``.
      flags: What to call its address in the error.

    Raises:
      UsageError: nobody can listen there; somebody else may have begun to since ``free_port`` was asked.
    """
    try:
        shoal.get(server.address.remote(), timeout=_START_S)
    except exceptions.TaskError as error:
        if not isinstance(error.cause, OSError):
            raise
        raise _cannot_listen(flags, error.cause) from error


def _cannot_listen(flags: str, error: OSError) -> UsageError:
    if isinstance(error, socket.gaierror):  # its numbers are not those of other errors
        return UsageError(f"{flags}: {error.strerror}")
    # What socket and asyncio say besides names the address again, each in its own way.
    advice = "; 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
    return UsageError(f"{flags}: {os.strerror(error.errno) if error.errno else error}{advice}")


def spaces_for(spec: PolicySpec, place: str) -> tuple[Space, Space] | None:
    """The spaces that a policy was made for, in which its actions have their structure; None where they are not known
    here, or others: then the policy's shape has to do.

    Args:
      spec: Of the policy.
      place: The environment that it learned in, or what its simulators' spaces are told by.
    """
    try:
        observations, actions = spaces_at(place)
        check_fits(spec, place, observations, actions)
        return space_form(observations), space_form(actions)
    except (ValueError, registry.MissingLibrary, EnvFailure):
        return None


class ServedBeside(Callback):
    """The server, as a callback of the run whose weights it gets.

    Args:
      weights: Those that the run begins with.
      spaces: Of the environment that it learns in, where they are known.
      at: Where to listen.
      run_dir: Of the run.
      episodes: External simulators play, and somebody else hands the weights over.
      seed: Of what actions are drawn with.

    Raises:
      UsageError: nobody can listen there, or there is no token.
      RefusedError: the weights cannot be served.
    """

    def __init__(
        self,
        weights: Weights,
        spaces: tuple[Space, Space] | None,
        at: ServedAt,
        run_dir: Path,
        *,
        episodes: EpisodeSettings | None = None,
        seed: int = 0,
    ) -> None:
        port = free_port(at.host, at.port, at.flags)
        self.url = http_access.address_of(at.host, port)
        #: File with the token that requests must have.
        self.token_file = at.token_file or run_dir / TOKEN
        self._ends_token = at.token_file is None
        token = _token_of_run(run_dir) if at.token_file is None else token_in(at.token_file)
        made = shoal.remote(PolicyServer).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        self._journal = run_dir / JOURNAL
        shutil.rmtree(self._journal, ignore_errors=True)  # of a run that was killed, which may have been further
        #: Handle of the server.
        self.server: Any = made.remote(
            {USUAL_NAME: weights},
            spaces=given({USUAL_NAME: spaces}),
            settings=ServingSettings(seed=seed),
            http=HttpSettings(token=token, host=at.host, port=port, drain_s=1.0),
            journal=self._journal,
            episodes=episodes,
        )
        try:
            wait_until_it_listens(self.server, at.flags)
        except BaseException:  # Ctrl-C, too; nobody will close what has not begun
            shoal.kill(self.server)  # so that it does not look for its journal
            self._clear()
            raise
        self._pushes = episodes is None
        self._pushed: Any = None
        self._pushed_at_s = -_PAUSE_S

    def on_iteration(self, algorithm: Trainable, row: dict[str, float]) -> None:
        """Hand the newest weights over, if it is time and the server has taken those before."""
        now_s = time.monotonic()
        if not self._pushes or now_s - self._pushed_at_s < _PAUSE_S:
            return
        if self._pushed is None or shoal.wait([self._pushed], timeout=0)[0]:
            self._look_at_last(algorithm)
            self._pushed_at_s = now_s
            self._pushed = self.server.swap.remote(USUAL_NAME, shoal.put(algorithm.weights()))

    def close(self) -> None:
        """Let the server answer what it has, and end it."""
        try:
            shoal.get(self.server.drain.remote(1.0), timeout=_LAST_S)
        except (exceptions.ActorDiedError, exceptions.GetTimeoutError):
            pass  # it ends with the session in any case
        shoal.kill(self.server)
        self._clear()

    def _clear(self) -> None:
        """Remove what is of no use without the server."""
        if self._ends_token:
            self.token_file.unlink(missing_ok=True)
        shutil.rmtree(self._journal, ignore_errors=True)  # the run's checkpoints have it all

    def _look_at_last(self, algorithm: Trainable) -> None:
        if self._pushed is None:
            return
        try:
            shoal.get(self._pushed)
        except (RefusedError, exceptions.ActorDiedError) as error:
            algorithm.incidents.append(f"the server beside has older weights: {str(error).splitlines()[-1]}")


def _token_of_run(run_dir: Path) -> str:
    """A token for this run alone, in a file of its directory."""
    token = http_access.make_token()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        http_access.write_token(run_dir / TOKEN, token)
    except OSError as error:
        raise UsageError(f"--serve: {run_dir / TOKEN} cannot be written: {error.strerror}") from error
    return token
