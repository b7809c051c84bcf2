"""`shoal chaos`: work while random workers are killed, and a judgement of everything that came of it.

    tasks       graphs of short tasks; a worker gets SIGKILL every 0.2 s; every result must be what it is without tasks
    actors      counters, plain and on event loops, that are killed and come back; at most once, at least once when
                asked, callers' order kept
    evolution   generations of ES, flat and with trees; a worker or an aggregator gets SIGKILL every second; no bit may
                differ from those of a run of one worker that nobody harms

Seeded: the same seed makes the same graphs and the same choices (not the same moments). With exit code 1 it has said
what was wrong. The parts are in `endurance/`; `soak` is its neighbour for work that lasts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

import shoal
from shoal import exceptions
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts.benchmarks.report import counted
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.endurance import counters, generations, graphs, histories
from shoal.scripts.endurance.histories import Outcome
from shoal.scripts.endurance.killer import Killer, every_worker
from shoal.scripts.endurance.processes import Before
from shoal.scripts.standard_streams import printing

PROG = "shoal chaos"
#: How long a graph or a burst may take: seconds are plenty even when most of its workers die.
_PATIENCE_S = 120.0
#: Complaints of one part that are printed.
_SHOWN = 10
_STORE_BYTES = 1024**3


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal chaos` can be told."""

    part: tyro.conf.Positional[Literal["all", "tasks", "actors", "evolution"]] = "all"
    """What to put under fire."""

    seconds: float = 60.0
    """Length of each part."""

    seed: int = 0
    """Of the graphs, and of the choice of who is killed."""

    num_cpus: int = 4
    """CPUs of the session: how many workers there are to be killed."""


@dataclass
class Findings:
    """What a part did, and what was wrong with it."""

    part: str
    done: str = ""
    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = [f"... and {len(self.wrong) - _SHOWN} more"] if len(self.wrong) > _SHOWN else []
        head = f"{self.part:<10}{self.done}: {f'{len(self.wrong)} WRONG' if self.wrong else 'all as it must be'}"
        return "\n".join([head, *(f"  {line}" for line in [*self.wrong[:_SHOWN], *more])])


def tasks_under_fire(options: Options) -> Findings:
    """Graph after graph, while workers die."""
    findings = Findings("tasks")
    killer = Killer(options.seed, every_worker)
    rounds = count = 0
    slowest_s = 0.0
    deadline = time.monotonic() + options.seconds
    with killer.at_work():
        while time.monotonic() < deadline and not findings.wrong:
            nodes = graphs.random_graph(options.seed * 1_000_003 + rounds)
            began = time.monotonic()
            try:
                values = shoal.get(graphs.submit(nodes), timeout=_PATIENCE_S)
            except exceptions.ShoalError as error:
                findings.wrong.append(f"graph {rounds}: {type(error).__name__}: {error}")
                break
            slowest_s = max(slowest_s, time.monotonic() - began)
            findings.wrong += [f"graph {rounds}: {line}" for line in graphs.differences(nodes, values)]
            rounds, count = rounds + 1, count + len(nodes)
    findings.kills = killer.kills
    findings.done = (
        f"{counted(rounds, 'graph')} of {counted(count, 'task')}, {counted(killer.kills, 'worker')} killed, "
        f"slowest graph {slowest_s:.1f} s"
    )
    return findings


def actors_under_fire(options: Options) -> Findings:
    """Callers in three processes, and counters that are killed while they count."""
    findings = Findings("actors")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        files = [Path(folder, f"counter {i}") for i in range(4)]
        at_least_once = [False, False, True, True]
        kinds = [
            made.options(max_task_retries=-1 if again else 0)
            for made, again in zip([counters.COUNTER, counters.AWAITED_COUNTER] * 2, at_least_once, strict=True)
        ]
        targets = [kind.remote(str(path)) for kind, path in zip(kinds, files, strict=True)]
        shoal.get([target.pid.remote() for target in targets], timeout=_PATIENCE_S)
        here = counters.Caller("driver")
        there = [shoal.remote(num_cpus=0)(counters.Caller).remote(name) for name in ("left", "right")]
        spared = set(shoal.get([caller.pid.remote() for caller in there], timeout=_PATIENCE_S))
        killer = Killer(options.seed, lambda: [pid for pid in every_worker() if pid not in spared])
        told: list[list[Outcome]] = [[] for _ in targets]
        deadline = time.monotonic() + options.seconds
        try:
            with killer.at_work():
                while time.monotonic() < deadline:
                    _call(here, there, targets, told)
        except exceptions.ShoalError as error:
            findings.wrong.append(f"a burst of calls: {type(error).__name__}: {error}")
        ran = 0
        for path, again, outcomes in zip(files, at_least_once, told, strict=True):
            history = counters.read(path)
            ran += len(history)
            judged = histories.violations(history, outcomes, at_least_once=again)
            findings.wrong += [f"{path.name} (at {'least' if again else 'most'} once): {line}" for line in judged]
            findings.wrong += [
                f"{path.name}: {each.caller} {each.number} failed without saying why: {each.failure}"
                for each in outcomes
                if each.failure and not each.failure.startswith(("ActorUnavailableError", "ActorDiedError"))
            ]
        made = sum(map(len, told))
        failed = sum(outcome.answer is None for outcomes in told for outcome in outcomes)
    findings.kills = killer.kills
    findings.done = (
        f"{counted(made, 'call')} made, {failed:,} failed, {ran:,} ran, {counted(killer.kills, 'actor')} killed"
    )
    return findings


def _call(here: counters.Caller, there: Sequence[Any], targets: Sequence[Any], told: list[list[Outcome]]) -> None:
    """One burst from every caller, at the same time."""
    elsewhere = [caller.call.remote(targets) for caller in there]
    for results in (here.call(targets), *shoal.get(elsewhere, timeout=_PATIENCE_S)):
        for outcomes, more in zip(told, results, strict=True):
            outcomes.extend(more)


def evolution_under_fire(options: Options) -> Findings:
    """Generations, flat and with trees in turn, while workers and aggregators die."""
    findings, runs = Findings("evolution"), list[generations.Run]()
    deadline = time.monotonic() + options.seconds
    while not findings.wrong and (time.monotonic() < deadline or len(runs) < len(generations.FAN_OUTS)):
        number = len(runs)
        fan_out = generations.FAN_OUTS[number % len(generations.FAN_OUTS)]
        title = f"run {number}, {f'fan-out {fan_out}' if fan_out else 'flat'}"
        kills_seed = options.seed * 1_000_003 + number
        try:
            run = generations.under_fire(
                title, seed=options.seed, kills_seed=kills_seed, num_workers=options.num_cpus, fan_out=fan_out
            )
        except WorkerLostError as error:
            findings.wrong.append(f"{title}: {error}")
        else:
            runs.append(run)
    findings.wrong += generations.differences(runs, options.seed)
    findings.kills = sum(run.kills for run in runs)
    count = sum(len(run.digests) for run in runs)
    findings.done = (
        f"{counted(len(runs), 'run')} of {counted(count, 'generation')}, "
        f"{counted(findings.kills, 'kill')} of workers and aggregators"
    )
    return findings


_PARTS: dict[str, Callable[[Options], Findings]] = {
    "tasks": tasks_under_fire,
    "actors": actors_under_fire,
    "evolution": evolution_under_fire,
}


def main(arguments: Sequence[str]) -> int:
    """Run `shoal chaos` with these arguments and return its exit code."""
    return run_command(PROG, lambda: chaos(arguments))


def chaos(arguments: Sequence[str]) -> int:
    """Put the parts under fire, one after the other, and print what was found.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=PROG, description="Kill workers at random, and check every result.")
    if options.seconds <= 0 or options.num_cpus < 1:
        raise UsageError("--seconds must be positive, --num-cpus at least 1")
    if options.seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {options.seed}")
    is_right = True
    for name, run in _PARTS.items():
        if options.part in (name, "all"):
            findings = _in_a_session(run, options)
            is_right = is_right and not findings.wrong
            with printing():
                print(findings)
    return DONE if is_right else FAILED


def _in_a_session(run: Callable[[Options], Findings], options: Options) -> Findings:
    """A part in a session of its own, which must leave nothing."""
    before = Before.look()
    shoal.init(num_cpus=options.num_cpus, object_store_memory=_STORE_BYTES)
    try:
        findings = run(options)
    finally:
        shoal.shutdown()
    if not findings.kills:
        findings.wrong.append("nobody was killed: nothing is shown")
    findings.wrong += [f"left behind: {line}" for line in before.left_behind()]
    return findings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
