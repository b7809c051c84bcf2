"""MuJoCo's warnings go into the log, and neither onto the terminal nor into a file of the folder that one is in."""

import subprocess
import sys

import pytest

HOW_IT_IS_MADE = {
    "by name": "from shoal.envs import registry; env = registry.make('HalfCheetah-v5')",
    "in gymnasium's vector": (
        "from shoal.envs import opening; env = opening._make_gymnasium('HalfCheetah-v5', 1).envs[0]"
    ),
}


@pytest.mark.parametrize("making", HOW_IT_IS_MADE.values(), ids=HOW_IT_IS_MADE)
def test_all_well_prints_nothing_and_an_unstable_simulation_is_a_warning_in_the_log(tmp_path, making):
    program = (
        f"{making}; env.reset(seed=0); env.step(env.action_space.sample()); print('well', flush=True);"
        "import sys; sys.stderr.write('well\\n');"
        "env.unwrapped.data.qvel[:] = 1e12; env.step(env.action_space.sample())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    assert list(tmp_path.iterdir()) == []
    assert ran.stdout == "well\n"
    before, after = ran.stderr.split("well\n")
    assert before == ""
    assert after.startswith("MuJoCo: Nan, Inf or huge value in QVEL")
    assert len(after.splitlines()) == 1


def test_whoever_has_set_what_warnings_do_keeps_it(tmp_path):
    program = (
        "import mujoco; mine = lambda text: print('mine'); mujoco.set_mju_user_warning(mine);"
        "from shoal.envs import registry; env = registry.make('HalfCheetah-v5'); env.reset(seed=0);"
        "env.unwrapped.data.qvel[:] = 1e12; env.step(env.action_space.sample())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    assert "mine" in ran.stdout
    assert ran.stderr == ""
