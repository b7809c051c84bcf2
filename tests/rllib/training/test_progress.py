"""Progress: a live line on a terminal, a few plain lines elsewhere."""

import io
import math

import pytest

from shoal.rllib.training.progress import PLAIN_INTERVAL_S, Progress, Snapshot


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def row(steps: int) -> dict[str, float]:
    return {"steps": steps, "steps_per_second": 1234.5, "return_mean": 21.04, "episode_length_mean": 22.0}


def test_a_pipe_gets_the_first_line_one_every_few_seconds_and_the_last(clock):
    stream = io.StringIO()
    with Progress(1000, stream, clock=clock) as progress:
        for steps in range(100, 1100, 100):
            clock.now_s += PLAIN_INTERVAL_S / 2
            progress.update(row(steps))
    steps = [line.split()[0] for line in stream.getvalue().splitlines()]
    assert steps == ["100", "300", "500", "700", "900", "1,000"]


def test_a_plain_line_has_every_figure(clock):
    stream = io.StringIO()
    with Progress(4000, stream, clock=clock) as progress:
        clock.now_s += 20
        progress.update(row(1000))
    assert stream.getvalue() == "1,000 / 4,000 steps  1,234 steps/s  return 21.0  length 22.0  1:00 left\n"


def test_figures_that_are_not_known_yet_are_a_dash():
    snapshot = Snapshot(0, 10, 5.0, math.nan, math.nan, math.nan)
    assert snapshot.parts()[2:] == ("return -", "length -", "- left")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00")])
def test_time_left_is_said_in_minutes_and_hours(seconds, text):
    assert Snapshot(1, 2, 1.0, 1.0, 1.0, seconds).parts()[-1] == f"{text} left"


def test_time_left_counts_only_what_this_run_has_done(clock):
    stream = io.StringIO()
    with Progress(1000, stream, start_steps=500, clock=clock) as progress:
        clock.now_s += 10
        progress.update(row(600))
    assert "0:40 left" in stream.getvalue()


def test_time_left_counts_from_when_the_steps_could_begin(clock):
    stream = io.StringIO()
    with Progress(1000, stream, started_s=clock.now_s - 30, clock=clock) as progress:
        progress.update(row(500))
    assert "0:30 left" in stream.getvalue()


def test_a_note_comes_after_what_it_speaks_of(clock):
    stream = io.StringIO()
    with Progress(1000, stream, clock=clock) as progress:
        progress.update(row(100))
        progress.update(row(200))
        progress.note("checkpoint saved")
    assert [line[:5] for line in stream.getvalue().splitlines()] == ["100 /", "200 /", "check"]


@pytest.mark.parametrize("columns", [140, 100, 80])
def test_a_terminal_gets_one_line_redrawn_in_place(clock, monkeypatch, columns):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with Progress(150_000, stream, clock=clock) as progress:
        for steps in (100, 200, 150_000):
            progress.update(row(steps))
    drawn = stream.getvalue()
    assert drawn.count("steps/s") >= 3
    assert drawn.count("\n") == 1, "only leaving the display ends its line"
    assert "150,000 / 150,000 steps  1,234 steps/s  return 21.0  length 22.0  0:00 left" in drawn
    assert ("━" in drawn) == (columns > 80), "the bar stands where there is room for it"
    assert drawn.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_dumb_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(1000, stream, clock=clock) as progress:
        progress.update(row(100))
    assert stream.getvalue().startswith("100 / 1,000 steps")
    assert "\x1b" not in stream.getvalue()
