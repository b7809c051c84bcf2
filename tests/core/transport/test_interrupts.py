"""SIGINT and SIGTERM wait while tables change, and strike where the loop waits."""

from __future__ import annotations

import os
import signal

import pytest

from shoal.core.transport.interrupts import SIGNALS, Interrupts


class StruckError(Exception):
    pass


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def number(request):
    """A signal whose handler raises `StruckError`."""

    def strike(_number, _frame):
        raise StruckError

    before = signal.signal(request.param, strike)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_within_strikes_on_leaving(number):
    interrupts = Interrupts()
    interrupts.install()
    reached = []

    def strike_within():
        with interrupts:
            os.kill(os.getpid(), number)
            reached.append(True)

    with pytest.raises(StruckError):
        strike_within()
    assert reached
    interrupts.remove()


def test_a_signal_strikes_at_once_where_it_is_let_in(number):
    interrupts = Interrupts()
    interrupts.install()
    with interrupts:
        os.kill(os.getpid(), number)
        with pytest.raises(StruckError):
            interrupts.open()
        interrupts.shut()
    interrupts.remove()


def test_a_handler_that_the_program_sets_later_waits_too_and_the_one_before_can_be_put_back(number):
    """As Jupyter does for each cell: else Ctrl-C strikes while the loop holds its lock, and everything hangs."""
    before = signal.getsignal(number)
    interrupts = Interrupts()
    interrupts.install()

    def strike_within():
        with interrupts:
            os.kill(os.getpid(), number)
            reached.append(True)

    def later(_number, _frame):
        raise KeyError

    reached = []
    saved = signal.signal(number, later)
    with pytest.raises(KeyError):
        strike_within()
    signal.signal(number, saved)
    with pytest.raises(StruckError):
        strike_within()
    assert len(reached) == 2
    signal.signal(number, later)
    with interrupts:
        pass
    interrupts.remove()
    assert signal.getsignal(number) is later
    signal.signal(number, before)


def test_handlers_are_given_back_and_foreign_ones_left(number):
    mine = signal.getsignal(number)
    interrupts = Interrupts()
    interrupts.install()
    assert signal.getsignal(number) != mine
    interrupts.remove()
    assert signal.getsignal(number) is mine

    interrupts.install()
    ours = signal.getsignal(number)
    signal.signal(number, lambda *arguments: ours(*arguments))
    interrupts.remove()
    with pytest.raises(StruckError):
        os.kill(os.getpid(), number)


def test_a_signal_without_a_handler_is_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        interrupts = Interrupts()
        interrupts.install()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        interrupts.remove()
    finally:
        signal.signal(signal.SIGTERM, before)
