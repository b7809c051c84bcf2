"""Evolution strategies on processes of their own: whoever is killed is replaced and no bit changes; stragglers."""

import contextlib
import os
import signal

import pytest

import shoal
from shoal.algorithms.es import ES, ESConfig
from shoal.core import api
from shoal.rllib import streams
from shoal.rllib.evolution.crew import Aggregator
from shoal.rllib.evolution.evolution_worker import EvolutionWorker
from shoal.rllib.worker_set import MAX_DEATHS_IN_A_ROW, WorkerLostError

SMALL = {
    "env": "CartPole-v1+time_limit=20",
    "num_workers": 1,
    "population_size": 12,
    "hidden_sizes": (8,),
    "block_size": 2,
    "normalize_observations": True,
}


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(num_cpus=8)
    yield
    shoal.shutdown()


@pytest.fixture
def make():
    """Makes small ones, closes them afterwards."""
    made = []

    def make_algorithm(**settings):
        made.append(ES(ESConfig(**{**SMALL, **settings})))
        return made[-1]

    yield make_algorithm
    for algorithm in made:
        algorithm.close()


def told(algorithm):
    """Centre and statistics after each of two generations; ``test_evolution.py`` looks at all that there is."""
    found = []
    for _ in range(2):
        algorithm.step()
        tensors = algorithm.checkpoint().tensors
        found += [tensors[group][name].tobytes() for group in tensors for name in sorted(tensors[group])]
    return found


@pytest.fixture(scope="module")
def alone():
    """What one worker does that nobody harms."""
    algorithm = ES(ESConfig(**SMALL))
    try:
        return told(algorithm)
    finally:
        algorithm.close()


def mortal(kind, method, marker):
    """Workers or aggregators of which one is killed by ``kill -9`` after its second request was done, once."""

    def strike():
        # Two of them may come here at the same moment: whoever makes the marker is struck.
        with contextlib.suppress(FileExistsError):
            marker.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)

    class Mortal(kind):
        done = 0

        def play(self, generation, tasks):
            report = super().play(generation, tasks)
            self.done += 1
            if method == "play" and self.done == 2:
                strike()
            return report

        def sums(self, share, size):
            if method == "sums":
                strike()
            return super().sums(share, size)

    return Mortal


@pytest.mark.parametrize(
    ("kind", "method", "settings"),
    [
        (EvolutionWorker, "play", {"num_workers": 2}),
        (Aggregator, "play", {"num_workers": 2, "fan_out": 2}),
        (Aggregator, "sums", {"num_workers": 2, "fan_out": 2}),
    ],
)
def test_whoever_is_killed_is_replaced_and_no_bit_changes(make, alone, monkeypatch, tmp_path, kind, method, settings):
    marker = tmp_path / "struck"
    monkeypatch.setattr(shoal.rllib.evolution.crew, kind.__name__, mortal(kind, method, marker))
    struck = make(**settings)
    assert told(struck) == alone
    assert marker.exists()
    assert struck.report()["workers_replaced"] == 1
    assert "SIGKILL" in struck.last_death


def let_all_play_as(worker, monkeypatch):
    """Let this class be the workers', of the driver and of aggregators."""

    class HasThese(Aggregator):
        def __init__(self, **where):
            shoal.rllib.evolution.crew.EvolutionWorker = worker
            super().__init__(**where)

    monkeypatch.setattr(shoal.rllib.evolution.crew, "EvolutionWorker", worker)
    monkeypatch.setattr(shoal.rllib.evolution.crew, "Aggregator", HasThese)


class DiesSideBySide(EvolutionWorker):
    """Cannot play one of the blocks, though it can play each of its episodes."""

    def play(self, generation, task):
        if (generation.number, task) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().play(generation, task)


def test_what_workers_die_of_again_and_again_is_played_one_by_one_and_no_bit_changes(make, alone, monkeypatch):
    let_all_play_as(DiesSideBySide, monkeypatch)
    struck = make(num_workers=2)
    assert told(struck) == alone
    assert struck.report()["workers_replaced"] == MAX_DEATHS_IN_A_ROW


class DiesBeforeItPlays(EvolutionWorker):
    """Never comes so far as to have its environments."""

    def _player_for(self, generation):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_when_it_makes_its_environments_ends_the_run_with_that(make, monkeypatch):
    let_all_play_as(DiesBeforeItPlays, monkeypatch)
    monkeypatch.setattr(shoal.rllib.evolution.crew, "MANY_DEATHS", 2)
    poisoned = make(num_workers=1)
    with pytest.raises(WorkerLostError, match=r"(?s)worker 0 dies before it plays anything.*block-size.*SIGKILL"):
        poisoned.step()


class DiesOfOne(EvolutionWorker):
    """Is killed by one candidate whenever it plays it."""

    def _player_for(self, generation):
        player = super()._player_for(generation)
        begin = type(player)._begin

        def begin_or_die(lane, episode):
            if episode.title.startswith("seed 0, generation 1, pair 7, sign -"):
                os.kill(os.getpid(), signal.SIGKILL)
            begin(player, lane, episode)

        player._begin = begin_or_die
        return player


def test_a_candidate_that_kills_its_worker_ends_the_run_with_its_pair_and_seed(make, monkeypatch):
    let_all_play_as(DiesOfOne, monkeypatch)
    # Of 10 pairs in blocks of 4, as the block's number must not be taken for the pair's.
    poisoned = make(num_workers=2, fan_out=2, population_size=20, block_size=4)
    poisoned.step()
    seed = streams.pair_seeds(poisoned.config.seed)(7, 1)
    who = rf"^seed 0, generation 1, pair 7, sign -, episode seed {seed}"
    expected = f"{who}: its worker dies when it is played.*SIGKILL"
    with pytest.raises(WorkerLostError, match=f"(?s){expected}"):
        poisoned.step()


class DiesBelow(Aggregator):
    """Its first worker is killed after the first request."""

    def play(self, generation, tasks):
        report = super().play(generation, tasks)
        if not self._told and not hasattr(self, "struck"):
            self.struck = True
            worker = self._crew.children._actors[0]
            api.get(worker.__ray_call__.remote(lambda _: None))
            api.kill(worker)
        return report


def test_a_death_below_an_aggregator_is_told_at_the_top(make, alone, monkeypatch):
    monkeypatch.setattr(shoal.rllib.evolution.crew, "Aggregator", DiesBelow)
    struck = make(num_workers=2, fan_out=2)
    assert told(struck) == alone
    assert struck.report()["workers_replaced"] == 1
    assert struck.last_death


@pytest.mark.parametrize("rule", ["next", "discard"])
def test_stragglers_are_counted_whatever_becomes_of_them(make, rule):
    algorithm = make(num_workers=2, stragglers=rule, spare_pairs=4)
    row = {}
    for _ in range(4):
        row = algorithm.step()
    assert row["population/stragglers_used"] + row["population/pairs_discarded"] > 0
    if rule == "discard":
        assert row["population/stragglers_used"] == 0
    assert algorithm.evaluate(3).returns
