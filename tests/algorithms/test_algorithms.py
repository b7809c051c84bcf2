import pytest

from shoal import algorithms
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.rllib.config import ConfigError


def test_names_are_sorted_and_each_loads_to_its_class_and_config():
    assert algorithms.NAMES == ("ppo",)
    assert algorithms.load("ppo") is PPO
    assert algorithms.config_class("ppo") is PPOConfig


@pytest.mark.parametrize(("name", "told"), [("PPO", "did you mean ppo"), ("dqn", "choose from ppo")])
def test_an_unknown_name_is_refused_with_the_choices(name, told):
    with pytest.raises(ConfigError, match=told):
        algorithms.load(name)
