"""`shoal serve RUN_DIR`: a policy that answers requests over HTTP, from a checkpoint, or following a run.

    flags -> checkpoints are read once, so that what is wrong is told -> an actor serves -> SIGTERM, Ctrl-C: it drains

Several policies are named: `shoal serve walker=runs/a runner=runs/b`. The server is an actor of
`serving/policy_server.py` and is started again when it is killed, at the same port with the same token; this process
only waits. Requests need the token: that of --token-file, or one that is made and printed once.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import shoal
from shoal import exceptions
from shoal.rllib.training import checkpoints, saved_state
from shoal.scripts import run_directory
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.interruption import Interruption
from shoal.scripts.serving_beside import USUAL_NAME, free_port, given, spaces_for, token_in, wait_until_it_listens
from shoal.scripts.standard_streams import leave, printing, say
from shoal.serving import http_access
from shoal.serving.http_server import HttpSettings
from shoal.serving.policy_server import PolicyServer
from shoal.serving.serving_settings import ServingSettings
from shoal.serving.spaces import Space

PROG = "shoal serve"
#: Letters that names of hosts are made of, those of private networks too.
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
#: How long the server may take to leave, beyond the requests' own time.
_LEAVE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal serve` can be told."""

    policies: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME=]RUN_DIR|CHECKPOINT ...")]
    """What to serve: a run directory, whose newest checkpoint is taken, or a checkpoint. With a name where there are
    several, as in walker=runs/a; the only one is called policy."""

    follow: bool = False
    """Serve newer checkpoints of the run directories as they appear."""

    host: str = "127.0.0.1"
    """Address to listen at. Others than loopback: the token crosses the network unencrypted."""

    port: int = 8000
    """Port; 0 takes any that is free."""

    token_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with the token that requests must have, readable by you alone; if it is not there, it is made."""

    allow_host: tuple[str, ...] = ()
    """Names by which others reach this server, besides the address itself."""

    allow_origin: tuple[str, ...] = ()
    """Origins of web pages that may ask, as https://example.org."""

    slo_ms: float | None = None
    """Milliseconds within which requests should be answered: batches are kept short enough, and a request that would
    be late is refused at once. By default batches grow as they like."""

    max_batch_rows: int = ServingSettings.max_batch_rows
    """Observations that are answered together, at most."""

    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where policies act; auto is a GPU if there is one. Small nets are quicker on a CPU."""

    timeout_s: float = ServingSettings.timeout_s
    """Seconds after which a request that gave itself no time is given up."""

    drain_s: float = HttpSettings.drain_s
    """Seconds that requests under way have when the server leaves."""


def main(arguments: Sequence[str]) -> int:
    """Run `shoal serve` with these arguments and return its exit code."""
    return run_command(PROG, lambda: serve(arguments))


def serve(arguments: Sequence[str]) -> int:
    """Check, start, wait, drain.

    Raises:
      UsageError, CheckpointError: what is wrong, in one line.
    """
    about = "Answer requests for actions, over HTTP, with the policies of training runs."
    options = parse(Options, arguments, prog=PROG, description=about)
    policies = named(options.policies)
    settings = settings_of(options)
    spaces: dict[str, tuple[Space, Space] | None] = {}
    for name, place in policies.items():
        checkpoint = checkpoints.load(run_directory.find_checkpoint(place))
        spec = saved_state.weights_from(checkpoint).spec
        learned_in = checkpoint.config.get("external_spaces") or checkpoint.config.get("env")
        spaces[name] = spaces_for(spec, str(learned_in))
        if options.follow and (place / checkpoints.MANIFEST).is_file():
            raise UsageError(f"--follow: {place} is a checkpoint; give the run directory that it is in")
    token = http_access.make_token() if options.token_file is None else token_in(options.token_file)
    interruption = Interruption()
    with interruption.handled():
        try:
            http = _http_settings(options, token)
            shoal.init(num_cpus=1)
            made = shoal.remote(PolicyServer).options(
                num_cpus=0, num_gpus=_gpus(options.device), max_restarts=-1, max_task_retries=-1
            )
            server = made.remote(
                {name: str(place) for name, place in policies.items()},
                followed=tuple(policies) if options.follow else (),
                spaces=given(spaces),
                settings=settings,
                http=http,
            )
            wait_until_it_listens(server, _flags(options))
            told = token if options.token_file is None else f"in {options.token_file}"
            _tell(server, http_access.address_of(options.host, http.port), told)
            return _wait(server, interruption, options.drain_s)
        except KeyboardInterrupt:  # before anybody was served
            say("shoal: interrupted")
            return interruption.exit_code
        except (exceptions.ActorDiedError, OSError) as error:
            say(f"{PROG}: the server cannot serve: {_reason(error)}")
            return FAILED
        finally:
            interruption.over()
            shoal.shutdown()


def named(given: Sequence[str]) -> dict[str, Path]:
    """The policies by name.

    Raises:
      UsageError: there are none, several without names, or two of one name.
    """
    if not given:
        raise UsageError("RUN_DIR is missing: name the run directory or checkpoint to serve")
    policies: dict[str, Path] = {}
    for each in given:
        name, equals, place = each.partition("=")
        if not equals:
            if len(given) > 1:
                raise UsageError(f"{each} has no name: of several policies each needs one, as in walker={each}")
            name, place = USUAL_NAME, each
        if not name or not place or set(name) & set(":/"):
            raise UsageError(f"{each!r} is no NAME=RUN_DIR, with a name without ':' and '/'")
        if name in policies:
            raise UsageError(f"two policies are called {name!r}")
        policies[name] = Path(place)
    return policies


def settings_of(options: Options) -> ServingSettings:
    """Bounds and goals of the server.

    Raises:
      UsageError: a number is out of range.
    """
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, not {options.port}")
    for flag in ("slo_ms", "max_batch_rows", "timeout_s", "drain_s"):
        value = getattr(options, flag)
        if value is not None and not value > 0:
            raise UsageError(f"--{flag.replace('_', '-')} must be greater than 0, not {value}")
    least_waiting = max(ServingSettings.max_waiting_rows, options.max_batch_rows)
    return ServingSettings(
        slo_s=None if options.slo_ms is None else options.slo_ms / 1000.0,
        max_batch_rows=options.max_batch_rows,
        max_waiting_rows=least_waiting,
        timeout_s=options.timeout_s,
        device=options.device,
    )


def _check_names(options: Options) -> None:
    """Look at what no request will ever be compared with successfully.

    Raises:
      UsageError: a host with a port, an origin with a path.
    """
    for host in options.allow_host:
        if not _is_host(host):
            raise UsageError(f"--allow-host {host!r} is no name without port, as example.org is")
    for origin in options.allow_origin:
        scheme, _, place = origin.removesuffix("/").partition("://")
        if origin != "null" and (not scheme or not place or "/" in place):  # "null": of pages that lie in files
            raise UsageError(f"--allow-origin {origin!r} is no origin, as https://example.org is")


def _is_host(text: str) -> bool:
    """Whether a Host header can hold this: a name, of which browsers send the ASCII form, or an address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True


def _http_settings(options: Options, token: str) -> HttpSettings:
    """Raises UsageError if nobody can listen like that."""
    _check_names(options)
    try:
        http_access.served_hosts(options.host, options.allow_host)
    except ValueError as error:
        raise UsageError(f"--host {options.host}: {error}") from error
    port = free_port(options.host, options.port, _flags(options))
    return HttpSettings(
        token=token,
        host=options.host,
        port=port,
        allowed_hosts=options.allow_host,
        allowed_origins=options.allow_origin,
        drain_s=options.drain_s,
    )


def _flags(options: Options) -> str:
    return f"--host {options.host} --port {options.port}"


def _gpus(device: str) -> int:
    """How many the server needs.

    Raises:
      UsageError: there is none.
    """
    if device == "cpu":
        return 0
    there = shoal.cluster_resources().get("GPU", 0.0)
    if device == "cuda" and not there:
        raise UsageError("--device cuda: there is no GPU here")
    return 1 if there else 0


def _tell(server: Any, url: str, token: str) -> None:
    with printing():
        for info in shoal.get(server.infos.remote()):
            newest = info.versions[0]
            print(f"serving {info.name}, version {newest.number}, from {newest.source}")
        print(f"at {url}, token {token}", flush=True)


def _wait(server: Any, interruption: Interruption, drain_s: float) -> int:
    """Until a signal, or until the server is dead for good; then let it leave."""
    try:
        shoal.get(server.stay.remote())
    except KeyboardInterrupt:
        interruption.over()
    say(f"{PROG}: leaving")
    is_drained = shoal.get(server.drain.remote(drain_s), timeout=2 * drain_s + _LEAVE_S)
    if not is_drained:
        say(f"{PROG}: some requests were not answered within {drain_s:g} s")
    return DONE if is_drained else FAILED


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
