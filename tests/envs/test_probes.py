import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from shoal.envs import probes


@pytest.mark.parametrize(
    "kind", [probes.Corridor, probes.EndlessCorridor, probes.Standstill, probes.Choice, probes.Target]
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
