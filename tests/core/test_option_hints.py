"""A misspelt name is told with the one that was probably meant."""

from __future__ import annotations

import pytest

from shoal.core.options import actor_options, task_options


def test_a_misspelt_option_of_a_task_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"keyword num_cpu for tasks \(did you mean num_cpus\?\); valid"):
        task_options({"num_cpu": 1})


def test_a_misspelt_option_of_an_actor_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"keyword max_restart for actors \(did you mean max_restarts\?\); valid"):
        actor_options({"max_restart": 1})


def test_an_option_that_resembles_none_is_told_without_a_guess() -> None:
    with pytest.raises(ValueError, match=r"^Invalid option keyword zzzz for tasks; valid ones are"):
        task_options({"zzzz": 1})
