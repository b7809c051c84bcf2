import gymnasium
import numpy as np

from shoal.envs.memory import CartPoleWithoutVelocities


def test_it_is_cartpole_of_which_only_positions_are_shown():
    whole, shown = gymnasium.make("CartPole-v1"), CartPoleWithoutVelocities()
    seen, of_it = whole.reset(seed=5)[0], shown.reset(seed=5)[0]
    for step in range(30):
        assert of_it.tolist() == [seen[0], seen[2]]
        assert shown.observation_space.contains(of_it)
        (seen, *outcome), (of_it, *its) = whole.step(np.int64(step % 2)), shown.step(np.int64(step % 2))
        assert outcome[:3] == its[:3]
        if outcome[1]:
            break
