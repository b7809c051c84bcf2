"""What stands in deploy/ is valid, fits together, and names commands and versions that there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.algorithms.ppo import PPOConfig
from shoal.scripts import command_line, train

pytestmark = pytest.mark.ray

ROOT = Path(shoal.__path__[0]).resolve()
DEPLOY = ROOT / "deploy"
VERSIONS = dict(re.findall(r"^([\w-]+)==([^;\s]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
RAY_IMAGE = f"rayproject/ray:{VERSIONS['ray']}-py311"


def documents(name: str) -> list[dict[str, Any]]:
    import yaml  # Ray brings it

    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    claim, job = documents("kuberay.yaml")
    assert (claim["kind"], job["kind"], job["apiVersion"]) == ("PersistentVolumeClaim", "RayJob", "ray.io/v1")
    assert {mount["claimName"] for mount in _claims(job)} == {claim["metadata"]["name"]}
    return job


def _claims(job: dict[str, Any]) -> list[dict[str, Any]]:
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return [volume["persistentVolumeClaim"] for volume in pod["volumes"]]


def commands(text: str) -> list[list[str]]:
    """Every `shoal train` in a text, taken apart."""
    return [shlex.split(found) for found in re.findall(r"shoal (train [^`'\n]*)", text)]


def check_train(arguments: list[str]) -> None:
    options = command_line.parse(train.Options[PPOConfig], arguments, prog="shoal train", description="")
    options.session.check()
    assert (options.session.engine, options.session.address) == ("ray", "auto")


def test_the_job_runs_a_command_that_there_is(job):
    entrypoint = shlex.split(job["spec"]["entrypoint"])
    assert entrypoint[:2] == ["shoal", "train"]
    check_train(entrypoint[2:])


def test_every_pod_has_the_version_that_was_tested_and_resources_that_are_sure(job):
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == VERSIONS["ray"]
    assert f"FROM {RAY_IMAGE}\n" in (DEPLOY / "Dockerfile").read_text()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [container for group in groups for container in group["template"]["spec"]["containers"]]
    assert {container["image"] for container in containers} == {f"registry.example.com/shoal:{shoal.__version__}"}
    for container in containers:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= {*container["resources"]["limits"]}
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())


def test_the_pods_have_room_for_the_rollout_workers(job):
    cluster = job["spec"]["rayClusterSpec"]
    wanted = int(re.findall(r"--num-workers (\d+)", job["spec"]["entrypoint"])[0])
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    (container,) = group["template"]["spec"]["containers"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert group["replicas"] * int(container["resources"]["limits"]["cpu"]) >= wanted


def test_the_job_leaves_no_cluster_and_keeps_its_results(job):
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    (container,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    assert f"--run-dir {mount['mountPath']}/" in job["spec"]["entrypoint"]


def test_the_launchers_file_is_one_for_ray():
    import jsonschema
    import ray.autoscaler

    (config,) = documents("cluster.yaml")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["docker"]["image"] == RAY_IMAGE
    assert config["head_node_type"] in config["available_node_types"]
    assert (config["max_workers"], config["provider"]["type"]) == (2, "aws")


def test_the_launchers_machines_get_the_libraries_that_workers_need():
    from shoal.core.engines.ray_cluster import libraries  # imports ray

    (config,) = documents("cluster.yaml")
    (target,) = config["file_mounts"]
    (libraries_everywhere,), (on_the_head,) = config["setup_commands"], config["head_setup_commands"]
    assert {*libraries.CORE, *libraries.ROLLOUT} == {*libraries_everywhere.split()[4:]}
    assert on_the_head.endswith(f" {target}")
    for command in (libraries_everywhere, on_the_head):
        assert command.startswith(f"pip install --constraint {target}/constraints.txt ")


@pytest.mark.parametrize("name", ["deploy/cluster.yaml", "deploy/kuberay.yaml", "README.md"])
def test_commands_in_comments_and_in_the_readme_are_true(name):
    found = [command for command in commands((ROOT / name).read_text()) if "--engine" in command]
    assert found
    for _, *arguments in found:
        if "--address" in arguments and "auto" in arguments:
            check_train(arguments)


def test_the_image_takes_no_folder_that_git_ignores():
    folders = re.findall(r"^([^#\n]+)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()[1:]
    assert left_out == [".git", *(f"**/{folder}" for folder in folders)]
