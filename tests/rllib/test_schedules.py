import pytest

from shoal.rllib.schedules import linear


@pytest.mark.parametrize(("progress", "value"), [(0.0, 3.0), (0.25, 2.5), (1.0, 1.0), (1.2, 1.0), (-0.1, 3.0)])
def test_linear_runs_from_start_to_end_and_stays_there(progress, value):
    assert linear(3.0, 1.0, progress) == pytest.approx(value)
