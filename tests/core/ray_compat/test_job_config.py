"""Ray's objects for settings: a job's, and how loggers write."""

from __future__ import annotations

import json
import logging

import pytest

import shoal
from shoal.core.ray_compat.job_config import JobConfig, LoggingConfig


@pytest.fixture
def root():
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], level = before
    logger.setLevel(level)


def test_json_lines_have_rays_fields_and_what_is_given(root, capsys):
    LoggingConfig(encoding="JSON", log_level="INFO", additional_log_standard_attrs=["name"]).apply()
    logging.getLogger("mine").debug("not this")
    logging.getLogger("mine").info("text %d", 3, extra={"colour": "red"})
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["levelname"], told["message"], told["name"], told["colour"]) == ("INFO", "text 3", "mine", "red")
    assert told["filename"] == "test_job_config.py"


def test_lines_of_text_name_the_place(root, capsys):
    LoggingConfig(additional_log_standard_attrs=["name"]).apply()
    logging.getLogger("mine").warning("text", extra={"colour": "red"})
    line = capsys.readouterr().err
    assert "WARNING test_job_config.py:" in line
    assert line.endswith("-- text name=mine colour=red\n")


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="Invalid encoding type"):
        LoggingConfig(encoding="XML")
    with pytest.raises(ValueError, match="no nonsense"):
        LoggingConfig(additional_log_standard_attrs=["nonsense"])
    with pytest.raises(ValueError, match="lifetime"):
        JobConfig(default_actor_lifetime="eternal")


def test_a_job_config_is_filled_bit_by_bit_and_from_json():
    config = JobConfig()
    config.set_runtime_env({"env_vars": {"A": "1"}})
    config.set_ray_namespace("mine")
    config.set_metadata("k", "v")
    same = JobConfig.from_json(
        {"runtime_env": {"env_vars": {"A": "1"}}, "ray_namespace": "mine", "metadata": {"k": "v"}}
    )
    assert vars(config) == vars(same)


def test_they_are_where_ray_has_them():
    assert shoal.LoggingConfig is LoggingConfig
    assert shoal.Language.PYTHON == 0
