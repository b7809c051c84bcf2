"""What Ray's failures to connect become. That it connects is tested by everything that runs on it."""

from __future__ import annotations

import pytest

from shoal.core.engines.ray_cluster import connection
from shoal.core.engines.ray_cluster.connection import in_a_line
from shoal.core.errors import ClusterConnectionError, EngineUnavailableError

#: As Ray 2.60 words it.
MISMATCH = """Version mismatch: The cluster was started with:
    Ray: {}
    Python: {}
This process on node 10.0.0.7:6379 was started with:
    Ray: {}
    Python: {}
"""


class AuthenticationError(Exception):
    """As ray.exceptions has it."""


@pytest.mark.parametrize(
    ("versions", "change"),
    [
        (("2.59.0", "3.11.7", "2.60.0", "3.11.7"), "pip install 'ray==2.59.0' here"),
        (("2.60.0", "3.12.1", "2.60.0", "3.11.7"), "run the driver with Python 3.12.1"),
        (
            ("2.60.0", "3.11.9", "2.60.0", "3.11.7"),
            "run the driver with Python 3.11.9 (RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor lets it pass)",
        ),
        (
            ("2.59.0", "3.12.1", "2.60.0", "3.11.7"),
            "pip install 'ray==2.59.0' here and run the driver with Python 3.12.1",
        ),
    ],
)
def test_versions_that_differ_are_both_named_with_what_to_change(versions, change):
    verdict = in_a_line(RuntimeError(MISMATCH.format(*versions)), "head:6379")
    theirs, ours = f"Ray {versions[0]} and Python {versions[1]}", f"Ray {versions[2]} and Python {versions[3]}"
    assert isinstance(verdict, EngineUnavailableError)
    assert str(verdict) == f"the Ray cluster at head:6379 has {theirs}, this process {ours}: {change}"


def test_a_cluster_that_asks_for_a_token_is_told_so():
    refused = ConnectionError("Failed to connect to Ray cluster at 10.0.0.7:6379")
    refused.__cause__ = RuntimeError("...ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: ...")
    for error in (refused, AuthenticationError("no authentication token was found")):
        verdict = in_a_line(error, "head:6379")
        assert isinstance(verdict, ClusterConnectionError)
        assert "the Ray cluster at head:6379 asks for a token: set RAY_AUTH_MODE=token" in str(verdict)


def test_a_machine_of_another_cluster_is_told_to_join():
    refused = ConnectionError("Failed to connect to Ray cluster at 10.0.0.7:6379")
    refused.__cause__ = RuntimeError("No node info found matching attributes: '' when trying to resolve node to ...")
    verdict = in_a_line(refused, "head:6379")
    assert isinstance(verdict, ClusterConnectionError)
    assert "not one of the Ray cluster at head:6379" in str(verdict)


def test_a_machine_without_a_cluster_is_told_what_to_start():
    verdict = in_a_line(ConnectionError("Could not find any running Ray instance. Please specify ..."), None)
    assert isinstance(verdict, ClusterConnectionError)
    assert "no Ray cluster runs on this machine: start one (ray start --head)" in str(verdict)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionError("a\n  b"), ClusterConnectionError, "no Ray cluster answers at head:6379: a b"),
        (RuntimeError("a\n  b"), EngineUnavailableError, "Ray: a b"),
        (Exception("a\n  b"), EngineUnavailableError, "Ray: a b"),
        (ValueError("a\n  b"), ValueError, "Ray: a b"),
    ],
)
def test_what_else_ray_says_becomes_one_line(error, kind, text):
    verdict = in_a_line(error, "head:6379")
    assert type(verdict) is kind
    assert str(verdict) == text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("x"), EngineUnavailableError("x")])
def test_what_is_clear_already_stays_as_it_is(error):
    assert in_a_line(error, "head:6379") is None


def wishes(**given):
    return connection.Wishes(
        **{**dict.fromkeys(("address", "environment", "namespace", "logging")), "metadata": {}, "own": {}, **given}
    )


def test_a_cluster_that_runs_already_has_its_own_resources():
    connection.refuse_a_new_rays(wishes(own={"num_cpus": None, "include_dashboard": False}), "head:6379")
    with pytest.raises(ValueError, match=r"^num_cpus, labels: .*\(head:6379\) has its own.*address='local'"):
        connection.refuse_a_new_rays(wishes(own={"num_cpus": 2, "labels": {}}), "head:6379")


def test_a_connection_of_the_programs_own_keeps_what_it_was_told():
    connection.refuse_what_is_settled(wishes(address="auto"), "10.0.0.7:6379")
    connection.refuse_what_is_settled(wishes(address="10.0.0.7:6379"), "10.0.0.7:6379")
    with pytest.raises(ValueError, match=r"by ray\.init\(\): say num_gpus, namespace, address there"):
        connection.refuse_what_is_settled(wishes(address="b:1", namespace="x", own={"num_gpus": 1}), "10.0.0.7:6379")
