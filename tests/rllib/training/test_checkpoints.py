"""Checkpoints come back bit by bit, appear whole or not at all, and every damage is told in one line."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import (
    MANIFEST,
    Checkpoint,
    CheckpointError,
    best_place,
    keep_newest,
    latest,
    load,
    place_for,
    save,
)


@pytest.fixture
def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(3)
    return Checkpoint(
        algorithm="sample",
        config={"env": "CartPole-v1", "gamma": 0.99, "hidden_sizes": [64, 64], "target_kl": None},
        counters={"steps": 4096, "iteration": 2, "best": 21.5},
        tensors={
            "policy": {
                "weight": rng.standard_normal((4, 3), dtype=np.float32),
                "transposed": rng.standard_normal((2, 5)).T,
                "scalar": np.array(2.5),
                "empty": np.zeros((0, 3), np.float32),
            },
            "optimizer": {"steps": np.array([1, 2]), "mask": np.array([True]), "pixels": np.arange(4).astype("u1")},
            "nothing": {},
        },
        extra={"note": "é", "nan": [1, 2]},
    )


def assert_same(left: Checkpoint, right: Checkpoint) -> None:
    assert left.tensors.keys() == right.tensors.keys()
    for group, arrays in left.tensors.items():
        assert arrays.keys() == right.tensors[group].keys()
        for name, array in arrays.items():
            other = right.tensors[group][name]
            assert (array.dtype, array.shape) == (other.dtype, other.shape)
            np.testing.assert_array_equal(array, other)
    assert replace(left, tensors={}) == replace(right, tensors={})


def test_what_was_saved_is_loaded_bit_by_bit(checkpoint, tmp_path):
    assert_same(load(save(checkpoint, tmp_path / "a" / "b")), checkpoint)


def test_saving_leaves_only_the_checkpoint_and_replaces_an_older_one(checkpoint, tmp_path):
    save(checkpoint, tmp_path / "it")
    newer = replace(checkpoint, counters={"steps": 9}, tensors={"policy": {"w": np.ones(2)}})
    save(newer, tmp_path / "it")
    assert_same(load(tmp_path / "it"), newer)
    assert [place.name for place in tmp_path.iterdir()] == ["it"]
    assert sorted(place.name for place in (tmp_path / "it").iterdir()) == [MANIFEST, "policy.safetensors"]


def test_a_save_that_fails_half_way_leaves_the_older_one(checkpoint, tmp_path, monkeypatch):
    save(checkpoint, tmp_path / "it")
    fsyncs = []

    def full_disk(descriptor: int) -> None:
        fsyncs.append(descriptor)
        if len(fsyncs) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(replace(checkpoint, counters={}), tmp_path / "it")
    assert_same(load(tmp_path / "it"), checkpoint)
    assert [place.name for place in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_rename_that_fails_or_is_interrupted_puts_the_older_one_back(checkpoint, tmp_path, monkeypatch, error):
    save(checkpoint, tmp_path / "it")
    rename, renames = Path.rename, []

    def second_fails(self, target):
        renames.append(target)
        if len(renames) == 2:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(type(error)):
        save(replace(checkpoint, counters={}), tmp_path / "it")
    assert_same(load(tmp_path / "it"), checkpoint)
    assert [place.name for place in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_who_may_read_a_checkpoint_is_what_the_users_umask_says(checkpoint, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        for _ in ("new", "in place of an older one"):
            place = save(checkpoint, tmp_path / "it")
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == mode
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {mode & 0o666}


def test_what_a_killed_save_left_is_swept_by_the_next(checkpoint, tmp_path):
    (tmp_path / f"{checkpoints.ASIDE}abc").mkdir()
    (tmp_path / f"{checkpoints.ASIDE}abc" / "policy.safetensors").write_bytes(b"half")
    save(checkpoint, tmp_path / "it")
    assert [place.name for place in tmp_path.iterdir()] == ["it"]


def complaint(directory) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(directory)
    text = str(caught.value)
    assert "\n" not in text
    assert str(directory) in text
    return text


def test_a_missing_checkpoint_and_a_folder_that_is_none_are_told_apart(tmp_path):
    assert complaint(tmp_path / "gone").endswith("does not exist")
    assert "is not a checkpoint: it has no manifest.json" in complaint(tmp_path)


@pytest.mark.parametrize("position", [0, 40, -1])
def test_one_flipped_bit_in_a_tensor_file_is_found_and_the_file_is_named(checkpoint, tmp_path, position):
    path = save(checkpoint, tmp_path / "it") / "policy.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert "policy.safetensors is damaged: its sha256" in complaint(tmp_path / "it")


def test_a_cut_and_a_lost_file_are_found(checkpoint, tmp_path):
    path = save(checkpoint, tmp_path / "it") / "optimizer.safetensors"
    os.truncate(path, 10)
    assert "optimizer.safetensors is damaged: 10 bytes, the manifest says" in complaint(tmp_path / "it")
    path.unlink()
    assert "optimizer.safetensors cannot be read (No such file or directory)" in complaint(tmp_path / "it")


def test_a_changed_manifest_is_found(checkpoint, tmp_path):
    path = save(checkpoint, tmp_path / "it") / MANIFEST
    path.write_text(path.read_text().replace("4096", "4097"))
    assert "manifest.json is damaged: its sha256" in complaint(tmp_path / "it")


RUBBISH = [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": "one"}', b'{"schema_version": 1}']


@pytest.mark.parametrize("content", RUBBISH)
def test_any_rubbish_for_a_manifest_is_told_as_damage(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    assert "manifest.json is damaged" in complaint(tmp_path)


def test_a_newer_schema_asks_for_a_newer_shoal(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SCHEMA_VERSION", 99)
    save(checkpoint, tmp_path / "it")
    monkeypatch.undo()
    assert "in schema 99; this shoal reads up to 1: install a newer one" in complaint(tmp_path / "it")


@pytest.mark.parametrize("name", ["../outside.safetensors", "policy.pickle", ".safetensors"])
def test_a_manifest_cannot_name_files_outside_or_of_another_kind(checkpoint, tmp_path, name):
    path = save(checkpoint, tmp_path / "it") / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["files"] = {name: {"bytes": 1, "sha256": ""}}
    manifest["sha256"] = checkpoints._checksum(checkpoints._canonical(manifest))
    path.write_text(json.dumps(manifest))
    assert "its entry for" in complaint(tmp_path / "it")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tensors": {"../up": {}}}, "tensor group '../up' cannot be a file name"),
        ({"tensors": {"policy": {"w": np.array([object()])}}}, "tensor group 'policy' cannot be stored"),
        ({"extra": {"path": object()}}, "the checkpoint of 'sample' holds what JSON cannot"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(checkpoint, tmp_path, change, text):
    with pytest.raises(CheckpointError, match=text):
        save(replace(checkpoint, **change), tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


def test_latest_is_the_highest_step_that_is_complete(checkpoint, tmp_path):
    for steps in (200, 1_000_000_000, 90_000):
        save(checkpoint, place_for(tmp_path, steps))
    assert latest(tmp_path) == place_for(tmp_path, 1_000_000_000)
    (place_for(tmp_path, 1_000_000_000) / MANIFEST).unlink()
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step_000090000"


def test_latest_says_what_it_looked_for(tmp_path):
    with pytest.raises(CheckpointError, match="is no directory: give the run directory"):
        latest(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        latest(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "checkpoints" / "step_x")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        latest(tmp_path)


def test_what_a_reader_expects_in_a_checkpoint_and_does_not_find_is_named(checkpoint):
    assert checkpoint.counter("steps") == 4096
    with pytest.raises(CheckpointError, match="has no counter 'episodes'; it counts steps, iteration, best"):
        checkpoint.counter("episodes")
    with pytest.raises(CheckpointError, match="counter 'steps' is 'many', not a whole number"):
        replace(checkpoint, counters={"steps": "many"}).counter("steps")
    shapes = {"steps": (2,), "mask": (None,), "pixels": (4,)}
    assert checkpoint.group("optimizer", shapes) is checkpoint.tensors["optimizer"]
    with pytest.raises(CheckpointError, match="has no tensors 'critic'; it has policy, optimizer, nothing"):
        checkpoint.group("critic", {})
    with pytest.raises(CheckpointError, match="tensors 'optimizer' lack momentum, rate"):
        checkpoint.group("optimizer", {**shapes, "rate": (), "momentum": ()})
    with pytest.raises(CheckpointError, match="tensors 'optimizer' have pixels too much"):
        checkpoint.group("optimizer", {"steps": (2,), "mask": (1,)})
    with pytest.raises(CheckpointError, match=r"tensors 'optimizer': steps has shape \(2,\), not \(3,\)"):
        checkpoint.group("optimizer", {**shapes, "steps": (3,)})
    with pytest.raises(CheckpointError, match=r"tensors 'optimizer': steps has shape \(2,\), not \(any, any\)"):
        checkpoint.group("optimizer", {**shapes, "steps": (None, None)})


def test_only_the_newest_checkpoints_stay_and_the_best(tmp_path, checkpoint):
    for steps in (5, 30, 200):
        save(checkpoint, place_for(tmp_path, steps))
    save(checkpoint, best_place(tmp_path))
    keep_newest(tmp_path, 0)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4
    keep_newest(tmp_path, 2)
    names = {"step_000000030", "step_000000200", "best"}
    assert {place.name for place in (tmp_path / "checkpoints").iterdir()} == names
    assert latest(tmp_path) == place_for(tmp_path, 200)
    keep_newest(tmp_path / "elsewhere", 2)
