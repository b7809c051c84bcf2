"""Vector environments of gymnasium, EnvPool and the Arcade Learning Environment, as ``foreign.py`` needs them.

Each library is imported when it is asked for: gymnasium is always there, EnvPool is the extra ``[envpool]``, ALE the
extra ``[atari]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .atari_options import AtariOptions
from .foreign import Autoreset, Infos
from .registry import MissingLibrary

if TYPE_CHECKING:
    import gymnasium


class Gymnasium:
    """A ``gymnasium.vector.VectorEnv`` in any of its autoreset modes, which it tells in its metadata.

    Args:
      env: What is wrapped, made and not yet reset.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self._env = env
        self.name = f"gymnasium's {type(env.unwrapped).__name__}{f' of {env.spec.id}' if env.spec else ''}"
        self.num_envs = env.num_envs
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        mode = env.metadata.get("autoreset_mode")
        if mode is None:
            raise ValueError(f'{self.name} does not say in metadata["autoreset_mode"] what it does when episodes end')
        self.autoreset = Autoreset(getattr(mode, "value", mode))

    def reset(self, seeds: list[int], which: np.ndarray | None) -> tuple[Any, Infos]:
        """See ``Foreign``."""
        from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

        options = None if which is None else {"reset_mask": which.copy()}
        if isinstance(self._env.unwrapped, AsyncVectorEnv | SyncVectorEnv):
            return self._env.reset(seed=seeds, options=options)  # type: ignore[arg-type]
        # Others promise no more than gymnasium's base class: one seed, from which copies are told apart inside. That of
        # the first copy that is meant: no other reset of the run has it.
        first = 0 if which is None else int(np.flatnonzero(which)[0])
        return self._env.reset(seed=seeds[first], options=options)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """See ``Foreign``."""
        return self._env.step(actions)

    def score(self, rewards: np.ndarray, infos: Infos) -> np.ndarray:
        """See ``Foreign``."""
        return rewards

    def is_over(self, ended: np.ndarray, infos: Infos) -> np.ndarray:
        """See ``Foreign``."""
        return ended

    def close(self) -> None:
        """See ``Foreign``."""
        self._env.close()


class EnvPool:
    """An environment of EnvPool, which steps its copies in threads of C++.

    Its autoreset is like gymnasium's NEXT_STEP (sail-sg/envpool#194; trained on as if it were not, Breakout earns half:
    vwxyzjn/cleanrl#475). Copies are seeded once, when they are made.

    Args:
      task: EnvPool's name for the environment.
      seeds: [N], of the copies.
      atari: How to preprocess, for Atari games.

    Raises:
      MissingLibrary: EnvPool is not installed.
    """

    autoreset = Autoreset.NEXT_STEP

    def __init__(self, task: str, seeds: list[int], atari: AtariOptions | None = None) -> None:
        try:
            import envpool
        except (ImportError, OSError) as error:  # it looks for its assets while it is imported
            raise MissingLibrary(
                f"{task} in EnvPool needs the library envpool: pip install 'shoal[envpool]' ({error})"
            ) from error
        self.name, self.num_envs, self._is_game = f"EnvPool's {task}", len(seeds), atari is not None
        options = {} if atari is None else atari.for_envpool()
        self._env = envpool.make_gymnasium(task, num_envs=self.num_envs, seed=seeds, **options)
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space

    def reset(self, seeds: list[int], which: np.ndarray | None) -> tuple[Any, Infos]:
        """See ``Foreign``. The seeds are those of the constructor, whatever comes here."""
        observations, infos = self._env.reset()
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """See ``Foreign``."""
        if actions.dtype == np.int64:
            actions = actions.astype(np.int32)
        observations, rewards, terminated, truncated, infos = self._env.step(actions)
        self._truncated = truncated
        return observations, rewards, terminated, truncated, infos

    def score(self, rewards: np.ndarray, infos: Infos) -> np.ndarray:
        """See ``Foreign``."""
        scores: np.ndarray = infos["reward"] if self._is_game else rewards
        return scores

    def is_over(self, ended: np.ndarray, infos: Infos) -> np.ndarray:
        """See ``Foreign``."""
        over: np.ndarray = (infos["terminated"] != 0) | self._truncated if self._is_game else ended
        return over

    def close(self) -> None:
        """See ``Foreign``."""
        self._env.close()


class AtariLearningEnvironment:
    """Copies of a game in ALE's own vector environment, which steps them in threads of C++.

    In SAME_STEP mode: DISABLED, which would give each episode a seed of its own, is offered by its Python half only
    (ale_py 0.12).

    Args:
      game: ALE's name for the game.
      num_envs: N.
      options: How to preprocess.

    Raises:
      MissingLibrary: ale_py is not installed.
    """

    autoreset = Autoreset.SAME_STEP

    def __init__(self, game: str, num_envs: int, options: AtariOptions) -> None:
        try:
            from ale_py.vector_env import AtariVectorEnv
        except ImportError as error:
            raise MissingLibrary(
                f"the game {game} needs the library ale_py: pip install 'shoal[atari]' ({error})"
            ) from error
        self.name, self.num_envs, self._options = f"ALE's {game}", num_envs, options
        self._env = AtariVectorEnv(game, num_envs, autoreset_mode=self.autoreset.value, **options.for_ale())
        self.observation_space, self.action_space = self._env.single_observation_space, self._env.single_action_space

    def reset(self, seeds: list[int], which: np.ndarray | None) -> tuple[Any, Infos]:
        """See ``Foreign``."""
        observations, infos = self._env.reset(seed=np.array(seeds))
        self._frames = infos["episode_frame_number"].copy()
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """See ``Foreign``."""
        observations, rewards, terminated, truncated, infos = self._env.step(actions)
        infos["score"] = rewards
        infos["restarted"] = infos["episode_frame_number"] < self._frames
        self._frames = infos["episode_frame_number"].copy()
        return observations, np.sign(rewards) if self._options.clip_rewards else rewards, terminated, truncated, infos

    def score(self, rewards: np.ndarray, infos: Infos) -> np.ndarray:
        """See ``Foreign``."""
        scores: np.ndarray = infos["score"]
        return scores

    def is_over(self, ended: np.ndarray, infos: Infos) -> np.ndarray:
        """See ``Foreign``. The infos are those of the next game's beginning, if there is one."""
        over: np.ndarray = infos["restarted"]
        return over

    def close(self) -> None:
        """See ``Foreign``."""
        self._env.close()
