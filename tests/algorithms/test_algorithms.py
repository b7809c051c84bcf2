import pytest

import shoal
from shoal import algorithms
from shoal.algorithms.appo import APPO, APPOConfig
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.rllib.config import ConfigError


@pytest.fixture(scope="module")
def one_process():
    shoal.init(engine="inline", num_cpus=1)
    yield
    shoal.shutdown()


def test_names_are_sorted_and_each_loads_to_its_class_and_config():
    assert list(algorithms.NAMES) == sorted(algorithms.NAMES)
    for name in algorithms.NAMES:
        assert algorithms.load(name).name == name
        assert algorithms.config_class(name) is algorithms.load(name).Config
    assert algorithms.load("appo") is APPO
    assert algorithms.config_class("appo") is APPOConfig
    assert algorithms.load("ppo") is PPO
    assert algorithms.config_class("ppo") is PPOConfig


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("PPO", "unknown algorithm 'PPO' (did you mean ppo?): choose from "),
        ("dqn", "unknown algorithm 'dqn': choose from "),
    ],
)
def test_an_unknown_name_is_refused_with_all_choices(name, told):
    with pytest.raises(ConfigError) as caught:
        algorithms.load(name)
    assert str(caught.value) == told + ", ".join(algorithms.NAMES)


@pytest.mark.parametrize("name", algorithms.NAMES)
def test_a_policy_that_no_memory_holds_is_refused_in_one_line_by_every_algorithm(one_process, name):
    config = algorithms.config_class(name)(env="CartPole-v1", num_workers=1, hidden_sizes=(10**7, 10**7))
    with pytest.raises(ConfigError, match=r"^hidden_sizes: a policy of such width has [0-9,]+ weights[^\n]*$"):
        algorithms.load(name)(config)
