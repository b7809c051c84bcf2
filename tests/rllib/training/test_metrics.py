import math

from shoal.rllib.training.metrics import Window


def test_a_window_keeps_the_last_values_in_order():
    window = Window(3, [1.0, 2.0])
    assert window.mean == 1.5
    window.extend([3.0, 7.0])
    assert window.values == (2.0, 3.0, 7.0)
    assert window.mean == 4.0


def test_an_empty_window_has_no_mean():
    assert math.isnan(Window(3).mean)
