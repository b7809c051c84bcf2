"""Episodes of simulators: everything may come twice, late or not at all, and each step counts once."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shoal.serving.episode_requests import EpisodeEnd, EpisodeStep
from shoal.serving.episodes import COUNTS, Acted, EpisodeTable, Found
from shoal.serving.errors import BadRequest, EpisodeNotFound, EpisodeOver, OutOfStep, Overloaded, ServingError

BATCH = 8


def table(**options) -> EpisodeTable:
    return EpisodeTable(**({"batch_steps": BATCH, "max_lag": 2, "silence_s": 10.0} | options))


def seen(step: int, *, reward: float | None = None, who: int | None = None) -> EpisodeStep:
    """What a simulator says in a step: it sees the step's number and the episode's, by default the former again, and
    has earned as much as the number before.
    """
    earned = float(max(step - 1, 0)) if reward is None else reward
    shown = np.array([step, step if who is None else who], np.float32)
    return EpisodeStep(step=step, observation={"observation": shown}, reward=earned)


def acted(step: int, version: int = 0) -> Acted:
    """The action is the step's number, its value ten times that."""
    return Acted(np.int64(step), np.array([step]), -0.5, 10.0 * step, np.zeros(0, np.float32), version)


def end_of(steps: int, *, terminated: bool = True) -> EpisodeEnd:
    last = None if terminated else {"observation": np.full(2, steps, np.float32)}
    earned = float(max(steps - 1, 0))
    return EpisodeEnd(step=steps, reward=earned, terminated=terminated, truncated=not terminated, observation=last)


def play(episodes: EpisodeTable, name: str, steps: int, *, version: int = 0, first: int = 0, now_s: float = 0.0):
    for step in range(first, first + steps):
        assert episodes.step(name, seen(step), now_s) is Found.BEGIN
        episodes.acted(name, acted(step, version), now_s)


def test_a_step_is_complete_when_its_outcome_is_known_and_an_end_tells_that_of_the_last():
    episodes = table()
    episodes.start("a", 0.0)
    play(episodes, "a", 3)
    assert episodes.held == 2
    assert episodes.end("a", end_of(3), 0.0) is Found.BEGIN
    assert episodes.ended("a", 0.0).episode_return == 0 + 1 + 2
    taken = episodes.take(3, 0)
    (segment,) = taken.segments
    assert segment.rewards.tolist() == [0, 1, 2]
    assert segment.actions[:, 0].tolist() == segment.observations["observation"][:, 0].tolist() == [0, 1, 2]
    assert segment.last_observation is None
    assert segment.last_value == 0.0
    assert taken.finished == ((3.0, 3),)
    assert taken.counts["steps"] == 3
    assert taken.counts["duplicates"] == 0


def test_a_truncated_episode_ends_with_what_was_seen_at_last_and_its_value():
    episodes = table()
    episodes.start("a", 0.0)
    play(episodes, "a", 2)
    episodes.end("a", end_of(2, terminated=False), 0.0)
    episodes.ended("a", 77.0)
    (segment,) = episodes.take(2, 0).segments
    assert segment.last_observation["observation"].tolist() == [2, 2]
    assert segment.last_value == 77.0


def test_an_episode_that_goes_on_is_cut_where_the_batch_is_full_and_goes_on_in_the_next():
    episodes = table()
    episodes.start("a", 0.0)
    play(episodes, "a", 6)
    (first,) = episodes.take(3, 0).segments
    assert (first.last_value, first.last_observation["observation"][0]) == (30.0, 3)
    (second,) = episodes.take(2, 0).segments
    assert (second.first_step, second.rewards.tolist(), second.last_value) == (3, [3, 4], 50.0)
    assert episodes.take(1, 0) is None


def test_what_is_told_again_is_answered_again_and_counts_once():
    episodes = table()
    episodes.start("a", 0.0)
    episodes.start("a", 0.0)
    play(episodes, "a", 2)
    answer = episodes.step("a", seen(1), 0.0)
    assert (answer.action, answer.step) == (1, 1)
    assert episodes.end("a", end_of(2), 0.0) is Found.BEGIN
    assert episodes.end("a", end_of(2), 0.0) is Found.WAIT
    ended = episodes.ended("a", 0.0)
    assert episodes.end("a", end_of(2), 0.0) == ended
    taken = episodes.take(2, 0)
    assert taken.counts["duplicates"] == 4
    assert taken.counts["episodes"] == taken.counts["started"] == 1


def test_the_twin_of_a_step_under_way_waits_for_it_and_one_that_failed_may_come_again():
    episodes = table()
    episodes.start("a", 0.0)
    assert episodes.step("a", seen(0), 0.0) is Found.BEGIN
    assert episodes.step("a", seen(0), 0.0) is Found.WAIT
    episodes.failed("a")
    assert episodes.step("a", seen(0), 0.0) is Found.BEGIN


@pytest.mark.parametrize(
    ("told", "field", "message"),
    [
        (seen(4), "step", "4; the episode has 2 steps"),
        (seen(0), "step", "0; the episode has 2 steps"),
        (seen(1, reward=5.0), "reward", "another reward"),
        (EpisodeStep(step=1, observation={"observation": np.zeros(2)}), "observation", "another observation"),
        (
            EpisodeStep(step=1, observation={"observation": np.ones(2)}, action_mask=np.ones(2, bool)),
            "action_mask",
            "another mask",
        ),
    ],
)
def test_a_step_that_skips_is_older_or_is_told_otherwise_is_refused_and_changes_nothing(told, field, message):
    episodes = table()
    episodes.start("a", 0.0)
    play(episodes, "a", 2)
    with pytest.raises(OutOfStep, match=message) as refused:
        episodes.step("a", told, 0.0)
    assert refused.value.field == field
    play(episodes, "a", 1, first=2)


def test_nothing_is_earned_before_the_first_action_and_an_unknown_episode_is_told():
    episodes = table()
    with pytest.raises(EpisodeNotFound):
        episodes.step("a", seen(0), 0.0)
    episodes.start("a", 0.0)
    with pytest.raises(BadRequest, match="nothing is earned yet"):
        episodes.step("a", seen(0, reward=1.0), 0.0)


def test_who_says_nothing_for_long_is_cut_at_the_last_outcome_that_is_known():
    episodes = table()
    for name in ("a", "b"):
        episodes.start(name, 0.0)
    play(episodes, "a", 3)
    play(episodes, "b", 1, now_s=5.0)
    assert episodes.step("b", seen(1), 5.0) is Found.BEGIN  # which waits for its answer for long
    episodes.expire(10.0)
    assert episodes.held == 2
    episodes.expire(20.0)
    episodes.acted("b", acted(1), 20.0)
    with pytest.raises(EpisodeOver, match="was cut: 10 s"):
        episodes.step("a", seen(3), 20.0)
    taken = episodes.take(3, 0)
    assert [len(segment) for segment in taken.segments] == [2, 1]
    assert taken.segments[0].last_value == 20.0
    assert taken.counts["cut_episodes"] == taken.counts["lost_steps"] == 1
    assert taken.finished == ()


def test_an_end_is_remembered_until_so_many_others_have_ended():
    episodes = table(max_remembered=2)
    for name in "abc":
        episodes.start(name, 0.0)
        episodes.end(name, end_of(0), 0.0)
        episodes.ended(name, 0.0)
    with pytest.raises(EpisodeOver, match="has ended, after 0 steps"):
        episodes.start("c", 0.0)
    with pytest.raises(EpisodeNotFound):
        episodes.end("a", end_of(0), 0.0)


def test_steps_that_are_too_old_are_dropped_and_counted():
    episodes = table(max_lag=1)
    episodes.start("a", 0.0)
    play(episodes, "a", 3, version=0)
    play(episodes, "a", 3, version=1, first=3)
    episodes.publish(2)
    assert episodes.take(3, 2) is None
    taken = episodes.take(2, 2)
    assert [segment.first_step for segment in taken.segments] == [3]
    assert taken.counts["dropped_steps"] == 3


def test_the_oldest_weights_are_taken_first():
    episodes = table()
    for name in ("a", "b"):
        episodes.start(name, 0.0)
    play(episodes, "a", 1, version=1)
    play(episodes, "b", 3, version=0)
    play(episodes, "a", 2, version=1, first=1)
    assert [segment.versions.tolist() for segment in episodes.take(3, 1).segments] == [[0, 0], [1]]


def test_nobody_acts_ahead_of_use():
    episodes = table(max_lag=0)
    episodes.start("a", 0.0)
    play(episodes, "a", BATCH)
    assert episodes.may_act()
    play(episodes, "a", 1, first=BATCH)
    assert not episodes.may_act()
    assert episodes.take(BATCH, 0)
    assert not episodes.may_act()
    episodes.publish(1)
    assert episodes.may_act()


@pytest.mark.parametrize("bound", [{"max_open": 3}, {"step_bytes": 10_000_000, "max_open_bytes": 79_999_999}])
def test_too_many_episodes_are_refused_for_now_by_number_or_by_what_they_may_hold(bound):
    episodes = table(**bound)
    for name in "abc":
        episodes.start(name, 0.0)
    with pytest.raises(Overloaded, match=r"episode 'd' cannot begin: 3 are under way, and may hold (0|60) MB; end one"):
        episodes.start("d", 0.0)
    episodes.start("a", 0.0)  # again
    assert episodes.end("a", end_of(0), 0.0) is Found.BEGIN
    episodes.ended("a", 0.0)
    episodes.start("d", 0.0)


def test_one_episode_may_always_be_under_way_however_much_it_sees():
    episodes = table(step_bytes=1 << 40)
    episodes.start("a", 0.0)
    with pytest.raises(Overloaded):
        episodes.start("b", 0.0)


def test_a_name_that_is_too_long_to_be_remembered_is_refused():
    episodes = table()
    episodes.start("n" * 128, 0.0)
    with pytest.raises(BadRequest, match=r"'nnnnnnnnnnnnnnnn'\.\.\. has 129 characters; a name has 128 at most"):
        episodes.start("n" * 129, 0.0)


@pytest.mark.parametrize("wrong", [{"batch_steps": 0}, {"max_lag": -1}, {"silence_s": 0.0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="positive"):
        table(**wrong)


class Simulator:
    """Plays episodes through a network that repeats, delays and loses what is sent either way."""

    def __init__(self, number: int, lengths: list[int]) -> None:
        self.number, self.lengths, self.played = number, lengths, 0
        self.step = 0

    @property
    def name(self) -> str:
        return f"{self.number}-{self.played}"

    def message(self) -> tuple[str, str, object]:
        kind = "start" if self.step == 0 else "end" if self.step > self.lengths[self.played] else "step"
        told = None if kind == "start" else end_of(self.step - 1) if kind == "end" else self.seen()
        return kind, self.name, told

    def seen(self) -> EpisodeStep:
        return seen(self.step - 1, who=100 * self.number + self.played)

    def answered(self, kind: str) -> None:
        if kind == "end":
            self.next()
        else:
            self.step += 1

    def next(self) -> None:
        self.played, self.step = self.played + 1, 0

    @property
    def is_done(self) -> bool:
        return self.played == len(self.lengths)


class World:
    """Two simulators, a table and a learner, of which ``draw`` decides what happens."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.episodes = table(max_lag=1)
        lengths = st.lists(st.integers(0, 5), min_size=1, max_size=3)
        self.simulators = [Simulator(i, draw(lengths)) for i in range(2)]
        self.abroad: list[tuple[str, str, object]] = []  # copies that are still on their way
        self.now_s, self.version = 0.0, 0
        self.taken, self.counts = [], dict.fromkeys(COUNTS, 0)

    def deliver(self, message) -> bool:
        """Whether it is answered."""
        kind, name, told = message
        try:
            if kind == "start":
                self.episodes.start(name, self.now_s)
                return True
            found = (self.episodes.step if kind == "step" else self.episodes.end)(name, told, self.now_s)
        except ServingError:
            return False
        if found is not Found.BEGIN:
            return True
        if self.draw(st.integers(0, 9)) == 0:
            self.episodes.failed(name)
            return False
        if kind == "step":
            self.episodes.acted(name, acted(told.step, self.version), self.now_s)
        else:
            self.episodes.ended(name, 0.0)
        return True

    def take(self, number: int) -> None:
        batch = self.episodes.take(number, self.version)
        if batch is None:
            return
        assert sum(map(len, batch.segments)) == number
        for segment in batch.segments:
            assert (segment.versions >= self.version - 1).all()
            assert segment.rewards.tolist() == segment.observations["observation"][:, 0].tolist()
        self.taken.append(batch)
        for name, count in batch.counts.items():
            self.counts[name] += count

    def expire(self, seconds: float) -> None:
        self.now_s += seconds
        self.episodes.expire(self.now_s)

    def publish(self) -> None:
        self.version += 1
        self.episodes.publish(self.version)

    def send(self, simulator: Simulator) -> None:
        """Once, twice or not at all; the answer may be lost, and another copy come later."""
        message = simulator.message()
        copies = self.draw(st.integers(0, 2))
        self.abroad += [message] * self.draw(st.integers(0, 1))
        answers = [self.deliver(message) for _ in range(copies)]
        if any(answers) and self.draw(st.booleans()):
            simulator.answered(message[0])
        elif copies and not any(answers) and simulator.name not in self.episodes._open and message[0] != "start":
            simulator.next()  # told that it was cut: another episode

    def happen(self, simulator: Simulator) -> None:
        """Mostly a simulator sends what is next; or it dies, and another begins with the next episode."""
        rare = {0: simulator.next, 1: lambda: self.expire(11.0), 2: self.publish, 3: lambda: self.take(2)}
        happens = self.draw(st.integers(0, 19))
        if happens in rare:
            rare[happens]()
        elif happens < 7 and self.abroad:
            self.deliver(self.abroad.pop(self.draw(st.integers(0, len(self.abroad) - 1))))
        else:
            self.send(simulator)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_repeated_delayed_lost_or_abandoned_each_step_is_taken_at_most_once_and_in_order(data):
    world = World(data.draw)
    for _ in range(80):
        active = [simulator for simulator in world.simulators if not simulator.is_done]
        if not active:
            break
        world.happen(data.draw(st.sampled_from(active)))
    world.expire(100.0)
    while world.episodes.held:
        world.take(1)
    rows = [row for batch in world.taken for each in batch.segments for row in each.observations["observation"]]
    assert len({tuple(row) for row in rows}) == len(rows)
    counts = {name: count + world.episodes._counts[name] for name, count in world.counts.items()}
    assert counts["steps"] == len(rows) + counts["dropped_steps"]
    assert world.episodes._acted == counts["steps"] + counts["lost_steps"]
    assert counts["episodes"] <= counts["started"] <= sum(len(each.lengths) for each in world.simulators)


def test_of_an_episode_that_is_over_no_observation_is_remembered():
    episodes = table()
    episodes.start("a", 0.0)
    play(episodes, "a", 1)
    episodes.end("a", end_of(1, terminated=False), 0.0)
    answer = episodes.ended("a", 0.0)
    assert episodes._over["a"].told.observation is None
    assert episodes.end("a", end_of(1, terminated=False), 0.0) == answer
    with pytest.raises(OutOfStep, match="another terminated"):
        episodes.end("a", end_of(1), 0.0)
