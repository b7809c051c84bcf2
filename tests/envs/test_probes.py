import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from shoal.envs import probes


@pytest.mark.parametrize(
    "kind",
    [
        probes.Corridor,
        probes.EndlessCorridor,
        probes.Standstill,
        probes.Choice,
        probes.Lamp,
        probes.Target,
        probes.ConstantReward,
        probes.SignedReward,
        probes.Delay,
        probes.Advice,
        probes.Recall,
    ],
)
def test_probes_keep_gymnasiums_contract(kind):
    check_env(kind(), skip_render_check=True)


def test_matching_the_sign_earns_one_and_missing_it_nothing():
    env = probes.Choice()
    for seed in range(10):
        sign = env.reset(seed=seed)[0][0]
        right = np.int64(sign > 0)
        assert env.step(right)[1] == 1.0
        assert env.step(1 - right)[1] == 0.0


def test_half_of_what_is_shown_is_the_best_action():
    env = probes.Target()
    shown = env.reset(seed=3)[0]
    assert env.step(0.5 * shown)[1] == 0.0
    assert env.step(0.5 * shown + np.float32(0.25))[1] == pytest.approx(-0.0625)


def test_the_second_step_of_a_delay_is_rewarded_and_the_last():
    env = probes.Delay()
    for _ in range(2):
        assert env.reset(seed=0)[0] == 0.0
        assert [env.step(np.int64(0))[:3] for _ in range(2)] == [(1.0, 0.0, False), (1.0, 1.0, True)]


def test_what_was_shown_at_first_is_asked_for_at_the_end():
    env = probes.Recall(wait=3)
    for seed in range(6):
        sign = env.reset(seed=seed)[0][0]
        seen = [env.step(np.int64(sign > 0)) for _ in range(4)]
        assert [observation.tolist() for observation, *_ in seen[:3]] == [[0, 0], [0, 0], [0, 1]]
        assert [(reward, over) for _, reward, over, *_ in seen] == [(0, False)] * 3 + [(1, True)]
        env.reset(seed=seed)
        assert [env.step(np.int64(sign < 0))[1] for _ in range(4)] == [0, 0, 0, -1]


def test_a_mask_allows_two_actions_and_the_others_raise():
    env = probes.OneWay(steps=3)
    _, info = env.reset(seed=1)
    for left in (2, 1, 0):
        low, high = np.flatnonzero(info["action_mask"])
        forbidden = next(action for action in range(5) if action not in (low, high))
        with pytest.raises(ValueError, match="is not among the allowed ones"):
            env.step(forbidden)
        _, reward, over, _, info = env.step(low if left else high)
        assert (reward, over) == (float(left > 0), left == 0)


@pytest.mark.parametrize("make", [probes.standstill_next_step, probes.standstill_same_step, probes.standstill_disabled])
def test_a_standstill_behind_gymnasium_has_the_mode_of_its_name(make):
    envs = make(2)
    assert envs.num_envs == 2
    assert f"standstill_{envs.metadata['autoreset_mode'].name.lower()}" == make.__name__
