"""The base config: its checks, and the trip through JSON."""

import json
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from shoal.rllib.config import AlgorithmConfig, ConfigError, RolloutSettings, from_dict, require, to_dict


@dataclass(frozen=True, kw_only=True)
class Sample(RolloutSettings, AlgorithmConfig):
    """One field of each kind that algorithms use."""

    gamma: float = 0.99
    hidden_sizes: tuple[int, ...] = (64, 64)
    target_kl: float | None = None
    order: Literal["shuffled", "given"] = "shuffled"
    anneal: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_rollouts(self.num_workers)
        require(self, "gamma", 0 <= self.gamma <= 1, "from 0 to 1")


def test_the_defaults_are_valid():
    AlgorithmConfig()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_workers": -2}, "num_workers must be at least 1, not -2"),
        ({"num_workers": 0}, "num_workers must be at least 1, not 0"),
        ({"num_workers": 4, "num_envs": 3}, "num_envs must be at least num_workers (4), not 3"),
        ({"env_groups": 5}, "env_groups must be at most the copies of a worker (4), not 5"),
        ({"env_groups": 0}, "env_groups must be at least 1, not 0"),
        (
            {"env_groups": 2, "vector": "batched"},
            "env_groups must be 1 where vector is neither parallel nor serial, not 2",
        ),
        ({"env_processes": 2}, "env_processes must be 0 where vector is not parallel, not 2"),
        ({"num_inference_actors": 0}, "num_inference_actors must be at least 1, not 0"),
        (
            {"inference": "actor", "num_inference_actors": 3},
            "num_inference_actors must be at most num_workers (2), not 3",
        ),
        ({"num_inference_actors": 2}, "num_inference_actors must be 1 where inference is local, not 2"),
        ({"inference_device": "cuda"}, "inference_device must be cpu where inference is local, not 'cuda'"),
        ({"total_steps": 0}, "total_steps must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"eval_interval_steps": -1}, "eval_interval_steps must be at least 0, not -1"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, mps, or cuda:INDEX, not 'gpu'"),
        ({"device": "cuda:"}, "device must be one of auto, cpu, cuda, mps, or cuda:INDEX, not 'cuda:'"),
        ({"device": "cpu:1"}, "device must be one of auto, cpu, cuda, mps, or cuda:INDEX, not 'cpu:1'"),
        ({"env": " "}, "env is empty: name an environment, CartPole-v1 for instance"),
        ({"gamma": 1.5}, "gamma must be from 0 to 1, not 1.5"),
        ({"target_kl": float("inf")}, "target_kl must be a finite number, not inf"),
        ({"target_kl": float("nan")}, "target_kl must be a finite number, not nan"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_it_may_be(change, text):
    with pytest.raises(ConfigError) as caught:
        Sample(**change)
    assert str(caught.value) == text


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_every_device_that_help_mentions_is_accepted(device):
    assert Sample(device=device).device == device


def test_replace_checks_the_new_values_too():
    with pytest.raises(ConfigError):
        replace(Sample(), num_workers=-1)


def test_a_config_survives_the_trip_through_json():
    config = Sample(seed=7, gamma=0.5, hidden_sizes=(32,), target_kl=0.02, order="given", anneal=False)
    assert from_dict(Sample, json.loads(json.dumps(to_dict(config)))) == config


def test_fields_left_out_take_their_defaults():
    assert from_dict(Sample, {"seed": 3}) == Sample(seed=3)


def test_an_unknown_key_is_an_error_that_offers_the_nearest():
    told = r"^Sample has no field 'num_worker' \(did you mean num_workers\?\): it has env, .*, anneal$"
    with pytest.raises(ConfigError, match=told):
        from_dict(Sample, {"num_worker": 2})
    with pytest.raises(ConfigError, match=r"^Sample has no field 'zzz': it has env, num_workers, .*, anneal$"):
        from_dict(Sample, {"zzz": 2})


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"num_workers": "2"}, "num_workers must be int, not '2'"),
        ({"num_workers": True}, "num_workers must be int, not True"),
        ({"seed": 1.0}, "seed must be int, not 1.0"),
        ({"hidden_sizes": 64}, "hidden_sizes must be a list of int, not 64"),
        ({"hidden_sizes": [64, "x"]}, "hidden_sizes must be a list of int, not [64, 'x']"),
        ({"target_kl": "low"}, "target_kl must be float or None, not 'low'"),
        ({"order": "random"}, "order must be one of 'shuffled', 'given', not 'random'"),
    ],
)
def test_a_value_of_another_type_is_refused(mapping, text):
    with pytest.raises(ConfigError) as caught:
        from_dict(Sample, mapping)
    assert str(caught.value) == text


def test_a_whole_number_may_stand_for_a_float():
    config = from_dict(Sample, {"gamma": 1, "target_kl": 2})
    assert (type(config.gamma), type(config.target_kl)) == (float, float)
