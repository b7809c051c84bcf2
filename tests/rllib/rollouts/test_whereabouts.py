import numpy as np

from shoal.rllib.rollouts.whereabouts import Whereabouts


def at(*lengths):
    return {"length": np.array(lengths)}


def test_a_worker_is_followed_behind_what_has_come_and_a_checkpoint_tells_what_is_counted():
    whereabouts = Whereabouts(2)
    assert whereabouts.all_counted() is None
    whereabouts.begin([at(0, 0), at(0)])
    whereabouts.came(0, at(3, 4))
    whereabouts.came(0, at(6, 8))
    whereabouts.counted(0, at(3, 4))
    first, second = whereabouts.places
    assert (first["length"].tolist(), second["length"].tolist()) == ([6, 8], [0])
    counted = whereabouts.all_counted()
    assert counted is not None
    assert counted["length"].tolist() == [3, 4, 0]


def test_a_worker_that_cannot_tell_where_it_stands_is_followed_exactly_only_before_it_has_sent_anything():
    whereabouts = Whereabouts(2)
    assert whereabouts.successor_is_exact(0)
    whereabouts.came(0, None)
    assert not whereabouts.successor_is_exact(0)
    assert whereabouts.successor_is_exact(1)
    whereabouts.came(1, at(5))
    assert whereabouts.successor_is_exact(1)
    whereabouts.begin([None, None])
    assert whereabouts.successor_is_exact(0)
