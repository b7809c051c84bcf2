import math

import pytest

from shoal.rllib.training.metrics import Pace, RecentEpisodes, Window


def test_a_window_keeps_the_last_values_in_order():
    window = Window(3, [1.0, 2.0])
    assert window.mean == 1.5
    window.extend([3.0, 7.0])
    assert window.values == (2.0, 3.0, 7.0)
    assert window.mean == 4.0


def test_an_empty_window_has_no_mean():
    assert math.isnan(Window(3).mean)


def test_the_last_hundred_episodes_count_also_when_a_run_is_gone_on_with():
    recent, heir = RecentEpisodes(), RecentEpisodes()
    assert all(math.isnan(mean) for mean in recent.means().values())
    recent.extend(range(103), [5] * 103)
    arrays = recent.arrays()
    assert arrays.keys() == RecentEpisodes.SHAPES.keys()
    heir.load(arrays)
    assert recent.means() == heir.means() == {"return_mean": sum(range(3, 103)) / 100, "episode_length_mean": 5.0}


def test_without_a_window_the_pace_is_that_of_the_last_iteration():
    pace = Pace(0.0, 50, 100.0)
    assert [pace.after(150, 102.0), pace.after(250, 102.5), pace.after(350, 202.5)] == [50.0, 200.0, 1.0]


def test_steps_that_come_in_lumps_do_not_make_the_pace_burst():
    pace = Pace(10.0, 0, 0.0)
    lumps = [(8.0, 100), (8.1, 200), (16.0, 300), (16.1, 400), (24.0, 500), (24.1, 600)]
    told = [pace.after(steps, end_s) for end_s, steps in lumps]
    assert told == [100 / 8, 200 / 8.1, 300 / 16, 400 / 16.1, pytest.approx(300 / 15.9), pytest.approx(400 / 16)]
    assert max(told) <= 200 / 8  # so many are played in 8 s


def test_after_a_pause_the_pace_is_the_pauses_until_it_is_a_window_ago():
    pace = Pace(10.0, 0, 0.0)
    assert pace.after(100, 3600.0) == 100 / 3600.0
    assert pace.after(200, 3601.0) == 200 / 3601.0
    assert pace.after(1200, 3611.0) == 1000 / 10.0
