"""`shoal bench http`: requests over HTTP, beside other servers in turn.

Client and server have a core each. Every round asks each server in turn: at 50 and at 500 requests a second in an open
loop (`benchmarks/http_when_due.py`), at which caches are cold and queueing shows; then as fast as 16 connections get
their answers. The net has two layers of 64, a request one observation. Ours is the actor of `shoal serve`, with its
token; JSON is what the others get, tensors our own form. `--vs litserve mosec=/venv/bin/python ray` names the peers,
with an interpreter where ours has them not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

import shoal
from shoal.scripts.benchmarks import loads, report
from shoal.scripts.benchmarks.http_requests import Asker, Target, all_the_time
from shoal.scripts.benchmarks.http_when_due import when_due
from shoal.scripts.benchmarks.serving import FLOATS, PinnedServer, pin_to, shown, sleeping, small_net
from shoal.scripts.command_line import DONE, UsageError, parse
from shoal.scripts.standard_streams import printing, say
from shoal.serving import wire
from shoal.serving.http_server import HttpSettings
from shoal.serving.requests import ActRequest

PEERS = ("litserve", "mosec", "ray")
#: What a server must answer before it is measured.
_WARM_UP = 200
#: Rates of the open loop, and the fewest requests of one; connections of the closed one.
_PER_SECOND, _FEWEST, _CONNECTIONS = (50, 500), 20, 16
_PATIENCE_S = 60.0
_JSON_BODY = b'{"observations": [[0.1, 0.2, 0.3, 0.4]]}'
#: Goals of ours in JSON: half the answers within this, so many a second, and so many times the peers' figures.
_P50_S, _RATE, _TIMES = 0.8e-3, 3000.0, 3.0
_TOKEN = "token-of-the-benchmark"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench http` can be told."""

    vs: tuple[str, ...] = ()
    """Peers, as litserve, mosec and ray (Ray Serve); each with an interpreter that has it, as in ray=/venv/bin/python,
    if ours has not."""

    rounds: int = 3
    """Rounds; the median of each figure counts."""

    seconds: float = 3.0
    """Length of one measurement."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


@dataclass
class Figures:
    """What one server did, a figure a round; seconds, and requests or states a second."""

    p50_s: dict[int, list[float]] = field(default_factory=dict)  #: rate -> of those that were answered
    p99_s: dict[int, list[float]] = field(default_factory=dict)
    failed: dict[int, list[int]] = field(default_factory=dict)  #: rate -> how many were not
    rate: list[float] = field(default_factory=list)
    busy_p50_s: list[float] = field(default_factory=list)  #: of the requests that rate is of


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure policies over HTTP, beside other servers.")
    if options.rounds < 1 or options.seconds <= 0:
        raise UsageError("--rounds must be at least 1, --seconds positive")
    peers = dict(_peer(each) for each in options.vs)
    how = f"{report.counted(options.rounds, 'round')} of {options.seconds:g} s"
    conditions = report.conditions([f"shoal {shoal.__version__}"], how)
    found: dict[str, Figures] = {}
    states: dict[str, list[float]] = {}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        body = _tensors(np.zeros((1, FLOATS), np.float32))
        with _ours(small_net()) as (port, path):
            for name, sent, form in (("JSON", _JSON_BODY, wire.JSON_FORM), ("tensors", body, wire.TENSOR_FORM)):
                target = Target.of(port, path, sent, form, _TOKEN)
                _measure(target, options.seconds, found.setdefault(f"shoal, {name}", Figures()))
        for name, python in peers.items():
            with _theirs(name, python) as target:
                _measure(target, options.seconds, found.setdefault(name, Figures()))
        for kilobytes, model_s in ((4, 0.010), (100, 0.005)):
            told = f"table 3: {kilobytes} KB, {model_s * 1e3:g} ms"
            states.setdefault(told, []).append(_table_3(kilobytes, model_s, options.seconds))
    lines = [*verdicts(found), *(f"{name}, tensors: {_median(rates):,.0f} states/s" for name, rates in states.items())]
    with printing():
        print(report.laid_out(table(found), conditions, lines, markdown=options.markdown))
    return DONE


def table(found: Mapping[str, Figures]) -> list[list[str]]:
    """A head, and the medians of each server."""
    rates = [f"{what} at {per_second}/s" for per_second in _PER_SECOND for what in ("p50", "p99")]
    lines = [["", *rates, f"requests/s, {_CONNECTIONS} connections", "their p50"]]
    for name, figures in found.items():
        times = [shown(_median(of[rate]), "us") for rate in _PER_SECOND for of in (figures.p50_s, figures.p99_s)]
        lines.append([name, *times, shown(_median(figures.rate), ""), shown(_median(figures.busy_p50_s), "us")])
    return lines


def verdicts(found: Mapping[str, Figures]) -> list[str]:
    """How ours stands against the goals, and beside each peer."""
    ours = found["shoal, JSON"]
    slow = [per_second for per_second in _PER_SECOND if _median(ours.p50_s[per_second]) > _P50_S]
    lines = [f"goal missed: p50 within {shown(_P50_S, 'us')} at {per_second}/s" for per_second in slow]
    if _median(ours.rate) < _RATE:
        lines.append(f"goal missed: {_RATE:,.0f} requests/s")
    for name, figures in found.items():
        if name in PEERS:
            rate = _median(ours.rate) / _median(figures.rate)
            sooner = [_median(figures.p50_s[each]) / _median(ours.p50_s[each]) for each in _PER_SECOND]
            told = [f"{times:.1f} times ours at {each}/s" for times, each in zip(sooner, _PER_SECOND, strict=True)]
            goal = "" if min(rate, *sooner) >= _TIMES else f"; the goal is {_TIMES:g} times each"
            lines.append(f"{name}: ours does {rate:.1f} times its requests/s; its p50 is {', '.join(told)}{goal}")
    for name, figures in found.items():
        for per_second, failed in figures.failed.items():
            if any(failed):
                lines.append(f"{name}: {report.counted(sum(failed), 'request')} not answered at {per_second}/s")
    return lines


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _peer(told: str) -> tuple[str, str]:
    name, _, python = told.partition("=")
    if name not in PEERS:
        raise UsageError(f"--vs {told}: there are {', '.join(PEERS)}, each as NAME or NAME=PYTHON")
    return name, python or sys.executable


def _measure(target: Target, seconds: float, figures: Figures) -> None:
    ask = Asker(target)
    try:
        for _ in range(_WARM_UP):
            ask()
    finally:
        ask.close()
    for per_second in _PER_SECOND:
        load = when_due(target, per_second=per_second, seconds=max(seconds, _FEWEST / per_second))
        figures.p50_s.setdefault(per_second, []).append(loads.percentile_s(load.good, 50))
        figures.p99_s.setdefault(per_second, []).append(loads.percentile_s(load.good, 99))
        figures.failed.setdefault(per_second, []).append(len(load.failed))
    fast = asyncio.run(all_the_time(target, connections=_CONNECTIONS, seconds=seconds))
    figures.rate.append(len(fast.good) / max(each.done_s for each in fast.good))
    figures.busy_p50_s.append(loads.percentile_s(fast.good, 50))


def _table_3(kilobytes: int, model_s: float, seconds: float) -> float:
    """Batches of 64 states, three of them under way all the time: states a second."""
    body = _tensors(np.ones((64, kilobytes * 256), np.float32))
    with _ours(sleeping(model_s, floats=kilobytes * 256)) as (port, path):
        target = Target.of(port, path, body, wire.TENSOR_FORM, _TOKEN)
        load = asyncio.run(all_the_time(target, connections=3, seconds=seconds))
    return 64 * len(load.good) / max(each.done_s for each in load.good)


def _tensors(observation: np.ndarray) -> bytes:
    return wire.write_tensor_request(ActRequest(observations={"observation": observation}))


# ---- the servers


@contextlib.contextmanager
def _ours(model: object) -> Iterator[tuple[int, str]]:
    """Port and path of our server, on the second core; this process is on the first."""
    before = os.sched_getaffinity(0)
    shoal.init(num_cpus=2)
    try:
        server = shoal.remote(PinnedServer).options(num_cpus=0).remote(
            {"policy": model}, http=HttpSettings(token=_TOKEN, port=0)
        )  # fmt: skip
        port = shoal.get(server.address.remote(), timeout=_PATIENCE_S)
        shoal.get(server.pin.remote(1), timeout=_PATIENCE_S)
        pin_to(0)
        yield port, "/v1/policies/policy/actions"
    finally:
        _unpin(before)
        shoal.shutdown()


@contextlib.contextmanager
def _theirs(name: str, python: str) -> Iterator[Target]:
    """A peer, on the second core.

    Raises:
      UsageError: it does not start; says what it printed last.
    """
    with socket.socket() as free, tempfile.TemporaryFile("w+") as output:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        before = os.sched_getaffinity(0)
        program = str(Path(__file__).with_name("http_peers.py"))
        child = subprocess.Popen(
            [python, program, name, str(port), str(max(before))],
            stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip
        try:
            target = Target.of(port, "/act", _JSON_BODY, wire.JSON_FORM)
            _await_answer(target, child, name, output)
            pin_to(0)
            yield target
        finally:
            _unpin(before)
            # An interrupt lets it end what it started; what is left after that shares its session, or is Ray's own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
            try:
                child.wait(20.0)
            except subprocess.TimeoutExpired:
                pass  # the next signal is not one that can be ignored
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _await_answer(target: Target, child: subprocess.Popen[bytes], name: str, output: IO[str]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            ask = Asker(target)
            ask()
            ask.close()
            return
        except OSError as error:
            if child.poll() is not None or time.monotonic() > deadline_s:
                output.seek(0)
                last = output.read().strip().rpartition("\n")[2]
                raise UsageError(f"--vs {name}: it does not answer ({error}); it printed last: {last}") from error
            time.sleep(0.1)


def _unpin(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), cores)
