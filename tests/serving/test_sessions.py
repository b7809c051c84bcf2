"""States kept by the names of sessions."""

import numpy as np
import pytest

from shoal.serving.errors import BadRequest
from shoal.serving.sessions import Sessions


def rows(*values):
    return np.array([[value, value] for value in values], np.float32)


def test_a_session_begins_with_zeros_and_goes_on_from_where_it_was():
    made = Sessions(max_sessions=8, idle_s=60.0)
    assert made.states("walker", ["a", "b"], None, 2, 0.0).tolist() == [[0, 0], [0, 0]]
    made.keep("walker", ["a", "b"], rows(1, 2), 0.0)
    assert made.states("walker", ["b", "a"], None, 2, 1.0).tolist() == [[2, 2], [1, 1]]
    assert made.states("runner", ["a"], None, 2, 1.0).tolist() == [[0, 0]], "another policy's session"


def test_where_an_episode_starts_the_state_is_forgotten():
    made = Sessions(max_sessions=8, idle_s=60.0)
    made.keep("walker", ["a", "b"], rows(1, 2), 0.0)
    assert made.states("walker", ["a", "b"], np.array([True, False]), 2, 1.0).tolist() == [[0, 0], [2, 2]]


def test_what_is_kept_is_the_tables_own():
    made = Sessions(max_sessions=8, idle_s=60.0)
    states = rows(1)
    made.keep("walker", ["a"], states, 0.0)
    states[:] = 7
    given = made.states("walker", ["a"], None, 2, 0.0)
    given[:] = 8
    assert made.states("walker", ["a"], None, 2, 0.0).tolist() == [[1, 1]]


def test_when_there_are_too_many_the_one_used_longest_ago_goes():
    made = Sessions(max_sessions=2, idle_s=60.0)
    for session, now_s in (("a", 0.0), ("b", 1.0), ("a", 2.0), ("c", 3.0)):
        made.keep("walker", [session], rows(5), now_s)
    assert len(made) == 2
    assert made.states("walker", ["a", "b", "c"], None, 2, 3.0)[:, 0].tolist() == [5, 0, 5]


def test_a_session_that_nobody_uses_expires():
    made = Sessions(max_sessions=8, idle_s=60.0)
    made.keep("walker", ["a"], rows(1), 0.0)
    made.keep("walker", ["b"], rows(2), 30.0)
    assert made.states("walker", ["b"], None, 2, 61.0).tolist() == [[2, 2]]
    assert len(made) == 1


def test_who_says_that_his_episode_goes_on_is_told_when_nothing_is_known_of_it():
    made = Sessions(max_sessions=8, idle_s=60.0)
    made.keep("walker", ["a"], rows(1), 0.0)
    with pytest.raises(BadRequest, match="nothing is known of session 'b'") as caught:
        made.states("walker", ["a", "b"], np.array([False, False]), 2, 1.0)
    assert caught.value.field == "sessions"


def test_a_policy_that_goes_takes_its_sessions_with_it():
    made = Sessions(max_sessions=8, idle_s=60.0)
    made.keep("walker", ["a"], rows(1), 0.0)
    made.keep("runner", ["a"], rows(2), 0.0)
    made.forget("walker")
    assert len(made) == 1


@pytest.mark.parametrize("arguments", [{"max_sessions": 0, "idle_s": 1.0}, {"max_sessions": 1, "idle_s": 0.0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        Sessions(**arguments)
