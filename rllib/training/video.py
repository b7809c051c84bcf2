"""An evaluation episode as a film: the environment draws each step, imageio and ffmpeg write them down as MP4.

The episode is the one that an evaluation with the same seed plays, step for step. Frames go to ffmpeg as they come, so
a long episode needs no memory; the file has its name only when it is whole. imageio is imported when it is needed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import registry
from ...envs.copies import EnvCopy
from ...envs.vector import USUAL_CHECKS, Checks, EnvFailure, Episode
from ..config import ConfigError
from ..rollouts.evaluation import Actor, play_watched

if TYPE_CHECKING:
    import gymnasium

#: Pictures in a second where the environment does not say (`metadata["render_fps"]`).
USUAL_FPS = 30
#: What ffmpeg wants of width and height: with 2 the colours of yuv420p fit, which every player shows.
_MULTIPLE = 2


def record(
    env_id: str, policy: Actor, path: Path, *, seed: int, episode: int = 0, checks: Checks = USUAL_CHECKS
) -> Episode:
    """Play an evaluation episode and write it to ``path``, an MP4; the folder must be there.

    Args:
      env_id: The environment's name.
      policy: What acts, with its likeliest actions.
      path: Where to; replaced if it is there.
      seed: Of the evaluation.
      episode: Which of its episodes.
      checks: Which numbers of the environment are refused.

    Raises:
      ConfigError: the environment shows no pictures, or imageio is missing; one line.
      EnvFailure: the environment raised.
      OSError: the file cannot be written.
    """
    with _opened(env_id) as (copy, fps):
        beside = path.with_name(f".saving-{path.name}")
        try:
            with contextlib.closing(_writer(beside, fps)) as film:
                played = play_watched(
                    copy, policy, seed, episode, lambda: film.append_data(_frame(env_id, copy)), checks=checks
                )
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return played


def check(env_id: str) -> None:
    """Make sure that ``record`` would work, by drawing one picture.

    Raises:
      ConfigError: it would not; one line that says why and what to do.
      EnvFailure: the environment raised.
    """
    with _opened(env_id) as (copy, _):
        rows = copy.writer.rows(copy.writer.allocate(1))
        copy.reset(rows[0], 0)
        _frame(env_id, copy)


@contextlib.contextmanager
def _opened(env_id: str) -> Iterator[tuple[EnvCopy, float]]:
    """A copy that draws, and how many pictures make a second."""
    lacking = [name for name in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"a film needs {' and '.join(lacking)}: pip install 'shoal[video]'")
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) and sys.platform == "linux":
        # Pictures need no window, and SDL, by which pygame draws, complains on stderr where there can be none.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    made: list[gymnasium.Env[Any, Any]] = []

    def make() -> gymnasium.Env[Any, Any]:
        made.append(registry.make(env_id, render_mode="rgb_array"))
        return made[-1]

    try:
        copy = EnvCopy(make, 0)
    except EnvFailure as failure:
        headline = str(failure).partition("\n")[0]
        raise ConfigError(f"env: {env_id!r} cannot be filmed, with render_mode='rgb_array' {headline}") from failure
    try:
        yield copy, float(made[-1].metadata.get("render_fps") or USUAL_FPS)
    finally:
        copy.close()


def _writer(path: Path, fps: float) -> Any:
    import imageio

    return imageio.get_writer(path, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=_MULTIPLE)


def _frame(env_id: str, copy: EnvCopy) -> np.ndarray:
    frame = copy.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.dtype != np.uint8:
        shown = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ConfigError(f"env: {env_id!r} cannot be filmed: its render() gives {shown}, not bytes of [H, W, 3]")
    return frame
