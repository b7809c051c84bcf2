"""Each step of the preprocessing on the real console."""

import ale_py
import cv2
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from shoal.envs.atari import SCREEN, AtariGame, _Averages
from shoal.envs.atari_options import AtariOptions
from shoal.envs.copies import EnvCopy
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv

PLAIN = AtariOptions(noop_max=0, fire_reset=False, episodic_life=False, clip_rewards=False)


def console(game):
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(str(ale_py.roms.get_rom_path(game)))
    return ale


def shrunk(frame):
    return cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA).astype(int)


def test_it_keeps_gymnasiums_contract():
    check_env(AtariGame("pong"), skip_render_check=True)


def test_shrinking_is_the_average_over_the_area_as_in_baselines():
    frame = np.random.default_rng(0).integers(0, 256, SCREEN, np.uint8)
    rows, columns = (_Averages(length, 84) for length in SCREEN)
    mine = np.rint(columns.of(rows.of(frame.astype(np.float32)).T).T)
    assert np.abs(mine - shrunk(frame)).max() <= 1


@pytest.mark.parametrize(("length", "size"), [(210, 84), (160, 84), (7, 3), (6, 3), (5, 5)])
def test_averages_are_the_literal_integral_over_each_stretch(length, size):
    line = np.random.default_rng(1).random(length)
    fine = np.repeat(line, size)  # each pixel cut into `size` parts: every stretch is then `length` whole parts
    expected = fine.reshape(size, length).mean(axis=1)
    np.testing.assert_allclose(_Averages(length, size).of(line[:, None])[:, 0], expected, rtol=1e-6)


def test_a_step_is_four_frames_the_larger_of_the_last_two_and_the_sum_of_the_rewards():
    game, ale = AtariGame("breakout", PLAIN), console("breakout")
    first, _ = game.reset(seed=0)
    assert (first == first[0]).all()
    rng = np.random.default_rng(0)
    scores = 0
    for _ in range(150):
        action = int(rng.integers(4))
        score, frames = 0, []
        for _ in range(4):
            score += ale.act(ale.getMinimalActionSet()[action])
            frames.append(ale.getScreenGrayscale())
        observation, reward, terminated, truncated, _ = game.step(action)
        assert np.abs(observation[-1] - shrunk(np.maximum(frames[2], frames[3]))).max() <= 1
        assert (reward, terminated, truncated) == (score, ale.game_over(), False)
        scores += score
        if terminated:
            break
    assert scores > 0


def test_the_last_four_pictures_are_stacked_oldest_first():
    game = AtariGame("pong", PLAIN)
    before, _ = game.reset(seed=0)
    for action in (0, 1, 2, 3, 4):
        after, *_ = game.step(action)
        np.testing.assert_array_equal(after[:-1], before[1:])
        before = after


def test_no_ops_make_games_start_in_different_places_by_seed():
    game = AtariGame("space_invaders", AtariOptions(fire_reset=False))

    def start(seed):
        game.reset(seed=seed)
        return game._ale.getEpisodeFrameNumber()

    frames = [start(seed) for seed in range(100)]
    assert min(frames) == 1
    assert max(frames) == 30
    assert [start(seed) for seed in range(10)] == frames[:10]


def test_fire_is_pressed_after_a_reset():
    game, ale = AtariGame("breakout", AtariOptions(noop_max=0)), console("breakout")
    game.reset(seed=0)
    for action in (1, 2):
        for _ in range(4):
            ale.act(ale.getMinimalActionSet()[action])
    np.testing.assert_array_equal(game.render(), ale.getScreenRGB())


def test_a_lost_life_is_an_end_for_the_learner_only_and_scores_are_those_of_whole_games():
    envs = SerialVectorEnv(lambda: AtariGame("breakout"), [0, 1], EpisodeSeeds(0))
    envs.reset()
    rng = np.random.default_rng(0)
    ends, told, clipped = 0, [], set()
    for _ in range(500):
        envs.step(rng.integers(4, size=2))
        ends += int(envs.terminated.sum())
        clipped |= set(envs.rewards.tolist())
        told += envs.finished
    assert len(told) >= 2
    assert ends >= 5 * len(told)
    assert clipped == {0.0, 1.0}


def test_fire_is_pressed_after_a_lost_life():
    game = AtariGame("breakout", AtariOptions(noop_max=0))
    game.reset(seed=0)
    lost = sum(game.step(0)[4]["shoal/life_lost"] for _ in range(150))  # nobody else serves the next ball
    assert lost >= 2


class LastBall:
    """A console that loses a life in the first frame, and ends the game after some more."""

    def __init__(self, frames_left, *, is_cut):
        self._frames_left, self._is_cut = frames_left, is_cut
        self._lives = 2
        self.resets = 0

    def act(self, action):
        self._frames_left, self._lives = self._frames_left - 1, 1
        return 1

    def lives(self):
        return self._lives

    def game_over(self, *, with_truncation=True):
        return self._frames_left <= 0 and (with_truncation or not self._is_cut)

    def game_truncated(self):
        return self._frames_left <= 0 and self._is_cut

    def getScreenGrayscale(self, into):  # noqa: N802 - ALE's name
        into[:] = 0

    def reset_game(self):
        self.resets += 1


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("frames_left", [6, 10])  # while FIRE is held, and in the action after it
def test_a_game_that_ends_while_the_next_ball_is_served_is_over(frames_left, is_cut):
    game = AtariGame("breakout", AtariOptions(noop_max=0))
    game.reset(seed=0)
    game._ale = LastBall(frames_left, is_cut=is_cut)
    copy = EnvCopy(lambda: game, 0)
    _, terminated, truncated = copy.step(0, copy.writer.rows(copy.writer.allocate(1))[0])
    assert terminated or truncated
    assert not copy.goes_on
    assert copy.score == frames_left
    assert game._ale.resets == 0


def test_a_game_can_be_continued_over_lost_lives():
    envs, resumed = (SerialVectorEnv(lambda: AtariGame("breakout"), [0], EpisodeSeeds(0)) for _ in range(2))
    envs.reset()
    rng = np.random.default_rng(3)
    while not envs.terminated[0]:
        envs.step(rng.integers(4, size=1))
    for _ in range(10):
        envs.step(rng.integers(4, size=1))
    assert resumed.restore(envs.state()) == 0
    for _ in range(20):
        action = rng.integers(4, size=1)
        envs.step(action)
        resumed.step(action)
        np.testing.assert_array_equal(envs.observations["observation"], resumed.observations["observation"])


def test_a_game_is_cut_after_its_frames():
    game = AtariGame("pong", AtariOptions(max_frames=100, noop_max=0, fire_reset=False))
    game.reset(seed=0)
    flags = [game.step(0)[2:4] for _ in range(25)]
    assert flags[-1] == (False, True)
    assert not any(any(flag) for flag in flags[:-1])


def test_sticky_actions_depend_on_the_seed_only():
    def play(seed):
        game = AtariGame("pong", AtariOptions(sticky=0.5, noop_max=0))
        game.reset(seed=seed)
        return np.stack([game.step(k % 6)[0][-1] for k in range(40)])

    first, other, again, others_again = (play(seed) for seed in (1, 2, 1, 2))  # by itself ALE takes the time for a seed
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(other, others_again)
    assert (first != other).any()


def test_a_game_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="there is no Atari game 'pogn'"):
        AtariGame("pogn")


def test_scores_are_told_unclipped():
    copy = EnvCopy(lambda: AtariGame("space_invaders"), 0)
    row = copy.writer.rows(copy.writer.allocate(1))[0]
    copy.reset(row, 5)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        reward, terminated, _ = copy.step(int(rng.integers(6)), row)
        seen.add((reward, copy.score))
        if terminated and not copy.goes_on:
            copy.reset(row, 6)
    assert {reward for reward, _ in seen} == {0.0, 1.0}
    assert max(score for _, score in seen) >= 5.0
