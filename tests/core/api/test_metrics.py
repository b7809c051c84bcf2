"""`shoal.util.metrics`: Ray's checks, and the numbers of all processes together."""

from __future__ import annotations

import pickle
import time

import pytest

import shoal
from shoal.util import metrics
from shoal.util.metrics import Counter, Gauge, Histogram

DEADLINE_S = 30
IN_PROMETHEUS = pytest.mark.not_on_ray("the numbers of a Ray cluster are read by Prometheus, node by node")


@shoal.remote
def work(name, count):
    counter = Counter(name, description="pieces of work", tag_keys=("kind",)).set_default_tags({"kind": "plain"})
    counter.inc(count)
    counter.inc(tags={"kind": "special"})


@shoal.remote
class Measuring:
    def __init__(self, name):
        self.sizes = Histogram(name, boundaries=[1.0, 10.0])
        self.level = Gauge(f"{name}_level", tag_keys=())

    def observe(self, *values):
        for value in values:
            self.sizes.observe(value)
            self.level.set(value)


@pytest.fixture
def name(session, request):
    """Of a metric: what a process has counted stays while it lives."""
    return f"{session}_{request.function.__name__}"


def states(name):
    return {tuple(state.tags.values()): state for state in metrics.snapshot() if state.name == name}


@IN_PROMETHEUS
def test_counters_of_all_processes_add_up(name):
    mine = Counter(name, tag_keys=("kind",))
    mine.inc(5, tags={"kind": "plain"})
    shoal.get([work.remote(name, 2) for _ in range(10)], timeout=DEADLINE_S)
    found = states(name)
    assert (found[("plain",)].value, found[("special",)].value) == (25, 10)
    assert found[("plain",)].tags == {"kind": "plain"}


@IN_PROMETHEUS
def test_histograms_and_gauges(name):
    actor = Measuring.remote(name)
    shoal.get(actor.observe.remote(0.5, 5, 50, 6), timeout=DEADLINE_S)
    (state,) = states(name).values()
    assert state.buckets == {1.0: 1, 10.0: 3, float("inf"): 4}
    assert (state.count, state.value) == (4, 61.5)
    (level,) = states(f"{name}_level").values()
    assert level.value == 6


@pytest.mark.native_only("kills its process")
def test_what_a_killed_worker_had_counted_stays(name):
    actor = Measuring.remote(name)
    shoal.get(actor.observe.remote(1, 2, 3), timeout=DEADLINE_S)
    time.sleep(1.0)  # the head is told every half second
    shoal.kill(actor)
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(actor.observe.remote(4), timeout=DEADLINE_S)
    deadline = time.monotonic() + 5
    while not (found := states(name)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found[()].count == 3


@IN_PROMETHEUS
def test_prometheus_can_read_it(name):
    Counter(name, description='says "hi"\n', tag_keys=("where",)).inc(2, tags={"where": 'a"b'})
    Histogram(f"{name}_h", boundaries=[0.1, 1]).observe(0.5)
    Gauge(f"{name}_g").set(1.5)
    lines = [line for line in metrics.prometheus_text().splitlines() if name in line]
    assert lines == [
        rf"# HELP shoal_{name}_total says \"hi\"\n",
        f"# TYPE shoal_{name}_total counter",
        rf'shoal_{name}_total{{where="a\"b"}} 2.0',
        f"# TYPE shoal_{name}_g gauge",
        f"shoal_{name}_g 1.5",
        f"# TYPE shoal_{name}_h histogram",
        f'shoal_{name}_h_bucket{{le="0.1"}} 0',
        f'shoal_{name}_h_bucket{{le="1"}} 1',
        f'shoal_{name}_h_bucket{{le="+Inf"}} 1',
        f"shoal_{name}_h_sum 0.5",
        f"shoal_{name}_h_count 1",
    ]


def test_rays_checks(name):
    counter = Counter(name, tag_keys=("a", "b"))
    with pytest.raises(ValueError, match="missing value for tag key"):
        counter.inc(tags={"a": "1"})
    with pytest.raises(ValueError, match="only grows"):
        counter.inc(0, tags={"a": "1", "b": "2"})
    with pytest.raises(TypeError, match="number"):
        counter.inc("1", tags={"a": "1", "b": "2"})
    with pytest.raises(TypeError, match="string"):
        counter.inc(tags={"a": 1, "b": "2"})
    with pytest.raises(ValueError, match="no tag key 'c'"):
        counter.set_default_tags({"c": "1"})
    with pytest.raises(TypeError, match="string"):
        counter.set_default_tags({"a": 1})
    for wrong in ([], None, [0.0, 1.0]):
        with pytest.raises(ValueError, match="boundaries"):
            Histogram(name, boundaries=wrong)
    with pytest.raises(ValueError, match="empty"):
        Gauge("")
    with pytest.raises(TypeError, match="tuple"):
        Gauge("g", tag_keys=["a"])
    with pytest.raises(TypeError, match="tag key"):
        Gauge("g", tag_keys=(1,))
    assert Gauge(f"{name}_g").set(None) is None


@IN_PROMETHEUS
def test_a_name_that_prometheus_would_not_take_is_warned_of_and_dropped():
    with pytest.warns(UserWarning, match="no name for a metric"):
        counter = Counter("9-lives")
    counter.inc()
    assert states("9-lives") == {}


@IN_PROMETHEUS
def test_metrics_travel_and_tell_of_themselves(name):
    histogram = Histogram(name, "sizes", [1.0, 2.0], ("a",)).set_default_tags({"a": "b"})
    assert histogram.info == {
        "name": name, "description": "sizes", "tag_keys": ("a",), "default_tags": {"a": "b"}, "boundaries": [1.0, 2.0],
    }  # fmt: skip
    again = pickle.loads(pickle.dumps(histogram))
    again.observe(1.5, tags={"a": "c"})
    assert states(name)[("c",)].count == 1
