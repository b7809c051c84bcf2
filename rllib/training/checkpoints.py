"""Checkpoints: what an algorithm must remember to go on learning, as a directory of plain files. Never pickle.

    step_000150000/
      manifest.json           schema version, shoal's version, algorithm, config, counters, extra; every other file
                              with its size and sha256; and the sha256 of all that
      policy.safetensors      one file per group of tensors: policy, optimizer, normalization, ...
      optimizer.safetensors

`save` writes into a folder beside the target, forces it to disk and renames it: under the final name there is either
nothing or a whole checkpoint, also after a power cut. `load` believes nothing: sizes and checksums are compared before
a tensor is read, and every failure is a `CheckpointError` of one line. Loading runs no code from the file, so a
checkpoint from a stranger can be wrong but not dangerous.

Algorithms turn themselves into a `Checkpoint` and back; scripts save, find (`latest`) and load. Arrays are numpy:
whoever needs torch tensors converts. One process at a time writes into a folder of checkpoints.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as tensors_from_bytes, save as tensors_to_bytes

#: Raised by one whenever an older shoal could no longer read what this one writes.
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SUFFIX = ".safetensors"
#: Folder of a run directory that holds its checkpoints, and how the folders in it are called.
FOLDER = "checkpoints"
#: Unfinished folders start with this; what a crash left of them, the next `save` beside them removes.
ASIDE = ".saving-"
STEP_NAME = re.compile(r"step_(\d+)")
BEST = "best"
#: The shape that an array must have; None where any length will do.
Shape = tuple[int | None, ...]
#: Group names become file names, so they are plain words.
GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, incomplete, of a newer schema, or none at all; or what was given cannot be
    saved.

    The text is one line: which path or which part, what is wrong with it, what to do. Trying again cannot help; an
    older checkpoint of the same run may.
    """


@dataclass(frozen=True)
class Checkpoint:
    """What an algorithm needs to go on learning as if it had not been interrupted."""

    algorithm: str
    """Its name, as in `--algo`."""
    config: dict[str, Any]
    """Its config as `config.to_dict` gives it."""
    counters: dict[str, int | float]
    """`steps`, `iteration` and what else it counts."""
    tensors: dict[str, dict[str, np.ndarray]]
    """Group (`policy`, `optimizer`, ...) -> name -> array of any shape, numeric or bool. One file per group."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Anything else of the algorithm's own; plain JSON values."""

    def counter(self, name: str) -> int:
        """A counter that there must be.

        Raises:
          CheckpointError: it is missing, or no whole number.
        """
        if name not in self.counters:
            counted = ", ".join(self.counters) or "nothing"
            raise CheckpointError(f"the checkpoint has no counter {name!r}; it counts {counted}")
        value = self.counters[name]
        if not isinstance(value, int):
            raise CheckpointError(f"the checkpoint's counter {name!r} is {value!r}, not a whole number")
        return value

    def group(self, name: str, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
        """A group of tensors that there must be.

        Args:
          name: of the group.
          shapes: the names and shapes of all arrays that it must have.

        Raises:
          CheckpointError: it is missing, lacks an array, has one too much, or one of another shape.
        """
        if name not in self.tensors:
            there = ", ".join(self.tensors) or "none"
            raise CheckpointError(f"the checkpoint has no tensors {name!r}; it has {there}")
        arrays = self.tensors[name]
        if lacking := sorted(shapes.keys() - arrays.keys()):
            raise CheckpointError(f"the checkpoint's tensors {name!r} lack {', '.join(lacking)}")
        if surplus := sorted(arrays.keys() - shapes.keys()):
            raise CheckpointError(f"the checkpoint's tensors {name!r} have {', '.join(surplus)} too much")
        for key, shape in shapes.items():
            has = arrays[key].shape
            if len(has) != len(shape) or any(want not in (None, size) for want, size in zip(shape, has, strict=True)):
                wanted = str(tuple(shape)).replace("None", "any")
                raise CheckpointError(f"the checkpoint's tensors {name!r}: {key} has shape {has}, not {wanted}")
        return arrays


def save(checkpoint: Checkpoint, directory: Path) -> Path:
    """Write a checkpoint so that it appears at once and whole, replacing an older one of the same name.

    Args:
      checkpoint: what to write.
      directory: its final place; the folders above are made.

    Returns:
      `directory`.

    Raises:
      CheckpointError: a group has no usable name, or a value is not JSON or not an array.
      OSError: the disk is full or not writable. What was at `directory` before is still there.
    """
    contents = {f"{group}{SUFFIX}": _encoded(group, arrays) for group, arrays in checkpoint.tensors.items()}
    manifest = _manifest(checkpoint, contents)
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left_over in directory.parent.glob(f"{ASIDE}*"):
        shutil.rmtree(left_over)
    aside = directory.parent / f"{ASIDE}{directory.name}"
    try:
        aside.mkdir()  # not by tempfile, which makes private folders: who may read results is the umask's to say
        for name, content in {**contents, MANIFEST: manifest}.items():
            _write_through(aside / name, content)
        _sync_folder(aside)
        _replace(aside, directory)
        _sync_folder(directory.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return directory


def load(directory: Path) -> Checkpoint:
    """Read a checkpoint after comparing every file with what the manifest says of it.

    Raises:
      CheckpointError: missing, not a checkpoint, damaged (names the file), or written by a newer shoal.
    """
    manifest = _read_manifest(directory)
    tensors = {}
    for name, told in manifest["files"].items():
        content = _read_checked(directory, name, told)
        try:
            tensors[name.removesuffix(SUFFIX)] = tensors_from_bytes(content)
        except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a dtype that numpy has no name for
            raise CheckpointError(f"{directory / name} is no tensor file that this shoal can read ({error})") from error
    return Checkpoint(tensors=tensors, **{key: manifest[key] for key in _PLAIN_FIELDS})


def latest(run_dir: Path) -> Path:
    """The newest complete checkpoint of a run directory, by step.

    Raises:
      CheckpointError: there is no such directory, or no complete checkpoint in it.
    """
    if not run_dir.is_dir():
        raise CheckpointError(f"{run_dir} is no directory: give the run directory of an earlier `shoal train`")
    steps = _by_step(run_dir)
    if not steps:
        raise CheckpointError(f"{run_dir} holds no checkpoint ({FOLDER}/step_*/{MANIFEST}): is it a run directory?")
    return max(steps)[1]


def place_for(run_dir: Path, steps: int) -> Path:
    """Where the checkpoint after so many environment steps belongs: `RUN_DIR/checkpoints/step_000150000`."""
    return run_dir / FOLDER / f"step_{steps:09d}"


def best_place(run_dir: Path) -> Path:
    """Where the checkpoint of a run's best evaluation belongs: `RUN_DIR/checkpoints/best`."""
    return run_dir / FOLDER / BEST


def keep_newest(run_dir: Path, count: int) -> None:
    """Remove all but the newest checkpoints of a run; never the best. A folder that is being removed has another name.

    Args:
      run_dir: the run directory.
      count: how many to keep, by step; 0 keeps all.

    Raises:
      OSError: one cannot be removed.
    """
    for _, place in sorted(_by_step(run_dir))[: -count if count else 0]:
        aside = place.parent / f"{ASIDE}{place.name}.removed"
        place.rename(aside)
        shutil.rmtree(aside)


def has_older(place: Path) -> bool:
    """Whether the run of this checkpoint, its newest, has kept another one to go on from."""
    return len(_by_step(place.parent.parent)) > 1


def _by_step(run_dir: Path) -> list[tuple[int, Path]]:
    """Steps and place of every complete checkpoint of a run but the best."""
    steps: list[tuple[int, Path]] = []
    if (run_dir / FOLDER).is_dir():
        for place in (run_dir / FOLDER).iterdir():
            name = STEP_NAME.fullmatch(place.name)
            if name and (place / MANIFEST).is_file():
                steps.append((int(name[1]), place))
    return steps


_PLAIN_FIELDS = ("algorithm", "config", "counters", "extra")
_FIELD_TYPES = {"algorithm": str, "config": dict, "counters": dict, "extra": dict, "files": dict}


def _encoded(group: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    if not GROUP_NAME.fullmatch(group):
        raise CheckpointError(f"tensor group {group!r} cannot be a file name: use letters, digits, '_', '-' and '.'")
    try:
        # The format stores bytes in row-major order and would write a transposed view wrongly.
        return tensors_to_bytes({key: np.ascontiguousarray(x).reshape(np.shape(x)) for key, x in arrays.items()})
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"tensor group {group!r} cannot be stored: {error!r}") from error


def _manifest(checkpoint: Checkpoint, contents: Mapping[str, bytes]) -> bytes:
    files = {name: {"bytes": len(content), "sha256": _checksum(content)} for name, content in contents.items()}
    about = {"schema_version": SCHEMA_VERSION, "shoal_version": _shoal_version()}
    plain = {key: getattr(checkpoint, key) for key in _PLAIN_FIELDS}
    body = {**about, **plain, "files": files}
    try:
        return json.dumps({**body, "sha256": _checksum(_canonical(body))}, indent=2).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint of {checkpoint.algorithm!r} holds what JSON cannot: {error}") from error


def _canonical(body: Mapping[str, Any]) -> bytes:
    """The same bytes before and after a trip through JSON, whatever the order of keys and the white space."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _shoal_version() -> str:
    try:
        return importlib.metadata.version("shoal")
    except importlib.metadata.PackageNotFoundError:  # a bare checkout; the version is for people, nothing reads it
        return "not installed"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk: without it a rename can be lost although the files survived."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(aside: Path, directory: Path) -> None:
    """Put the finished folder in its place.

    POSIX cannot rename a folder over one that has files, so an older checkpoint of the same name steps aside first. A
    crash between the two renames leaves no checkpoint under this name, but never half of one.
    """
    if not directory.exists():
        aside.rename(directory)
        return
    older = directory.parent / f"{ASIDE}{directory.name}.replaced"
    directory.rename(older)
    try:
        aside.rename(directory)
    except BaseException:  # Ctrl-C too
        if not directory.exists():
            older.rename(directory)
        raise
    shutil.rmtree(older, ignore_errors=True)  # what cannot be removed now, the next save removes


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint {directory} does not exist")
    path = directory / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{directory} is not a checkpoint: it has no {MANIFEST}")
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        raise CheckpointError(f"{path} is damaged: it has no schema_version")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise CheckpointError(
            f"{directory} was written by shoal {manifest.get('shoal_version')} in schema {manifest['schema_version']}; "
            f"this shoal reads up to {SCHEMA_VERSION}: install a newer one"
        )
    for key, kind in _FIELD_TYPES.items():
        if not isinstance(manifest.get(key), kind):
            raise CheckpointError(f"{path} is damaged: {key!r} is missing or of the wrong type")
    if manifest.pop("sha256", None) != _checksum(_canonical(manifest)):
        raise CheckpointError(f"{path} is damaged: its sha256 is not the one it was written with")
    return manifest


def _read_checked(directory: Path, name: str, told: Any) -> bytes:
    # A name with a slash would read outside the checkpoint.
    if not GROUP_NAME.fullmatch(name) or not name.endswith(SUFFIX) or not isinstance(told, dict):
        raise CheckpointError(f"{directory / MANIFEST} is damaged: its entry for {name!r} is malformed")
    path = directory / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{directory} is damaged: {name} cannot be read ({error.strerror})") from error
    if len(content) != told.get("bytes"):
        raise CheckpointError(f"{path} is damaged: {len(content)} bytes, the manifest says {told.get('bytes')}")
    if _checksum(content) != told.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its sha256 is not the one in the manifest")
    return content
