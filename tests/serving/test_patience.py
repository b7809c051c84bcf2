import pytest

from shoal.serving.errors import BadObservation, Overloaded, TimedOut, Unreachable
from shoal.serving.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_after_lost_connections_double_up_to_a_bound_and_end_with_the_time():
    clock = Clock()
    patience = Patience(5.0, clock=clock, jitter=lambda: 1.0)
    pauses = []

    def go_on() -> None:
        while True:
            pauses.append(patience.pause(Unreachable("x"), can_repeat=True))
            clock.now += pauses[-1]

    with pytest.raises(Unreachable):
        go_on()
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert max(pauses) == LONGEST_PAUSE_S
    assert 4.4 < sum(pauses) < 5.0


def test_who_says_when_to_come_back_is_heard():
    patience = Patience(5.0, clock=Clock(), jitter=lambda: 0.5)
    assert patience.pause(Overloaded("x", retry_after_s=2.0), can_repeat=False) == 2.5
    with pytest.raises(Overloaded):  # there is not so much time
        patience.pause(Overloaded("x", retry_after_s=4.5), can_repeat=False)


def test_what_can_only_come_again_is_raised_at_once():
    patience = Patience(5.0, clock=Clock())
    for error in (BadObservation("x"), Unreachable("x", can_retry=False)):
        with pytest.raises(type(error)):
            patience.pause(error, can_repeat=True)


def test_what_timed_out_may_have_been_acted_on():
    patience = Patience(5.0, clock=Clock())
    assert patience.pause(TimedOut("x"), can_repeat=True) > 0
    with pytest.raises(TimedOut):
        patience.pause(TimedOut("x"), can_repeat=False)
