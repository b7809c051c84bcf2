"""The table of a shard, rule by rule, and any interleaving of pushes, repetitions and deaths against a naive model."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shoal.rllib.learner_groups.parameter_shard import Commit, Push, Shard, ShardSettings
from shoal.rllib.learner_groups.push_log import PushLog
from shoal.rllib.learning.adam import Adam

SIZE = 5


def gradient_of(learner, step):
    return np.random.default_rng((learner, step)).standard_normal(SIZE).astype(np.float32)


def push(learner, step, rows=4, learning_rate=0.1):
    return Push(learner, step, rows, learning_rate, gradient_of(learner, step))


def shard_of(learners=2, **others):
    return Shard(np.zeros(SIZE, np.float32), ShardSettings(learners, **others))


class World:
    """A shard, its log, what its learners were told, and the slow way to the weights that must come of that.

    Its methods are what may happen; such as cannot happen now do nothing, or show that they are refused.
    """

    def __init__(self, rules, directory, draw):
        self.rules, self.directory, self.draw = rules, directory, draw
        self.shard, self.log = Shard(np.zeros(SIZE, np.float32), rules), PushLog(directory)
        self.clocks, self.committed = [0] * rules.learners, 0
        self.told, self.given_up = [], set()

    def someone(self):
        return self.draw(st.integers(0, self.rules.learners - 1), "learner")

    def push(self, answer_is_lost=False):
        learner = self.someone()
        entry = push(learner, self.clocks[learner])
        if not self.shard.may_start(entry.step):
            with pytest.raises(ValueError, match="too early"):
                self.shard.take(entry)
            return
        assert self.shard.is_new(entry)
        self.log.append(entry)
        if answer_is_lost:  # it is written, and nobody has heard: whoever pushed it does so again
            self.die()
        assert self.shard.take(entry) != answer_is_lost
        self.clocks[learner] += 1
        self.told.append((learner, entry.step))

    def push_whose_answer_is_lost(self):
        self.push(answer_is_lost=True)

    def push_again(self):
        learner = self.someone()
        if step := self.clocks[learner]:
            assert not self.shard.take(push(learner, self.draw(st.integers(0, step - 1), "step")))

    def die(self):
        """Another life of the shard, from nothing but its directory."""
        self.log.close()
        self.shard, self.log = Shard(np.zeros(SIZE, np.float32), self.rules), PushLog(self.directory)
        arrays, entries = self.log.recover()
        if arrays is not None:
            self.shard.load(arrays)
        for entry in entries:
            assert self.shard.take(entry)

    def die_in_an_entry(self):
        self.log.append(Commit(99, 1.0))
        (path,) = self.directory.glob("entries.*")
        with path.open("ab") as file:
            file.truncate(file.tell() - self.draw(st.integers(1, 24), "bytes"))
        self.die()

    def commit(self):
        if self.rules.awaits_scale and min(self.clocks) > self.committed:
            assert self.shard.squared_norm is not None
            self._record(Commit(self.committed, 1.0))

    def give_up(self):
        if self.rules.awaits_scale:
            self._record(Commit(self.committed, None))
            self.given_up.add(self.committed)
            self.clocks = [self.committed + 1] * self.rules.learners

    def _record(self, entry):
        assert self.shard.is_new(entry)
        self.log.append(entry)
        self.shard.take(entry)
        assert not self.shard.take(entry)

    def snapshot(self):
        if not self.shard.has_pending:
            self.log.snapshot(self.shard.arrays())

    def check(self):
        assert self.shard.clocks == self.clocks
        if self.rules.mode == "bulk":
            self.committed = self.shard.version
            assert self.committed == min(self.clocks) or (self.rules.awaits_scale and self.committed < min(self.clocks))
        if self.rules.mode != "asynchronous":
            assert max(self.clocks) - min(self.clocks) <= self.rules.staleness + 1

    def expected(self):
        weights, adam = np.zeros(SIZE, np.float32), Adam(SIZE, learning_rate=0.1, epsilon=self.rules.epsilon)
        if self.rules.mode != "bulk":
            for learner, step in self.told:
                adam.step(weights, gradient_of(learner, step))
            return weights
        for step in sorted(set(range(self.committed)) - self.given_up):
            mean = np.zeros(SIZE, np.float32)
            for learner in range(self.rules.learners):
                mean += gradient_of(learner, step) * np.float32(1 / self.rules.learners)
            adam.step(weights, mean)
        return weights


HAPPENINGS = (
    *[World.push] * 4,
    World.push_whose_answer_is_lost,
    World.push_again,
    World.die,
    World.die_in_an_entry,
    *[World.commit] * 2,
    World.give_up,
    World.snapshot,
)


@pytest.mark.parametrize("kind", ["bulk", "bulk with scale", "bounded", "asynchronous"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_interleaving_with_repetitions_and_deaths_leads_to_what_was_told_to_be_in(tmp_path_factory, kind, data):
    rules = ShardSettings(
        learners=data.draw(st.integers(1, 4), "learners"),
        mode=kind.split()[0],
        staleness=data.draw(st.integers(0, 3), "tau") if kind == "bounded" else 0,
        awaits_scale=kind == "bulk with scale",
    )
    world = World(rules, tmp_path_factory.mktemp("shard"), data.draw)
    for happening in data.draw(st.lists(st.sampled_from(HAPPENINGS), max_size=40), "happenings"):
        happening(world)
        world.check()
    assert world.shard.version == (world.committed if rules.mode == "bulk" else len(world.told))
    np.testing.assert_array_equal(world.shard.weights, world.expected())
    world.log.close()


def test_in_bulk_the_bits_do_not_depend_on_who_comes_first():
    rng, results = np.random.default_rng(0), set()
    for _ in range(10):
        shard = shard_of(4)
        for step in range(5):
            for learner in rng.permutation(4):
                shard.take(push(int(learner), step, rows=1 + int(learner)))
        results.add(shard.weights.tobytes())
    assert len(results) == 1


def test_gradients_are_averaged_by_rows():
    mine, its = shard_of(2), shard_of(1)
    mine.take(push(0, 0, rows=1))
    mine.take(push(1, 0, rows=3))
    its.take(Push(0, 0, 4, 0.1, (gradient_of(0, 0) + 3 * gradient_of(1, 0)) / 4))
    np.testing.assert_allclose(mine.weights, its.weights, rtol=1e-5)
    assert (mine.version, mine.clocks) == (1, [1, 1])


def test_a_complete_step_waits_for_its_scale_and_is_applied_with_it():
    shard, clipped = shard_of(2, awaits_scale=True), shard_of(1)
    shard.take(push(0, 0))
    assert shard.squared_norm is None
    with pytest.raises(ValueError, match=r"pushes of learners \[1\] are missing"):
        shard.take(Commit(0, 1.0))
    shard.take(push(1, 0))
    mean = (gradient_of(0, 0) + gradient_of(1, 0)) / 2
    assert shard.squared_norm == pytest.approx(float(mean @ mean), rel=1e-5)
    assert shard.version == 0
    assert not shard.may_start(1)
    with pytest.raises(ValueError, match="step 0 is complete and has not been committed"):
        shard.take(push(0, 1))
    with pytest.raises(ValueError, match="step 1 cannot be committed; the next is step 0"):
        shard.take(Commit(1, 1.0))
    shard.take(Commit(0, 0.25))
    clipped.take(Push(0, 0, 1, 0.1, mean * np.float32(0.25)))
    np.testing.assert_allclose(shard.weights, clipped.weights, rtol=1e-5)
    assert shard.squared_norm is None
    assert shard.may_start(1)


def test_a_step_that_is_given_up_leaves_weights_and_memory_and_counts():
    shard = shard_of(2, awaits_scale=True)
    shard.take(push(1, 0))
    assert shard.has_pending
    with pytest.raises(RuntimeError, match=r"pushes of learners \[1\] are pending"):
        shard.arrays()
    shard.take(Commit(0, None))
    assert not shard.take(push(0, 0))  # comes late, and is over
    assert (shard.version, shard.clocks) == (1, [1, 1])
    assert int(shard.arrays()["steps"]) == 0
    np.testing.assert_array_equal(shard.weights, np.zeros(SIZE))


def test_a_learner_waits_for_the_slowest_within_the_bound_only():
    shard = shard_of(2, mode="bounded", staleness=2)
    for step in range(3):
        assert shard.may_start(step)
        shard.take(push(0, step))
    assert not shard.may_start(3)
    assert "learner 1 has pushed 0 steps" in shard.waits_for(3)
    shard.take(push(1, 0))
    assert shard.may_start(3)
    assert shard.version == 4
    free = shard_of(2, mode="asynchronous")
    for step in range(9):
        free.take(push(0, step))
    assert free.version == 9


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (push(2, 0), "there are learners 0 to 1, no learner 2"),
        (push(0, 1), "learner 0 pushed step 1; its next is step 0"),
        (Push(0, 0, 4, 0.1, np.zeros(3, np.float32)), r"pushed a gradient \(3,\) of 4 rows; this shard takes \(5,\)"),
        (push(0, 0, rows=-1), "of -1 rows"),
        (Commit(0, 1.0), "applies complete steps by itself"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(entry, told):
    shard = shard_of(2)
    with pytest.raises(ValueError, match=told):
        shard.take(entry)
    assert (shard.version, shard.clocks, shard.has_pending) == (0, [0, 0], False)


@pytest.mark.parametrize(
    ("given_settings", "told"),
    [
        ({"learners": 0}, "at least 1 learner, not 0"),
        ({"learners": 1, "mode": "ssp"}, "mode is bulk, bounded or asynchronous, not 'ssp'"),
        ({"learners": 1, "staleness": 2}, "staleness is at least 0, and 0 where mode is not bounded"),
        ({"learners": 1, "mode": "asynchronous", "awaits_scale": True}, "in mode bulk only, not in asynchronous"),
    ],
)
def test_settings_that_cannot_be_are_refused(given_settings, told):
    with pytest.raises(ValueError, match=told):
        ShardSettings(**given_settings)


def test_a_state_that_is_loaded_ends_a_step_that_waits_for_its_scale():
    shard = shard_of(2, awaits_scale=True)
    before = shard.arrays()
    for learner in range(2):
        shard.take(push(learner, 0))
    shard.load(before)
    assert (shard.squared_norm, shard.has_pending) == (None, False)
    with pytest.raises(ValueError, match=r"step 0 cannot be committed: pushes of learners \[0, 1\] are missing"):
        shard.take(Commit(0, 1.0))


def test_a_state_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the clocks of this shard are \(2,\), not \(3,\)"):
        shard_of(2).load(shard_of(3).arrays())
