"""An Atari game, one copy, preprocessed as ``atari_options.py`` tells.

Straight over ALE's plain interface: gymnasium's wrappers for the same steps cost as much as the console itself. Lost
lives and unclipped rewards are told as ``copies.py`` reads them, so that the game goes on over lost lives, and episodes
are whole games with their true score.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .atari_options import AtariOptions
from .copies import LIFE_KEY, SCORE_KEY

#: Pixels of the console's picture.
SCREEN = (210, 160)
_NOOP, _FIRE, _AFTER_FIRE = 0, 1, 2


class AtariGame(gymnasium.Env[np.ndarray, np.int64]):
    """One copy of a game.

    Observations: [stack, size, size] uint8. Actions: the buttons that do something in this game.

    Args:
      game: ALE's name for it, "space_invaders".
      options: How to preprocess.

    Raises:
      ImportError: ale_py is not installed.
      ValueError: no such game.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - as gymnasium has it
    render_mode = "rgb_array"

    def __init__(self, game: str, options: AtariOptions = AtariOptions()) -> None:  # noqa: B008 - frozen
        import ale_py
        from ale_py import roms

        if game not in roms.get_all_rom_ids():
            raise ValueError(f"there is no Atari game {game!r}; names are like 'pong', 'space_invaders'")
        self._options, self._rom = options, str(roms.get_rom_path(game))
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets on stderr
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", options.sticky)
        self._ale.setInt("max_num_frames_per_episode", options.max_frames)
        self._ale.loadROM(self._rom)
        self._actions = self._ale.getMinimalActionSet()
        self._fires = options.fire_reset and len(self._actions) > _AFTER_FIRE
        self._fires = self._fires and self._actions[_FIRE] == ale_py.Action.FIRE
        self.observation_space = spaces.Box(0, 255, (options.stack, options.size, options.size), np.uint8)
        self.action_space = spaces.Discrete(len(self._actions))
        self._frames = np.zeros((2, *SCREEN), np.uint8)
        self._stack = np.zeros(self.observation_space.shape, np.uint8)
        self._rows, self._columns = (_Averages(length, options.size) for length in SCREEN)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None and self._options.sticky:  # the console's only chance; reading the ROM anew takes 5 ms
            self._ale.setInt("random_seed", seed)
            self._ale.loadROM(self._rom)
        self._ale.reset_game()
        if self._options.noop_max:
            for _ in range(int(self.np_random.integers(1, self._options.noop_max + 1))):
                self._ale.act(self._actions[_NOOP])
                if self._ale.game_over():
                    self._ale.reset_game()
        self._ale.getScreenGrayscale(self._frames[1])
        self._frames[0] = 0
        self._press_fire()
        if self._ale.game_over():
            self._ale.reset_game()
        self._stack[:] = self._picture()
        return self._stack.copy(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        lives = self._ale.lives()
        score = self._hold(self._actions[action])
        lost_life = self._options.episodic_life and 0 < self._ale.lives() < lives and not self._ale.game_over()
        if lost_life:
            score += self._press_fire()
        self._stack[:-1] = self._stack[1:]
        self._stack[-1] = self._picture()
        reward = float(np.sign(score)) if self._options.clip_rewards else float(score)
        truncated = self._ale.game_truncated()
        over = self._ale.game_over(with_truncation=False)
        told = {SCORE_KEY: score, LIFE_KEY: lost_life and not over}  # FIRE may have ended the game
        return self._stack.copy(), reward, over or lost_life, truncated, told

    def render(self) -> Any:
        """The console's picture, [210, 160, 3] uint8."""
        return self._ale.getScreenRGB()

    def _hold(self, action: Any) -> int:
        """Do an action for ``frame_skip`` frames; keeps the last two. Gives the sum of the rewards."""
        score = 0
        for left in reversed(range(self._options.frame_skip)):
            score += self._ale.act(action)
            if left < 2:
                self._ale.getScreenGrayscale(self._frames[1 - left])
            if self._ale.game_over():
                break
        return score

    def _press_fire(self) -> int:
        """Start the game, or serve the next ball, where it waits for that. Gives the sum of the rewards."""
        score = 0
        if self._fires:
            for action in (_FIRE, _AFTER_FIRE):
                if not self._ale.game_over():
                    score += self._hold(self._actions[action])
        return score

    def _picture(self) -> np.ndarray:
        """The larger of the last two frames, shrunk: [size, size] float32, for rounding into bytes."""
        larger = np.maximum(self._frames[0], self._frames[1]).astype(np.float32)
        picture: np.ndarray = np.rint(self._columns.of(self._rows.of(larger).T).T)
        return picture


class _Averages:
    """The average over each stretch of pixels, whole and cut ones, that falls on one of fewer pixels.

    Picks and adds: a product with a matrix of weights would do the same, but wakes all threads of the linear algebra
    for a tenth of a millisecond's work, which on a busy machine takes forty times as long.
    """

    def __init__(self, length: int, size: int) -> None:
        edges = np.arange(size + 1) * (length / size)
        left, right = edges[:-1, None], edges[1:, None]
        most = int(np.ceil(length / size)) + 1  # pixels that a stretch can touch
        pixels = np.floor(left) + np.arange(most)[None]
        covered = np.clip(np.minimum(right, pixels + 1) - np.maximum(left, pixels), 0.0, None)
        self._picks = np.minimum(pixels, length - 1).astype(np.int64).T
        self._weights = (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32).T[:, :, None]

    def of(self, lines: np.ndarray) -> np.ndarray:
        """[length, M] -> [size, M]."""
        total: np.ndarray = lines[self._picks[0]] * self._weights[0]
        for pick, weight in zip(self._picks[1:], self._weights[1:], strict=True):
            total += lines[pick] * weight
        return total
