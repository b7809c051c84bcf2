"""Copies of the folders that work is to run in, made once per content: what workers see does not change under them.

    <session>/environments/<hash of the content>/...

A copy is named after what is in it, so the same content lies there once, whoever names it. It is removed with the
session. Left out: what ``.gitignore`` and ``.rayignore`` files and `excludes` say, ``.git``, virtual environments named
``venv`` or ``.venv``, ``__pycache__``, and whatever is no file, folder or link. A link that stays inside the folder is
kept as one; one that leaves it points to the place itself, of which there is no copy.

Not here: what is copied for whom (resolved.py).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .ignore_rules import Rules, is_ignored

#: What nobody wants in a copy, as Ray has it.
_ALWAYS = (".git", ".venv", "venv", "__pycache__")
#: Files of patterns, the later one overrules the earlier.
_IGNORE_FILES = (".gitignore", ".rayignore")
_CHUNK_BYTES = 1024 * 1024


def take(source: str, target: str, *, excludes: Sequence[str], limit_bytes: int, name: str = "") -> str:
    """Copy a folder or file to a new folder below `target`, unless its like is there already.

    Args:
      excludes: patterns as in ``.gitignore``.
      limit_bytes: most that the files may have together.
      name: what the folder or file is called inside the copy; empty: the folder's content stands there directly.

    Returns:
      The folder.

    Raises:
      ValueError: there is no such folder or file, or it is too large.
      OSError: a file cannot be read, or there is no room for the copy.
    """
    if not os.path.exists(source):
        raise ValueError(f"{source!r} does not exist")
    os.makedirs(target, exist_ok=True)
    draft = tempfile.mkdtemp(prefix="draft-", dir=target)
    try:
        digest = hashlib.sha256(name.encode() + b"\0")
        _copy(source, os.path.join(draft, name) if name else draft, excludes, limit_bytes, digest)
        place = os.path.join(target, digest.hexdigest()[:32])
        try:
            os.rename(draft, place)
        except OSError:
            if not os.path.isdir(place):
                raise  # else another process, or this one before, has made it
        return place
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # gone, if it has become the copy


def _copy(source: str, draft: str, excludes: Sequence[str], limit_bytes: int, digest: hashlib._Hash) -> None:
    left = limit_bytes
    sizes: list[tuple[int, str]] = []
    entries = walk(source, excludes) if os.path.isdir(source) else iter([("", os.stat(source))])
    os.makedirs(draft if os.path.isdir(source) else os.path.dirname(draft), exist_ok=True)
    for path, status in entries:
        origin, copy = os.path.join(source, path) if path else source, os.path.join(draft, path) if path else draft
        digest.update(
            f"{path}\0{stat.S_IFMT(status.st_mode)}\0{status.st_mode & 0o111}\0".encode("utf-8", "surrogateescape")
        )
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(copy)
        elif stat.S_ISLNK(status.st_mode):
            goal = _goal(origin, source)
            digest.update(os.fsencode(goal) + b"\0")
            os.symlink(goal, copy)
        else:
            left -= status.st_size
            sizes.append((status.st_size, path))
            if left < 0:
                largest = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for size, name in sorted(sizes)[:-4:-1])
                raise ValueError(
                    f"{source!r} has more than {limit_bytes / 1e6:.0f} MB to copy; the largest so far: {largest}. "
                    "Leave out what the work does not need (.gitignore, excludes=[...]), or raise SHOAL_SNAPSHOT_BYTES"
                )
            digest.update(_copy_file(origin, copy, status.st_mode))


def walk(root: str, excludes: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    """(path below `root`, ``lstat``) of everything to copy, folders before what is in them, in the order of names."""
    first = [Rules.of(_ALWAYS), Rules.of(excludes)]
    pending: list[tuple[str, list[Rules]]] = [("", first)]
    while pending:
        folder, outer = pending.pop()
        stack = [*outer[:-1], *_rules_in(root, folder), outer[-1]]  # excludes have the last word
        inner = []
        for entry in sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name):
            path = folder + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            status = entry.stat(follow_symlinks=False)
            wanted = is_folder or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
            if wanted and not is_ignored(path, stack, is_folder=is_folder):
                yield path, status
                if is_folder:
                    inner.append((f"{path}/", stack))
        pending += reversed(inner)


def _rules_in(root: str, folder: str) -> list[Rules]:
    files = [path for name in _IGNORE_FILES if (path := Path(root, folder, name)).is_file()]
    return [Rules.of(path.read_text("utf-8", "surrogateescape").splitlines(), folder) for path in files]


def _goal(link: str, root: str) -> str:
    """Where the copy of a link points: to the same place in the copy, or out of it to the place itself."""
    real, top = os.path.realpath(link), os.path.realpath(root)
    if real == top or real.startswith(top + os.sep):
        return os.path.relpath(real, os.path.join(top, os.path.dirname(os.path.relpath(link, root))))
    return real


def _copy_file(origin: str, copy: str, mode: int) -> bytes:
    """Copy and hash, in one reading."""
    digest = hashlib.sha256()
    with open(origin, "rb") as source, open(copy, "wb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    os.chmod(copy, stat.S_IMODE(mode) | stat.S_IRUSR)
    return digest.digest()
