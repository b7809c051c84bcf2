"""Evolution strategies in one process: the same bits from any workers and any tree; what goes on, stops, is refused."""

import gymnasium
import numpy as np
import pytest

import shoal
from shoal.algorithms.ars import ARS, ARSConfig
from shoal.algorithms.cmaes import CMAES, CMAESConfig
from shoal.algorithms.es import ES, ESConfig
from shoal.algorithms.pgpe import PGPE, PGPEConfig
from shoal.algorithms.snes import SNES, SNESConfig
from shoal.envs.vector import EnvFailure
from shoal.rllib import streams
from shoal.rllib.config import ConfigError
from shoal.rllib.evolution import crew
from shoal.rllib.evolution.reports import Report
from shoal.rllib.policies.policy import Policy
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import CheckpointError

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
    shoal.init(engine="inline", num_cpus=8)
    yield
    shoal.shutdown()


@pytest.fixture
def make():
    """Makes small ones, closes them afterwards."""
    made = []

    def make_algorithm(kind=ES, config=ESConfig, **settings):
        made.append(kind(config(**{**SMALL, **settings})))
        return made[-1]

    yield make_algorithm
    for algorithm in made:
        algorithm.close()


def bits(algorithm):
    """All that a run's future depends on."""
    tensors = algorithm.checkpoint().tensors
    return {f"{group}/{name}": array.tobytes() for group, arrays in tensors.items() for name, array in arrays.items()}


def told(algorithm, generations):
    """The bits after each generation."""
    found = []
    for _ in range(generations):
        algorithm.step()
        found.append(bits(algorithm))
    return found


@pytest.fixture(scope="module")
def alone():
    """The bits of one worker's generations."""
    algorithm = ES(ESConfig(**SMALL))
    try:
        return told(algorithm, 3)
    finally:
        algorithm.close()


@pytest.mark.parametrize(
    "settings", [{"num_workers": 2}, {"num_workers": 3, "fan_out": 2}, {"num_workers": 2, "max_in_flight": 1}]
)
def test_any_workers_and_any_tree_give_the_same_bits(make, alone, settings):
    assert told(make(**settings), 3) == alone


def test_an_aggregator_tells_what_is_done_and_is_asked_for_the_rest(make, alone, monkeypatch):
    class Listening(crew.Aggregator):
        def play(self, generation, tasks):
            content = super().play(generation, tasks)
            crew.heard.append((generation[0], set(tasks), set(Report.from_bytes(content).blocks.tolist())))
            return content

    monkeypatch.setattr(crew, "REPORT_AFTER_S", 0.0)
    monkeypatch.setattr(crew, "heard", [], raising=False)
    monkeypatch.setattr(crew, "Aggregator", Listening)
    assert told(make(num_workers=2, fan_out=2), 3) == alone
    known = {}
    for generation, asked, done in crew.heard:
        told_before = known.setdefault(generation, set())
        assert len(done) == 1
        assert done <= asked
        assert not asked & told_before
        told_before |= done
    assert list(known.values()) == [set(range(-1, 3))] * 3


def test_a_table_in_the_object_store_gives_the_same_bits_to_everybody(make):
    table = {"noise": "table", "noise_table_length": 5000}
    assert told(make(**table), 2) == told(make(num_workers=2, fan_out=2, **table), 2)


@pytest.mark.parametrize(
    ("kind", "config"), [(ARS, ARSConfig), (PGPE, PGPEConfig), (SNES, SNESConfig), (CMAES, CMAESConfig)]
)
def test_every_strategy_goes_on_from_a_file_as_if_nothing_had_been(make, tmp_path, kind, config):
    uninterrupted = make(kind, config)
    uninterrupted.step()
    place = checkpoints.save(uninterrupted.checkpoint(), tmp_path / "step")
    expected = told(uninterrupted, 2)
    resumed = make(kind, config, num_workers=2)
    resumed.restore(checkpoints.load(place))
    assert told(resumed, 2) == expected
    assert (resumed.steps, resumed.iteration) == (uninterrupted.steps, uninterrupted.iteration)
    assert resumed.report()["return_mean"] == uninterrupted.report()["return_mean"]


def test_an_evaluation_plays_the_centre_as_a_checkpoint_of_it_does(make):
    algorithm = make(num_workers=2, env="CartPole-v1", hidden_sizes=())
    algorithm.step()
    evaluation = algorithm.evaluate(4)
    algorithm.begin_evaluation(4)
    (beside,) = algorithm.evaluations(wait=True)
    assert beside.evaluation == evaluation
    policy = algorithm.policy_from(algorithm.checkpoint())
    assert isinstance(policy, Policy)
    weight = algorithm.weights().arrays["policy.head.weight"]
    np.testing.assert_array_equal(weight.ravel(), algorithm.strategy.centre[:8])


def test_an_evaluation_has_the_same_episodes_in_their_order_whoever_plays_them(make):
    returns = [make(num_workers=1).evaluate(11).returns]
    returns += [make(num_workers=3, fan_out=fan_out).evaluate(11).returns for fan_out in (0, 2)]
    assert len(returns[0]) == 11
    assert returns[1:] == returns[:1] * 2


def test_training_stops_when_the_centre_earns_enough_and_keeps_that_centre(make):
    algorithm = make(stop_at_return=5.0, centre_episodes=2)
    before = algorithm.strategy.centre.copy()
    row = algorithm.step()
    assert row["centre/return_mean"] >= 5.0
    assert algorithm.is_done
    np.testing.assert_array_equal(algorithm.strategy.centre, before)
    assert not make(stop_at_return=500.0).is_done


def test_the_step_limit_grows_when_many_episodes_reach_it(make):
    algorithm = make(step_limit=4)
    assert algorithm.step()["population/step_limit"] == 7
    again = make(step_limit=4)
    again.restore(algorithm.checkpoint())
    assert again.step()["episode_length_mean"] > 5.0


class FailsForOneSeed(gymnasium.Env):
    """Raises in the third step of an episode of one seed."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, seed):
        self._bad_seed = seed

    def reset(self, *, seed=None, options=None):
        self._left, self._is_bad = 6, seed == self._bad_seed
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._left -= 1
        if self._is_bad and self._left == 3:
            raise RuntimeError("the motor is hot")
        return np.zeros(2, np.float32), float(self._left % 2 == action), self._left == 0, False, {}


def test_what_fails_is_named_so_that_the_same_seed_comes_to_it_again(make, tmp_path):
    seed = streams.pair_seeds(4)(5, 1)
    gymnasium.register("FailsForOneSeed-v0", FailsForOneSeed, kwargs={"seed": seed})
    found = set()
    for settings in ({"num_workers": 1}, {"num_workers": 3}, {"num_workers": 3, "fan_out": 2}):
        algorithm = make(env="FailsForOneSeed-v0", seed=4, **settings)
        algorithm.step()
        checkpoints.save(algorithm.checkpoint(), tmp_path / str(len(found)))
        with pytest.raises(EnvFailure) as caught:
            algorithm.step()
        found.add(str(caught.value).split(": worker")[0])
    again = make(env="FailsForOneSeed-v0", seed=4)
    again.restore(checkpoints.load(tmp_path / "0"))
    with pytest.raises(EnvFailure, match="the motor is hot") as caught:
        again.step()
    found.add(str(caught.value).split(": worker")[0])
    assert found == {f"seed 4, generation 1, pair 5, sign +, episode seed {seed}"}


def test_another_net_or_another_algorithm_is_refused_on_resume(make):
    checkpoint = make().checkpoint()
    with pytest.raises(CheckpointError, match=r"has hidden_sizes \(8,\), this run's \(9,\)"):
        make(hidden_sizes=(9,)).restore(checkpoint)
    with pytest.raises(CheckpointError, match="a checkpoint of 'es' cannot go on as 'ars'"):
        make(ARS, ARSConfig).restore(checkpoint)
    with pytest.raises(CheckpointError, match="the checkpoint normalises observations, this run nothing"):
        make(normalize_observations=False).restore(checkpoint)


@pytest.mark.parametrize(
    ("config", "settings", "line"),
    [
        (ESConfig, {"population_size": 7}, "population_size must be an even number of at least 2"),
        (ESConfig, {"fan_out": 1}, "fan_out must be 0, or at least 2, not 1"),
        (ESConfig, {"stragglers": "next", "fan_out": 2}, "fan_out must be 0 with stragglers next"),
        (ESConfig, {"spare_pairs": 2}, "spare_pairs must be 0 where stragglers are waited for, not 2"),
        (ESConfig, {"stop_at_return": 1.0, "centre_episodes": 0}, "centre_episodes must be at least 1 with stop_at"),
        (ESConfig, {"spread": 0.0}, "spread must be greater than 0, not 0.0"),
        (ARSConfig, {"top": 9}, r"top must be from 0 \(all\) to the 8 pairs, not 9"),
        (CMAESConfig, {"stragglers": "discard"}, "stragglers must be wait: CMA-ES ranks its whole population"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(config, settings, line):
    with pytest.raises(ConfigError, match=f"^{line}[^\n]*$"):
        config(**settings)


def test_a_net_that_is_too_large_for_its_covariance_is_refused_in_one_line(make):
    with pytest.raises(ConfigError, match=r"^CMA-ES is for 2 to 2,000 parameters; this search has [^\n]*$"):
        make(CMAES, CMAESConfig, hidden_sizes=(64, 64))


def test_a_table_that_is_shorter_than_a_vector_is_refused_in_one_line(make):
    with pytest.raises(ConfigError, match=r"^a table of 10 numbers of noise is too short[^\n]*$"):
        make(noise="table", noise_table_length=10)


def test_a_table_that_no_memory_holds_is_refused_in_one_line(make):
    with pytest.raises(ConfigError, match=r"^noise_table_length 1,000,[0,]*: so many numbers need [^\n]*$"):
        make(noise="table", noise_table_length=10**15)
