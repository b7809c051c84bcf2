"""The zoo's entries can be made into configs, and its results are read as they were written."""

import json

import pytest

from shoal.algorithms import config_class, zoo
from shoal.envs import registry
from shoal.rllib.config import ConfigError


@pytest.mark.parametrize("entry", zoo.ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_is_a_valid_config_of_an_environment_that_there_is(entry):
    config = entry.config(seed=7)
    assert isinstance(config, config_class(entry.algorithm))
    assert config.seed == 7
    registry.check(config.env)
    assert {name: getattr(config, name) for name in entry.settings} == dict(entry.settings)


def test_a_name_that_the_zoo_does_not_have_is_refused_with_the_one_meant():
    with pytest.raises(ConfigError, match=r"zoo has no 'Hopper-v4' \(did you mean Hopper-v5\?\): it has Cart"):
        zoo.find("Hopper-v4")


def test_the_results_of_this_repository_are_of_its_entries():
    assert set(zoo.measured()) <= {entry.name for entry in zoo.ENTRIES}


def test_without_a_file_nothing_was_measured_and_a_damaged_one_is_named(tmp_path):
    assert zoo.measured(tmp_path / "none.json") == {}
    for text in ("{", "[]", json.dumps({"CartPole-v1": {"steps": 3}})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigError, match=r"bad\.json is damaged"):
            zoo.measured(tmp_path / "bad.json")
