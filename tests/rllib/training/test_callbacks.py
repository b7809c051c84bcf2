"""Callbacks as a set; how they are found and called in a run is in tests/scripts/test_train.py."""

from types import SimpleNamespace

import numpy as np
import pytest

from shoal.rllib.training.callbacks import Callback, CallbackFailure, Callbacks, load


class Asks(Callback):
    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    def on_iteration(self, algorithm, row):
        self.calls += 1
        return self.answer


def test_a_callback_that_overrides_nothing_does_nothing_at_each_point(tmp_path):
    callbacks = Callbacks([Callback()])
    assert not callbacks.on_iteration(SimpleNamespace(), {})
    callbacks.on_evaluation(SimpleNamespace(), 3, None)
    callbacks.on_checkpoint(SimpleNamespace(), tmp_path)
    callbacks.on_end(SimpleNamespace())


def test_all_are_asked_whether_training_shall_end_and_one_is_enough():
    asked = [Asks(None), Asks(True), Asks(False)]
    assert Callbacks(asked).on_iteration(SimpleNamespace(), {}) is True
    assert [each.calls for each in asked] == [1, 1, 1]
    assert Callbacks(asked[::2]).on_iteration(SimpleNamespace(), {}) is False


def test_what_is_no_number_in_a_row_is_told_with_the_callback_that_left_it_there():
    class Writes(Callback):
        def __init__(self, value):
            self.value = value

        def on_iteration(self, algorithm, row):
            row["mine"] = self.value

    for value in (1, 0.5, np.float32(1), np.int64(2), float("nan")):
        Callbacks([Writes(value)]).on_iteration(SimpleNamespace(), {})
    for value, kind in (("best", "str"), (np.zeros(2), "ndarray"), (None, "NoneType")):
        with pytest.raises(CallbackFailure, match=rf"Writes: its on_iteration left row\['mine'\] as a {kind}: rows"):
            Callbacks([Asks(None), Writes(value)]).on_iteration(SimpleNamespace(), {})


def test_a_failure_names_callback_and_point_and_has_the_cause():
    class Clumsy(Callback):
        def on_end(self, algorithm):
            raise KeyError("x")

    with pytest.raises(CallbackFailure, match=r"Clumsy: its on_end raised KeyError: 'x'\nTraceback") as caught:
        Callbacks([Clumsy()]).on_end(SimpleNamespace())
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_class_a_function_and_an_instance_can_be_named(tmp_path, monkeypatch):
    (tmp_path / "named_callbacks.py").write_text(
        "from shoal.rllib.training.callbacks import Callback\n"
        "class Mine(Callback):\n    def __call__(self): raise AssertionError\n"
        "make = Mine\nmade = Mine()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for attribute in ("Mine", "make", "made"):
        assert type(load(f"named_callbacks:{attribute}")).__name__ == "Mine"
