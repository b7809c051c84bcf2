"""Films of evaluation episodes: the episode that is played, frame by frame, in a file that a player can read."""

import os
import subprocess
import sys

import imageio
import numpy as np
import pytest

from shoal.rllib.config import ConfigError
from shoal.rllib.rollouts.evaluation import play
from shoal.rllib.training.video import check, record


class Still:
    """Always the same action."""

    def act(self, observations, states=None, masks=None, *, deterministic, rng=None):
        count = len(next(iter(observations.values())))
        return np.zeros((count, 1), np.int64), np.zeros((count, 0), np.float32)


FILMED = "shoal.envs.probes:Filmed"


def test_a_film_shows_the_reset_and_every_step_of_the_episode_that_is_evaluated(tmp_path):
    played = record(FILMED, Still(), tmp_path / "film.mp4", seed=3, episode=2)
    assert (played.episode_return, played.length) == (play(FILMED, Still(), 3, 3).returns[2], 5)
    film = imageio.get_reader(tmp_path / "film.mp4")
    assert film.get_meta_data()["fps"] == 10
    frames = [np.asarray(frame) for frame in film]
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 6
    assert [int(frame[16].mean(axis=1).argmax()) // 8 for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [place.name for place in tmp_path.iterdir()] == ["film.mp4"]


def test_what_can_be_filmed_passes_and_what_cannot_is_one_line(monkeypatch):
    check(FILMED)
    for name in ("shoal.envs.probes:Corridor", "HalfCheetah-v5+no"):
        with pytest.raises(Exception, match=r"render_mode|no") as caught:
            check(name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"a film needs imageio and imageio_ffmpeg: pip install 'shoal\[video\]'"):
        check(FILMED)


def test_an_environment_that_gives_no_picture_is_told(monkeypatch):
    monkeypatch.setattr("shoal.envs.probes.Filmed.render", lambda self: None)
    with pytest.raises(ConfigError, match=r"Filmed' cannot be filmed: its render\(\) gives NoneType"):
        check(FILMED)


def test_a_film_that_fails_leaves_nothing(tmp_path, monkeypatch):
    from shoal.envs import probes

    draw = probes.Filmed.render
    monkeypatch.setattr(probes.Filmed, "render", lambda self: draw(self) if self._position < 3 else 1 / 0)
    with pytest.raises(Exception, match="its render raised ZeroDivisionError"):
        record(FILMED, Still(), tmp_path / "film.mp4", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_screen_is_no_reason_to_complain():
    headless = {name: value for name, value in os.environ.items() if name not in _SCREENS}
    program = "from shoal.rllib.training import video; video.check('CartPole-v1')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=headless
    )
    assert done.stderr == ""


_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER")
