"""What `init` accepts, what it notes in the log, and what it refuses."""

from __future__ import annotations

import logging

import pytest

from shoal.core.initialization import init_options
from shoal.core.ray_compat.job_config import JobConfig


@pytest.mark.parametrize("name", sorted(init_options.HIDDEN))
def test_hidden_arguments_of_ray_are_accepted_with_a_line_in_the_debug_log(name, caplog):
    with caplog.at_level(logging.DEBUG, "shoal"):
        init_options.check_hidden({name: 1})
        init_options.check_on_this_machine({name: 1})
    assert [record.getMessage() for record in caplog.records] == [f"shoal.init: without effect on one machine: {name}"]


def test_what_is_not_given_is_not_noted(caplog):
    with caplog.at_level(logging.DEBUG, "shoal"):
        init_options.check_hidden({})
        init_options.check_on_this_machine({"dashboard_port": None, "include_dashboard": False})
    assert caplog.records == []


def test_misspelt_arguments_are_named():
    with pytest.raises(RuntimeError, match=r"^Unknown keyword argument\(s\): num_cpu, colour$"):
        init_options.check_hidden({"num_cpu": 2, "_temp_dir": "/x", "colour": 1})


@pytest.mark.parametrize("name", ["storage", "allow_multiple"])
def test_what_ray_has_given_up_is_told(name):
    with pytest.raises(RuntimeError, match=name):
        init_options.check_hidden({name: "x"})


@pytest.mark.parametrize("address", [None, "local"])
def test_this_machine_is_an_address(address):
    init_options.check_address(address)


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("auto", ConnectionError, "Could not find any running Ray instance"),
        ("10.0.0.1:6379", RuntimeError, "a cluster of several machines"),
        ("ray://host:10001", RuntimeError, "Ray Client"),
        (6379, TypeError, "address is a text"),
    ],
)
def test_addresses_elsewhere_are_refused(address, error, text):
    with pytest.raises(error, match=text):
        init_options.check_address(address)


def test_namespaces_are_texts_and_by_default_nobody_elses():
    assert init_options.check_namespace("mine") == "mine"
    assert init_options.check_namespace(None) != init_options.check_namespace(None)
    with pytest.raises(TypeError, match="must be None or a string"):
        init_options.check_namespace(3)
    with pytest.raises(ValueError, match='"" is not a valid namespace'):
        init_options.check_namespace("")


def test_promises_that_cannot_be_kept_are_refused():
    with pytest.raises(RuntimeError, match="`local_mode` is no longer supported"):
        init_options.check_promises(local_mode=True)
    with pytest.raises(RuntimeError, match="cgroups"):
        init_options.check_on_this_machine({"enable_resource_isolation": True})
    with pytest.raises(ValueError, match="Ray starts its workers itself"):
        init_options.check_preload_on_ray(["json"])


def test_a_job_config_must_be_one():
    assert init_options.check_job_config(None).runtime_env == {}
    with pytest.raises(TypeError, match="JobConfig"):
        init_options.check_job_config({})
    with pytest.raises(RuntimeError, match="detached"):
        init_options.check_job_config(JobConfig(default_actor_lifetime="detached"))
    with pytest.raises(RuntimeError, match="Java"):
        init_options.check_job_config(JobConfig(jvm_options=["-x"]))


def test_the_jobs_runtime_env_is_merged_into_the_drivers():
    merged = init_options.merged_runtime_env
    injected = '{"runtime_env": {"working_dir": "w", "env_vars": {"A": "1"}}}'
    assert merged({"excludes": ["x"]}, None, override=False) == {"excludes": ["x"]}
    assert merged(None, "{}", override=False) is None
    assert merged({"env_vars": {"B": "2"}}, injected, override=False) == {
        "working_dir": "w",
        "env_vars": {"A": "1", "B": "2"},
    }
    for own in ({"working_dir": "mine"}, {"env_vars": {"A": "mine"}}):
        with pytest.raises(ValueError, match="Failed to merge"):
            merged(own, injected, override=False)
    assert merged({"env_vars": {"A": "mine"}}, injected, override=True) == {
        "working_dir": "w",
        "env_vars": {"A": "mine"},
    }
