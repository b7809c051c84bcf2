import math

from shoal.rllib.training.metrics import RecentEpisodes, Window


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
