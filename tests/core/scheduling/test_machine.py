"""What a machine offers, by the arguments of init and the environment."""

import pytest

from shoal.core.scheduling import machine


def offer(environ=(), **given):
    told = {"num_cpus": 2, "num_gpus": 0, "memory_bytes": 100.0, "store_bytes": 50, "resources": None, "labels": None}
    return machine.offer(**{**told, **given}, environ=dict(environ))


def test_a_node_has_rays_resources():
    """object_store_memory, node:<address> and node:__internal_head__ stand in cluster_resources of Ray 2.60."""
    assert offer(resources={"custom": 0.5}).resources == {
        "CPU": 20_000,
        "memory": 1_000_000,
        "custom": 5_000,
        "object_store_memory": 500_000,
        "node:127.0.0.1": 10_000,
        "node:__internal_head__": 10_000,
    }


def test_gpus_are_numbered_unless_the_environment_names_them():
    assert offer(num_gpus=2).gpus == ["0", "1"]
    assert not offer(num_gpus=2).gpus_listed
    named = offer({"CUDA_VISIBLE_DEVICES": "3, GPU-5a"}, num_gpus=1)
    assert (named.gpus, named.gpus_listed) == (["3"], True)


def test_more_gpus_than_are_visible_are_refused():
    with pytest.raises(ValueError, match="num_gpus=2, but CUDA_VISIBLE_DEVICES='3' leaves 1 visible"):
        offer({"CUDA_VISIBLE_DEVICES": "3"}, num_gpus=2)


def test_gpus_that_are_not_named_are_those_that_the_machine_has(monkeypatch):
    monkeypatch.setattr(machine, "_installed_gpus", lambda: 3)
    monkeypatch.setattr(machine, "_model", lambda: "H200")
    found = offer(num_gpus=None)
    assert found.resources["GPU"] == 30_000
    assert found.resources["accelerator_type:H200"] == 10_000
    assert found.labels == {"ray.io/accelerator-type": "H200"}
    assert offer({"CUDA_VISIBLE_DEVICES": "1"}, num_gpus=None).gpus == ["1"]
    assert "GPU" not in offer({"CUDA_VISIBLE_DEVICES": ""}, num_gpus=None).resources
    assert "GPU" not in offer(num_gpus=0).resources


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("Model: \t\t NVIDIA H200\nIRQ: 5\n", "H200"),
        ("Model: Tesla V100-SXM2-16GB\n", "V100"),
        ("Model: NVIDIA A100-SXM4-40GB\n", "A100"),
        ("IRQ: 5\n", ""),
    ],
)
def test_the_model_of_a_gpu_is_named_as_in_ray(monkeypatch, tmp_path, text, model):
    """Ray 2.60 takes the capitals and digits after the first word of the name."""
    information = tmp_path / "information"
    information.write_text(text)
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: [str(information)])
    assert machine._model() == model


def test_visible_gpus():
    assert machine.visible_gpus({}) is None
    assert machine.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert machine.visible_gpus({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}) == []
    assert machine.visible_gpus({"CUDA_VISIBLE_DEVICES": "0,2"}) == ["0", "2"]
