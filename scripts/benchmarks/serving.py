"""`shoal bench serve`: policies that answer, through the handle of their actor (`serving/policy_server.py`).

Driver and server have a core each. Loads are open (`benchmarks/loads.py`), models that sleep stand for slow ones:

    latency     a 64 x 64 net, one observation a request: at 500 and 2,000 requests a second, whatever becomes of those
                before; and by one client that waits for each answer, as calls that do nothing and a bare socket are
    table 3     batches of 64 states, of 4 KB with a 10 ms model and of 100 KB with a 5 ms one, as in Table 3 of Moritz
                et al. 2018 (Ray): states a second, of those that the model could do
    batching    a model of 5 ms + 0.05 ms a row, to answer within 20 ms. A request that comes when a batch has just
                begun waits for it and for its own: batches of 100 rows, 10,000 rows a second, are the most in time
    overload    the same, asked for twice as much; and how soon all is well when the load is gone
    swaps       100 new versions at 500 requests a second: which version an answer says, and which it is of
    kill        SIGKILL at 200 requests a second: for how long requests fail, and how
    training    what serving costs a run of PPO, and the run those who ask (`benchmarks/training_served.py`)
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import shoal
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy_spec import PolicySpec
from shoal.rllib.policies.spaces import ActionSpec, InputColumn, ObservationSpec
from shoal.rllib.policies.weights import Weights
from shoal.scripts.benchmarks import bare_socket, loads, report, training_served
from shoal.scripts.command_line import DONE, UsageError, parse
from shoal.scripts.standard_streams import printing, say
from shoal.serving.errors import Overloaded
from shoal.serving.models import FunctionModel
from shoal.serving.policy_server import PolicyServer
from shoal.serving.serving_settings import ServingSettings
from shoal.serving.spaces import LeafSpace

FLOATS, _CHOICE = 4, LeafSpace(kind="discrete", shape=(), dtype="int64", nvec=(2,), start=(0,))
#: Requests a second of the arm latency.
_LATENCY_RATES = (500.0, 2_000.0)
#: The model of the arms batching and overload, its objective, and what it can do within that.
_FIXED_S, _PER_ROW_S, _SLO_S, _MOST_ROWS_PER_S = 0.005, 0.00005, 0.020, 10_000.0
_CORES = sorted(os.sched_getaffinity(0))
_PR_SET_TIMERSLACK, _this_thread = 29, threading.local()
#: Of that, what is asked for: more could not all be answered in time, less would not show the goal.
_OFFERED = 0.905
#: Rows of their requests: a client in Python cannot send 20,000 requests a second.
_REQUEST_ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal bench serve` can be told."""

    only: str = ""
    """Run only the arms whose name holds this text."""

    rounds: int = 3
    """Rounds of each arm; the median of each figure counts."""

    seconds: float = 3.0
    """Length of one measurement."""

    markdown: bool = False
    """Print the table as it stands in docs/benchmarks.md."""


@dataclass(frozen=True)
class Figure:
    """Something measured."""

    name: str
    value: float
    unit: str
    goal: float | None = None  #: None: for information
    is_ceiling: bool = True  #: the goal is not to be exceeded, or to be reached

    @property
    def is_met(self) -> bool:
        return self.goal is None or (self.value <= self.goal if self.is_ceiling else self.value >= self.goal)


def bench(arguments: Sequence[str], prog: str) -> int:
    """Measure and print.

    Raises:
      UsageError: what is wrong, in one line.
    """
    options = parse(Options, arguments, prog=prog, description="Measure policies that answer requests.")
    if options.rounds < 1 or options.seconds <= 0:
        raise UsageError("--rounds must be at least 1, --seconds positive")
    arms = [name for name in ARMS if options.only in name]
    if not arms:
        raise UsageError(f"--only {options.only!r} is in the name of no arm; they are: {', '.join(ARMS)}")
    how = f"{report.counted(options.rounds, 'round')} of {options.seconds:g} s"
    conditions = report.conditions([f"shoal {shoal.__version__}"], how)
    found: dict[str, list[Figure]] = {}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for arm in arms:
            for figure in ARMS[arm](options.seconds):
                found.setdefault(figure.name, []).append(figure)
    with printing():
        print(report.laid_out(table(found), conditions, verdicts(found), markdown=options.markdown))
    return DONE


def table(found: Mapping[str, Sequence[Figure]]) -> list[list[str]]:
    """A head, and a line for each figure: its median and its range."""
    lines = [["", "median", "lowest", "highest", "goal"]]
    for name, figures in found.items():
        values, first = [figure.value for figure in figures], figures[0]
        sign = "<=" if first.is_ceiling else ">="
        goal = "" if first.goal is None else f"{sign} {shown(first.goal, first.unit)}"
        told = [shown(value, first.unit) for value in (float(np.median(values)), min(values), max(values))]
        lines.append([name, *told, goal])
    return lines


def verdicts(found: Mapping[str, Sequence[Figure]]) -> list[str]:
    """Which goals the medians miss."""
    missed = []
    for name, figures in found.items():
        first = figures[0]
        median = Figure(name, float(np.median([f.value for f in figures])), first.unit, first.goal, first.is_ceiling)
        if not median.is_met:
            missed.append(f"goal missed: {name}")
    return missed or ["all goals met"]


def shown(value: float, unit: str) -> str:
    """A figure as a table has it."""
    if unit == "us":
        return f"{value * 1e6:,.0f} us"
    if unit == "ms":
        return f"{value * 1e3:,.1f} ms"
    return f"{value:.1%}" if unit == "share" else f"{value:,.0f}{unit and ' ' + unit}"


# ---- the server


class PinnedServer(PolicyServer):
    """A server that can be put on a core."""

    def pin(self, core: int) -> int:
        """Put all threads of the process there; its id."""
        pin_to(core)
        return os.getpid()

    async def nothing(self, observations: np.ndarray) -> np.ndarray:
        """What every call costs."""
        return observations


class BareModel:
    """The model of the arms batching and overload, an actor with nothing around it."""

    def pin(self, core: int) -> None:
        """As `PinnedServer.pin`."""
        pin_to(core)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Take the time that it takes."""
        _sleep_exactly()
        time.sleep(_FIXED_S + _PER_ROW_S * len(observations))
        return observations


def core_of(number: int) -> int:
    """One of those that the machine lets this program have."""
    return _CORES[number % len(_CORES)]


def pin_to(number: int) -> None:
    """Put all threads of this process on one core."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core_of(number)})


@contextmanager
def _served(model: Any, **settings: Any) -> Iterator[Any]:
    """A handle of a server with this policy, each of us on a core of his own."""
    before = os.sched_getaffinity(0)
    shoal.init(num_cpus=2)
    try:
        made = shoal.remote(PinnedServer).options(num_cpus=0, max_restarts=-1, max_task_retries=0)
        server = made.remote({"policy": model}, settings=ServingSettings(**settings))
        shoal.get(server.pin.remote(1))
        pin_to(0)
        yield server
    finally:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), before)
        shoal.shutdown()


def small_net() -> Weights:
    """A 64 x 64 net."""
    spec = PolicySpec(
        ObservationSpec((InputColumn("observation", "numbers", (FLOATS,)),)), ActionSpec((True,), (2,), (0,))
    )
    return Weights(0, spec, initial_weights(spec, 0))


def sleeping(fixed_s: float, per_row_s: float = 0.0, floats: int = FLOATS) -> FunctionModel:
    """A model that takes its time and answers 0."""

    def act(columns: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = len(columns["observation"])
        _sleep_exactly()
        time.sleep(fixed_s + per_row_s * rows)
        return np.zeros((rows, 1), np.int64)

    return FunctionModel(act, LeafSpace(kind="box", shape=(floats,), dtype="float32"), _CHOICE)


def _sleep_exactly() -> None:
    """The kernel may wake this thread up to 0.05 ms late, for good measure: not one that stands for a GPU.

    prctl(2), PR_SET_TIMERSLACK; sleeps of 10 ms then take 0.05 ms longer than they are told, and 0.1 otherwise.
    """
    if not getattr(_this_thread, "is_exact", False):
        _this_thread.is_exact = True
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def _asker(server: Any, rows: int) -> Callable[[], Any]:
    observations = np.zeros((rows, FLOATS), np.float32)

    return lambda: server.compute_actions.remote(observations)


def _loaded(server: Any, rows: int, per_second: Callable[[float], float], seconds: float) -> loads.Load:
    return loads.at_once(_asker(server, rows), per_second=per_second, seconds=seconds)


def _steadily(rate: float) -> Callable[[float], float]:
    return lambda _: rate


# ---- the arms


def latency(seconds: float) -> Iterator[Figure]:
    """A small net through the handle, one row a request."""
    observation = np.zeros((1, FLOATS), np.float32)
    with _served(small_net()) as server:

        def ask() -> Any:
            return shoal.get(server.compute_actions.remote(observation))

        count = max(100, int(500 * seconds))
        loads.in_turn(ask, per_second=1000.0, count=500)
        empty = loads.in_turn(lambda: shoal.get(server.nothing.remote(observation)), per_second=500.0, count=count)
        waiting = loads.in_turn(ask, per_second=500.0, count=count)
        with bare_socket.answered(core_of(1)) as answer:
            bare = loads.in_turn(answer, per_second=500.0, count=count)
        open_loops = {rate: _loaded(server, 1, _steadily(rate), seconds) for rate in _LATENCY_RATES}
    for rate, load in open_loops.items():
        yield Figure(f"latency: {rate:,.0f} requests/s, p50", loads.percentile_s(load.good, 50), "us", 200e-6)
        yield Figure(f"latency: {rate:,.0f} requests/s, p99", loads.percentile_s(load.good, 99), "us", 1e-3)
    one = "one client that waits, 500 times/s"
    yield Figure(f"latency: {one}, p50", loads.percentile_s(waiting.good, 50), "us")
    yield Figure(f"latency: {one}, for a call that does nothing, p50", loads.percentile_s(empty.good, 50), "us")
    yield Figure(f"latency: {one}, for a bare socket, p50", loads.percentile_s(bare.good, 50), "us")


def table_3(seconds: float) -> Iterator[Figure]:
    """Batches of 64 states, some of them under way all the time."""
    for kilobytes, model_s, goal in ((4, 0.010, 0.97), (100, 0.005, 0.85)):
        states = np.ones((64, kilobytes * 256), np.float32)
        with _served(sleeping(model_s, floats=kilobytes * 256)) as server:
            under_way = [server.compute_actions.remote(states) for _ in range(3)]
            shoal.get(under_way.pop(0))
            began_s, batches = time.perf_counter(), 0
            while (passed_s := time.perf_counter() - began_s) < seconds:
                under_way.append(server.compute_actions.remote(states))
                shoal.get(under_way.pop(0))
                batches += 1
            shoal.get(under_way)
        share = batches * model_s / passed_s
        yield Figure(
            f"table 3: {kilobytes} KB, {model_s * 1e3:g} ms, of the ideal", share, "share", goal, is_ceiling=False
        )
        yield Figure(f"table 3: {kilobytes} KB, {model_s * 1e3:g} ms", 64 * batches / passed_s, "states/s")


def batching(seconds: float) -> Iterator[Figure]:
    """As much as can be answered in time, and hardly anything."""
    with _served(sleeping(_FIXED_S, _PER_ROW_S), slo_s=_SLO_S, max_batch_rows=512) as server:
        offered = _OFFERED * _MOST_ROWS_PER_S / _REQUEST_ROWS
        load = _loaded(server, _REQUEST_ROWS, lambda _: offered, seconds + 1.0).within(1.0, seconds + 1.0)
        rows_per_s = _REQUEST_ROWS * len(load.good) / seconds
    with _served(sleeping(_FIXED_S, _PER_ROW_S), slo_s=_SLO_S) as server:
        one = np.zeros((1, FLOATS), np.float32)
        few = loads.in_turn(lambda: shoal.get(server.compute_actions.remote(one)), per_second=1.0, count=7)
        model = shoal.remote(BareModel).options(num_cpus=0).remote()
        shoal.get(model.pin.remote(1))
        bare = loads.in_turn(lambda: shoal.get(model.act.remote(one)), per_second=1.0, count=7)
    share = rows_per_s / _MOST_ROWS_PER_S
    yield Figure("batching: rows answered, of the optimum", share, "share", 0.90, is_ceiling=False)
    yield Figure("batching: p99 of those answered", loads.percentile_s(load.good, 99), "ms", _SLO_S)
    alone_s, bare_s = loads.percentile_s(few.good, 50), loads.percentile_s(bare.good, 50)
    added_s = alone_s - _FIXED_S - _PER_ROW_S
    yield Figure("batching: added to a call of the bare model, 1 request/s", alone_s - bare_s, "ms", 1e-3)
    yield Figure("batching: added to the model's time, 1 request/s", added_s, "ms")


def overload(seconds: float) -> Iterator[Figure]:
    """Twice what can be done, and then half of it."""
    high, low = (factor * _MOST_ROWS_PER_S / _REQUEST_ROWS for factor in (2.0, 0.5))
    with _served(sleeping(_FIXED_S, _PER_ROW_S), slo_s=_SLO_S, max_batch_rows=512) as server:
        load = _loaded(server, _REQUEST_ROWS, lambda at_s: high if at_s < seconds + 1.0 else low, seconds + 3.0)
    crowded, after = load.within(1.0, seconds + 1.0), load.within(seconds + 1.0, seconds + 3.0)
    goodput = _REQUEST_ROWS * len(crowded.good) / seconds / _MOST_ROWS_PER_S
    strange = sum(not isinstance(each.error, Overloaded) for each in load.failed)
    yield Figure("overload: goodput, of the capacity", goodput, "share", 0.90, is_ceiling=False)
    yield Figure("overload: answers within the objective, of all", in_time(crowded.good), "share")
    yield Figure("overload: refused within, p99", loads.percentile_s(crowded.failed, 99), "ms", 0.050)
    yield Figure("overload: failures that are no refusals", strange, "", 0)
    recovered_s = _well_again_s(after, seconds + 1.0)
    yield Figure("overload: until all is well again", recovered_s, "ms", 1.0)


def in_time(answered: list[loads.Answered]) -> float:
    """Share of these that came within the objective: what is answered late still counts as answered."""
    return sum(each.latency_s <= _SLO_S for each in answered) / max(1, len(answered))


def _well_again_s(load: loads.Load, began_s: float) -> float:
    """Seconds until, for a tenth of a second, every request was answered in time."""
    for tenth in range(20):
        start_s = began_s + 0.1 * tenth
        sent = load.within(start_s, start_s + 0.1)
        if sent.answered and not sent.failed and loads.percentile_s(sent.good, 100) <= _SLO_S:
            return 0.1 * (tenth + 1)
    return float("inf")


def swaps(seconds: float) -> Iterator[Figure]:
    """New versions while requests come; each version gives its own number for an action."""

    def model(number: int) -> FunctionModel:
        def act(columns: Mapping[str, np.ndarray]) -> np.ndarray:
            return np.full((len(columns["observation"]), 1), number)

        space = LeafSpace(kind="box", shape=(FLOATS,), dtype="float32")
        choices = LeafSpace(kind="discrete", shape=(), dtype="int64", nvec=(1000,), start=(0,))
        return FunctionModel(act, space, choices, is_quick=True)

    with _served(model(0)) as server:
        loading: list[Any] = []
        versions = [
            (number * seconds / 100, partial(_load, server, model(number), number, loading)) for number in range(1, 101)
        ]
        load = loads.at_once(_asker(server, 4), per_second=lambda _: 500.0, seconds=seconds + 1.0, errands=versions)
        shoal.get(loading, timeout=30.0)
    mixed = sum(set(each.reply.actions.tolist()) != {each.reply.version} for each in load.good)
    yield Figure("swaps: requests that failed", len(load.failed), "", 0)
    yield Figure("swaps: answers of another version than they say", mixed, "", 0)
    yield Figure("swaps: versions that answered", len({each.reply.version for each in load.good}), "")
    yield Figure("swaps: p99", loads.percentile_s(load.good, 99), "ms")


def _load(server: Any, model: FunctionModel, number: int, loading: list[Any]) -> None:
    loading.append(server.load.remote("policy", model, version=number))


def kill(seconds: float) -> Iterator[Figure]:
    """SIGKILL in the middle."""
    with _served(small_net()) as server:
        pid = shoal.get(server.pin.remote(1))
        killing = (0.5, partial(os.kill, pid, signal.SIGKILL))
        load = loads.at_once(_asker(server, 1), per_second=lambda _: 200.0, seconds=seconds + 1.0, errands=[killing])
    if load.failed:
        trouble_s = max(each.done_s for each in load.failed) - min(each.done_s for each in load.failed)
        kinds = Counter(type(each.error).__name__ for each in load.failed)
        say(f"kill: {', '.join(f'{count} {name}' for name, count in kinds.items())}")
        unclear = sum(not isinstance(each.error, shoal.exceptions.ShoalError) for each in load.failed)
    else:
        trouble_s, unclear = 0.0, 0
    yield Figure("kill: requests that failed", len(load.failed), "")
    yield Figure("kill: between the first failure and the last", trouble_s, "ms", 1.0)
    yield Figure("kill: failures that do not say why", unclear, "", 0)
    yield Figure("kill: longest wait", loads.percentile_s(load.good, 100), "ms")


def training(seconds: float) -> Iterator[Figure]:
    """PPO on the same cores, over HTTP."""
    alone = training_served.alone(seconds)
    beside, load = training_served.served(seconds)
    yield Figure("training: steps lost while it serves 100 requests/s", 1.0 - beside / alone, "share", 0.10)
    yield Figure("training: p50 of requests over HTTP", loads.percentile_s(load.good, 50), "ms")
    yield Figure("training: p99 of requests over HTTP", loads.percentile_s(load.good, 99), "ms", 0.020)


#: What is measured, in this order.
ARMS: Mapping[str, Callable[[float], Iterator[Figure]]] = {
    "latency": latency,
    "table 3": table_3,
    "batching": batching,
    "overload": overload,
    "swaps": swaps,
    "kill": kill,
    "training": training,
}
