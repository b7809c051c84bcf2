"""Gymnasium's vector environments in each of their modes: the transitions that are left are those of our own."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from shoal.envs.foreign import Autoreset, ForeignVectorEnv
from shoal.envs.libraries import Gymnasium
from shoal.envs.probes import Corridor, EndlessCorridor
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.envs.vector import Checks, EnvFailure, Episode, NoStateError
from shoal.rllib.learning.advantages import gae

SEEDS = EpisodeSeeds(2)
GAMMA, LAMBDA = 0.9, 0.8
MODES = list(AutoresetMode)


class Both(EndlessCorridor):
    """Two steps that are cut, then three that end, in turn."""

    def __init__(self):
        super().__init__(length=10)
        self._episodes = 0

    def reset(self, *, seed=None, options=None):
        self._episodes += 1
        return super().reset(seed=seed, options=options)

    def step(self, action):
        observation, reward, *_ = super().step(action)
        cut = self._episodes % 2 == 1
        over = self._position == (2 if cut else 3)
        return observation, reward + self._position + 10 * float(action), over and not cut, over and cut, {}


def foreign(make, mode, num_envs=3, env_indices=None, kind=SyncVectorEnv, **kwargs):
    env = kind([make] * num_envs, autoreset_mode=mode)
    envs = ForeignVectorEnv(Gymnasium(env), env_indices or range(num_envs), SEEDS, **kwargs)
    envs.reset()
    return envs


def value(positions):
    """A critic that is wrong, so that advantages are not 0."""
    return np.sin(3.0 * positions) + 2.0


def rollout(envs, steps, seed=0):
    """Columns [T, N] of a rollout, by the rule of vector.py and with no other knowledge of what is stepped."""
    rng = np.random.default_rng(seed)
    kept = {name: [] for name in ("positions", "rewards", "values", "next_values", "terminated", "truncated", "valid")}
    kept["actions"] = []
    for _ in range(steps):
        positions = envs.observations["observation"][:, 0].copy()
        actions = np.array([int(rng.integers(2)) for _ in range(envs.num_envs)])
        envs.step(actions)
        following = value(envs.observations["observation"][:, 0])
        final = value(envs.final_observations["observation"][:, 0])
        kept["positions"].append(positions)
        kept["values"].append(value(positions))
        kept["next_values"].append(np.where(envs.truncated, final, following))
        kept["actions"].append(actions)
        for name in ("rewards", "terminated", "truncated", "valid"):
            kept[name].append(getattr(envs, name).copy())
    return {name: np.stack(rows) for name, rows in kept.items()}


def closed_form(columns, i):
    """Advantages of copy i's valid rows, episode by episode: sum over the rest of the episode of (gamma lambda)^k
    delta, where delta has the value of the true successor, which is the position one further.
    """
    advantages, episode = [], []
    flags = ("terminated", "truncated", "valid", "rewards", "positions")
    for terminated, truncated, valid, reward, position in zip(*(columns[name][:, i] for name in flags), strict=True):
        if not valid:
            continue
        successor = 0.0 if terminated else GAMMA * value(position + 1)
        episode.append(reward + successor - value(position))
        if terminated or truncated:
            advantages += [
                sum((GAMMA * LAMBDA) ** j * d for j, d in enumerate(episode[k:])) for k in range(len(episode))
            ]
            episode = []
    return advantages


@pytest.mark.parametrize("mode", MODES)
def test_advantages_are_the_closed_form_in_every_mode(mode):
    columns = rollout(foreign(Both, mode), 60)
    advantages, _ = gae(
        *(columns[name] for name in ("rewards", "values", "next_values", "terminated", "truncated", "valid")),
        gamma=GAMMA,
        lam=LAMBDA,
    )
    assert (~columns["valid"]).any() == (mode is AutoresetMode.NEXT_STEP)
    assert columns["terminated"].sum() > 20
    assert columns["truncated"].sum() > 20
    for i in range(3):
        of_copy = advantages[:, i][columns["valid"][:, i]]
        expected = closed_form(columns, i)
        assert len(of_copy) - len(expected) <= 2  # an episode may be under way at the end
        np.testing.assert_allclose(of_copy[: len(expected)], expected, rtol=1e-5)
    np.testing.assert_array_equal(advantages[~columns["valid"]], 0.0)


@pytest.mark.parametrize("mode", MODES)
def test_the_valid_rows_are_those_of_our_own_vector_environment(mode):
    """Step by step where nothing is lost; in NEXT_STEP mode the same actions are given, and one more for each end."""
    theirs = foreign(Both, mode, 1)
    ours = SerialVectorEnv(Both, [0], SEEDS)
    ours.reset()
    rng = np.random.default_rng(1)
    for _ in range(50):
        action = rng.integers(2, size=1)
        np.testing.assert_array_equal(ours.observations["observation"], theirs.observations["observation"])
        ours.step(action)
        theirs.step(action)
        for name in ("rewards", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert theirs.valid.all()
        assert ours.finished == theirs.finished
        if ours.finished:
            np.testing.assert_array_equal(
                ours.final_observations["observation"], theirs.final_observations["observation"]
            )
            if mode is AutoresetMode.NEXT_STEP:
                np.testing.assert_array_equal(
                    theirs.observations["observation"], theirs.final_observations["observation"]
                )
                theirs.step(np.array([1]))
                assert not theirs.valid.any()
                for name in ("rewards", "terminated", "truncated"):
                    assert not getattr(theirs, name).any()
                assert theirs.finished == []


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_told_with_true_return_and_length_and_the_copy_among_all(mode):
    told = []
    envs = foreign(lambda: Corridor(3), mode, 2, [5, 8])
    for _ in range(8):
        envs.step(np.zeros(2, int))
        told += envs.finished
    assert told == [Episode(5, 3.0, 3), Episode(8, 3.0, 3)] * 2


def test_with_nothing_reset_by_itself_every_episode_has_its_own_seed():
    given = []

    class Listens(Corridor):
        def reset(self, *, seed=None, options=None):
            given.append(seed)
            return super().reset(seed=seed, options=options)

    envs = foreign(lambda: Listens(2), AutoresetMode.DISABLED, 2, [3, 7])
    for _ in range(2):
        envs.step(np.zeros(2, int))
    assert given == [SEEDS(3, 0), SEEDS(7, 0), SEEDS(3, 1), SEEDS(7, 1)]


class Nested(gymnasium.Env):
    """Dict observations with a mask, actions of two parts."""

    observation_space = spaces.Dict(
        {
            "action_mask": spaces.MultiBinary(3),
            "place": spaces.Tuple((spaces.Box(0.0, 9.0, (2,), np.float32), spaces.Discrete(9))),
        }
    )
    action_space = spaces.Dict({"go": spaces.Discrete(3), "how": spaces.Box(-1.0, 1.0, (2,), np.float32)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._count = 0
        return self._shown(), {}

    def step(self, action):
        assert action["go"] == self._count % 3
        assert action["how"].shape == (2,)
        self._count += 1
        return self._shown(), float(action["how"].sum()), self._count == 4, False, {}

    def _shown(self):
        mask = (np.arange(3) == self._count % 3).astype(np.int8)
        return {"action_mask": mask, "place": (np.full(2, self._count, np.float32), self._count)}


@pytest.mark.parametrize("mode", MODES)
def test_nested_spaces_and_masks_pass_through(mode):
    envs = foreign(Nested, mode, 2)
    assert list(envs.observations) == ["place/0", "place/1"]
    for _ in range(12):
        count = envs.observations["place/1"]
        np.testing.assert_array_equal(envs.observations["place/0"], np.repeat(count[:, None], 2, 1))
        np.testing.assert_array_equal(envs.action_masks.argmax(axis=1), count % 3)
        actions = np.column_stack([envs.action_masks.argmax(axis=1), np.full((2, 2), 0.25)])
        envs.step(actions)
        assert (envs.rewards == np.where(envs.valid, 0.5, 0.0)).all()
        if envs.terminated.any():
            assert (envs.final_observations["place/1"] == 4).all()


class Told(Corridor):
    """Its mask comes with the info: the first action at the start, later the second, and the first at even places."""

    def __init__(self, length):
        super().__init__(length)
        self.observation_space = spaces.Box(0.0, 9.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed, options=options)
        return observation, {"action_mask": np.array([1, 0], np.int8)}

    def step(self, action):
        observation, *rest, _ = super().step(action)
        return observation, *rest, {"action_mask": np.array([self._position % 2 == 0, 1], np.int8)}


@pytest.mark.parametrize("mode", MODES)
def test_masks_among_the_infos_are_those_of_the_observations_beside_them(mode):
    walks = SyncVectorEnv([lambda: Told(3), lambda: Told(4)], autoreset_mode=mode)  # seldom reset in the same step
    envs = ForeignVectorEnv(Gymnasium(walks), range(2), SEEDS)
    envs.reset()
    for _ in range(16):
        places = envs.observations["observation"][:, 0]
        np.testing.assert_array_equal(envs.action_masks, np.column_stack([places % 2 == 0, places > 0]))
        envs.step(np.zeros(2, int))


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_that_allows_nothing_is_a_failure(mode):
    class Stuck(Told):
        def step(self, action):
            *outcome, info = super().step(action)
            return *outcome, {"action_mask": info["action_mask"] * (self._position < 2)}

    envs = foreign(lambda: Stuck(5), mode, 2)
    envs.step(np.zeros(2, int))
    with pytest.raises(EnvFailure, match=r"^gymnasium's SyncVectorEnv: an action mask allows no choice"):
        envs.step(np.zeros(2, int))


def test_the_state_is_refused_in_one_sentence_that_names_the_environment():
    envs = foreign(Corridor, AutoresetMode.SAME_STEP)
    with pytest.raises(NoStateError, match=r"^gymnasium's SyncVectorEnv steps its copies all together"):
        envs.state()
    with pytest.raises(NoStateError):
        envs.restore({})


def test_what_the_library_raises_is_a_failure_of_the_environment():
    class Breaks(Corridor):
        def step(self, action):
            raise ZeroDivisionError("the physics blew up")

    envs = foreign(Breaks, AutoresetMode.SAME_STEP, worker_index=2)
    with pytest.raises(
        EnvFailure, match="worker 2, gymnasium's SyncVectorEnv: its step raised ZeroDivisionError: the phy"
    ):
        envs.step(np.zeros(3, int))


@pytest.mark.parametrize("mode", MODES)
def test_wrong_numbers_are_told_with_copy_and_step(mode):
    class Wrong(Corridor):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation + (20 if action else 0), np.nan if self._position == 5 else reward, *rest

    envs = foreign(Wrong, mode, 2, [4, 6])
    for _ in range(4):
        envs.step(np.zeros(2, int))
    with pytest.raises(EnvFailure, match="environment 4: its step 5 gave the reward nan"):
        envs.step(np.zeros(2, int))
    strict = foreign(Wrong, mode, 2, [4, 6], checks=Checks(bounds=True))
    strict.step(np.zeros(2, int))
    with pytest.raises(EnvFailure, match="environment 6: its step 2 gave an observation outside its space"):
        strict.step(np.array([0, 1]))


def test_an_asynchronous_vector_environment_works_and_is_closed():
    envs = foreign(lambda: Corridor(3), AutoresetMode.DISABLED, 2, kind=AsyncVectorEnv)
    assert rollout(envs, 7)["positions"][:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    envs.close()
    envs.close()
    with pytest.raises(RuntimeError, match="reset the environments before the first step"):
        envs.step(np.zeros(2, int))


def test_a_vector_environment_that_takes_one_seed_gets_one_that_no_other_reset_has():
    given = []

    class OneSeed(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
        single_observation_space, single_action_space = spaces.Box(0.0, 9.0, (1,), np.float32), spaces.Discrete(2)
        num_envs = 3

        def __init__(self):
            self._steps = np.array([0, 1, 1])

        def reset(self, *, seed=None, options=None):
            given.append(seed)
            if options is not None:
                self._steps[options["reset_mask"]] = 0
            return self._steps[:, None].astype(np.float32), {}

        def step(self, actions):
            self._steps += 1
            over = self._steps == 3
            return self._steps[:, None].astype(np.float32), np.ones(3), over, np.zeros(3, bool), {}

    envs = ForeignVectorEnv(Gymnasium(OneSeed()), range(3), SEEDS)
    envs.reset()
    for _ in range(6):
        envs.step(np.zeros(3, int))
    assert given == [SEEDS(0, 0), SEEDS(1, 1), SEEDS(0, 1), SEEDS(1, 2), SEEDS(0, 2)]
    assert envs.observations["observation"][:, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("mode", MODES)
def test_both_flags_in_a_row_are_an_end(mode):
    class BothFlags(Corridor):
        def step(self, action):
            observation, reward, terminated, _, info = super().step(action)
            return observation, reward, terminated, terminated, info

    columns = rollout(foreign(lambda: BothFlags(3), mode), 12)
    assert columns["terminated"].any()
    assert not columns["truncated"].any()


def test_what_is_paid_in_a_step_that_is_spent_on_a_reset_counts_nowhere():
    class Generous(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
        single_observation_space, single_action_space = spaces.Box(0.0, 9.0, (1,), np.float32), spaces.Discrete(2)
        num_envs = 1

        def reset(self, *, seed=None, options=None):
            self._steps = 0
            return np.zeros((1, 1), np.float32), {}

        def step(self, actions):
            self._steps = (self._steps + 1) % 3  # two steps, and the one of the reset
            flag = np.array([self._steps == 2])
            return np.full((1, 1), self._steps, np.float32), np.full(1, 7.0), flag, ~np.ones(1, bool), {}

    envs = ForeignVectorEnv(Gymnasium(Generous()), [0], SEEDS)
    envs.reset()
    rewards, told = [], []
    for _ in range(6):
        envs.step(np.zeros(1, int))
        rewards.append(float(envs.rewards[0]))
        told += envs.finished
    assert rewards == [7.0, 7.0, 0.0] * 2
    assert told == [Episode(0, 14.0, 2)] * 2


def test_gymnasiums_own_batched_cartpole_works():
    env = gymnasium.make_vec("CartPole-v1", 5)
    envs = ForeignVectorEnv(Gymnasium(env), range(5), SEEDS)
    envs.reset()
    lengths = []
    for _ in range(100):
        envs.step(np.ones(5, int))
        lengths += [episode.length for episode in envs.finished]
    assert len(lengths) > 40
    assert all(7 < length < 12 for length in lengths)


def test_a_vector_environment_that_does_not_tell_its_mode_is_refused():
    env = SyncVectorEnv([Corridor])
    env.metadata = {}
    with pytest.raises(ValueError, match=r"does not say in metadata\[.autoreset_mode.\]"):
        Gymnasium(env)
    with pytest.raises(EnvFailure, match="has 1 environments, not 2"):
        ForeignVectorEnv(Gymnasium(SyncVectorEnv([Corridor])), range(2), SEEDS)
    assert Gymnasium(SyncVectorEnv([Corridor])).autoreset is Autoreset.NEXT_STEP


class Batched(gymnasium.vector.VectorEnv):
    """Two copies whose episodes end in the second step; ``changed`` is what they give instead of what they should."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - gymnasium's way
    num_envs = 2
    single_observation_space, observation_space = spaces.Discrete(3), spaces.MultiDiscrete([3, 3])
    single_action_space, action_space = spaces.Discrete(2), spaces.MultiDiscrete([2, 2])

    def __init__(self, changed):
        self._changed, self._steps = changed, 0

    def reset(self, *, seed=None, options=None):
        return self._changed.get("reset", (np.zeros(2, np.int64), {}))

    def step(self, actions):
        self._steps += 1
        observations, no, over = np.zeros(2, np.int64), np.zeros(2, bool), np.full(2, self._steps == 2)
        parts = {"observations": observations, "rewards": np.ones(2), "terminated": over, "truncated": no}
        infos = {"final_obs": observations} if over.any() else {}
        return tuple({**parts, "infos": infos, **self._changed}[name] for name in (*parts, "infos"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"reset": (np.zeros(2, np.int64),)}, "its reset gave what cannot be used: not enough values to unpack"),
        ({"reset": (np.zeros(3), {})}, r"its reset gave what cannot be used: observations 'observation' of shape \(3,"),
        ({"observations": np.full(2, 0.5)}, r"its step gave .*: observations 'observation' of float64, \[0.5, 0.5\]"),
        ({"rewards": np.ones(3)}, "its step gave what cannot be used: "),
        ({"infos": {}}, "its step gave what cannot be used: episodes ended, and the infos have no .final_obs. with th"),
    ],
)
def test_what_is_no_outcome_is_told_in_one_line(changed, told):
    envs = ForeignVectorEnv(Gymnasium(Batched(changed)), [0, 1], EpisodeSeeds(0), worker_index=2)
    with pytest.raises(EnvFailure, match=f"^worker 2, gymnasium's Batched: {told}") as caught:
        begin_and_step_twice(envs)
    assert "\n" not in str(caught.value)


def begin_and_step_twice(envs):
    envs.reset()
    for _ in range(2):
        envs.step(np.zeros((2, 1), np.int64))
