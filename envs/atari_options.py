"""What is done to an Atari game before a network sees it, in the three implementations of it.

``atari/pong`` names a game in all of them: ``AtariGame`` (``atari.py``), one copy over ALE's plain interface; ALE's own
vector environment and EnvPool's (``libraries.py``). What each step is, in the order in which it happens, and where it
comes from:

    no-ops        1 to 30 frames without action after a reset, so that deterministic games start in different places
                  (Mnih et al. 2015, "Human-level control ...", methods, evaluation procedure)
    fire          games that wait for FIRE get it after a reset and a lost life, then one action more (FireResetEnv of
                  OpenAI baselines; in no paper)
    frame skip    an action holds for 4 frames, rewards add up (Mnih et al. 2015, methods, training details)
    maximum       of the last two of these frames, as sprites flicker on odd and even ones (ibid., preprocessing)
    luminance     84 x 84 averages over the area of the grey picture (ibid.; averaging as in baselines' WarpFrame)
    stack         of the last 4 pictures, oldest first (ibid.)
    lives         a lost life ends the return that is learned from, and not the game (ibid., training details)
    clipping      rewards count as -1, 0 or 1 (ibid.)
    30 minutes    of play, 108,000 frames, cut a game (van Hasselt, Guez, Silver 2016, "Deep reinforcement learning with
                  double Q-learning")
    sticky        actions that are repeated with some probability, 0.25 in Machado et al. 2018, "Revisiting the Arcade
                  Learning Environment"; off here, as it was for PPO's numbers (Schulman et al. 2017)

Scaling of bytes to [0, 1] is the network's first step. What a game earned is told unclipped and by game, not by life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AtariOptions:
    """The steps above."""

    noop_max: int = 30
    """Most frames without action after a reset; 0 for none."""

    fire_reset: bool = True
    """Press FIRE where a game waits for it."""

    frame_skip: int = 4
    """Frames that an action holds."""

    size: int = 84
    """Height and width of the picture."""

    stack: int = 4
    """Pictures of an observation."""

    episodic_life: bool = True
    """A lost life counts as terminated."""

    clip_rewards: bool = True
    """Rewards count by their sign."""

    max_frames: int = 108_000
    """Frames after which a game is cut."""

    sticky: float = 0.0
    """Probability that the previous action is done instead, by frame."""

    def for_ale(self) -> dict[str, Any]:
        """As ALE's vector environment calls them. Rewards are clipped outside: what a game earned would be lost.

        ``life_loss_info`` marks lost lives and lets the game go on, as here; its ``episodic_life`` restarts the game,
        so that nothing beyond the first life would ever be seen.
        """
        return {
            "noop_max": self.noop_max,
            "use_fire_reset": self.fire_reset,
            "frameskip": self.frame_skip,
            "img_height": self.size,
            "img_width": self.size,
            "stack_num": self.stack,
            "life_loss_info": self.episodic_life,
            "reward_clipping": False,
            "max_num_frames_per_episode": self.max_frames,
            "repeat_action_probability": self.sticky,
        }

    def for_envpool(self) -> dict[str, Any]:
        """As EnvPool calls them; it counts a game's length in steps."""
        return {
            "noop_max": self.noop_max,
            "use_fire_reset": self.fire_reset,
            "frame_skip": self.frame_skip,
            "img_height": self.size,
            "img_width": self.size,
            "stack_num": self.stack,
            "episodic_life": self.episodic_life,
            "reward_clip": self.clip_rewards,
            "max_episode_steps": self.max_frames // self.frame_skip,
            "repeat_action_probability": self.sticky,
        }
