"""Lines out of bytes, and the folding of those that several workers print alike."""

from __future__ import annotations

from hypothesis import given, strategies as st

from shoal.core.output.output_lines import LINE_BYTES, Folding, Line, LineReader, Speaker
from shoal.core.protocol.worker_output import (
    STDERR,
    STDOUT,
    Frames,
    announcement,
    frame,
    mark_of,
    without_marks,
)

MARK = mark_of(b"token")


def said(pid, title):
    return announcement(MARK, pid, title).encode()


def texts(lines):
    return [(line.title, line.pid, line.text) for line in lines]


def test_lines_belong_to_whom_was_announced_last():
    reader = LineReader(STDOUT, MARK, Speaker())
    data = b"raw\n" + said(7, "f") + b"one\ntwo\n" + said(7, "g") + b"three\n"
    assert texts(reader.feed(data)) == [("", 0, "raw"), ("f", 7, "one"), ("f", 7, "two"), ("g", 7, "three")]


def test_what_one_stream_has_announced_holds_for_the_other():
    speaker = Speaker()
    LineReader(STDOUT, MARK, speaker).feed(said(7, "f"))
    assert texts(LineReader(STDERR, MARK, speaker).feed(b"by a child\n")) == [("f", 7, "by a child")]


def test_a_line_ends_where_another_title_begins():
    reader = LineReader(STDOUT, MARK, Speaker())
    assert texts(reader.feed(said(7, "f") + b"half " + said(7, "g") + b"other\n")) == [
        ("f", 7, "half "),
        ("g", 7, "other"),
    ]


@given(st.lists(st.tuples(st.sampled_from(["f", "g"]), st.text("ab \n", max_size=8)), max_size=8), st.data())
def test_however_the_bytes_are_cut_the_lines_are_the_same(writes, data):
    whole = b"".join(said(1, title) + text.encode() for title, text in writes)
    reader, cut = LineReader(STDOUT, MARK, Speaker()), LineReader(STDOUT, MARK, Speaker())
    expected = reader.feed(whole) + reader.end()
    lines = []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        lines += cut.feed(whole[:size])
        whole = whole[size:]
    assert lines + cut.end() == expected


def test_of_a_line_that_is_written_over_the_last_state_is_seen():
    reader = LineReader(STDOUT, MARK, Speaker())
    assert reader.feed(b"\r 10%") == reader.feed(b"\r 50%") == []
    assert texts(reader.feed(b"\r100%\r\nwindows\r\n")) == [("", 0, "100%"), ("", 0, "windows")]


def test_a_line_without_an_end_takes_bounded_memory_and_loses_nothing():
    reader = LineReader(STDOUT, MARK, Speaker())
    lines = [line for _ in range(100) for line in reader.feed(b"x" * 10_000)] + reader.end()
    assert sum(len(line.text) for line in lines) == 1_000_000
    assert max(len(line.text) for line in lines) <= LINE_BYTES + 10_000
    assert texts(reader.feed(b"y" * 10_000 + b"\n"))[0][2] == "y" * 10_000


def test_what_is_no_text_is_shown_as_far_as_it_goes():
    assert texts(LineReader(STDOUT, MARK, Speaker()).feed(b"\xff\xfe ok\n")) == [("", 0, "\ufffd\ufffd ok")]


def test_titles_are_one_short_line():
    told = announcement(MARK, 1, "a\nb" + "x" * 1000)
    assert told.count("\n") == 1
    assert len(told) < 300


def test_marks_are_no_part_of_what_was_written():
    assert without_marks(MARK, b"a\n" + said(1, "f") + b"b\n") == b"a\nb\n"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2), st.binary(max_size=9)), max_size=9), st.integers(1, 20))
def test_frames_come_out_as_they_went_in(sent, step):
    data = b"".join(frame(*one) for one in sent)
    frames = Frames()
    assert [one for at in range(0, len(data), step) for one in frames.feed(data[at : at + step])] == sent


def line(pid, text, stream=STDOUT):
    return Line("f", pid, stream, text)


def test_what_one_worker_repeats_is_never_held_back():
    folding = Folding(5.0)
    assert [folding.feed(line(1, "x"), float(i)) for i in range(3)] == [[line(1, "x")]] * 3
    assert folding.end() == []


def test_what_others_print_alike_is_told_once_with_its_number():
    folding = Folding(5.0)
    assert folding.feed(line(1, "x"), 0.0) == [line(1, "x")]
    assert [folding.feed(line(pid, "x"), 1.0) for pid in (2, 3, 2)] == [[], [], []]
    assert folding.due(4.9) == []
    assert folding.next_due_s() == 5.0
    assert folding.due(5.0) == [line(2, "x [3 more times, by 3 workers]")]
    assert folding.feed(line(4, "x"), 6.0) == [], "it goes on being folded"
    assert folding.due(10.0) == [line(4, "x")], "one alone is shown as it is"
    assert folding.next_due_s() is None
    assert folding.feed(line(5, "x"), 11.0) == [line(5, "x")]


def test_streams_and_texts_are_told_apart_and_empty_lines_left_alone():
    folding = Folding(5.0)
    for one in (line(1, "x"), line(2, "y"), line(2, "x", 2), line(1, ""), line(2, "")):
        assert folding.feed(one, 0.0) == [one]


def test_without_a_window_nothing_is_folded():
    folding = Folding(0.0)
    assert [folding.feed(line(pid, "x"), 0.0) for pid in (1, 2)] == [[line(1, "x")], [line(2, "x")]]
    assert folding.next_due_s() is None


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from("xyz"), st.floats(0, 3)), max_size=60))
def test_every_line_is_shown_or_counted(prints):
    folding, now, shown = Folding(5.0), 0.0, []
    for pid, text, later in prints:
        now += later
        shown += folding.due(now) + folding.feed(line(pid, text), now)
    shown += folding.end()
    count = dict.fromkeys("xyz", 0)
    for one in shown:
        text, _, note = one.text.partition(" [")
        count[text] += int(note.split()[0]) if note else 1
    assert count == {text: sum(1 for _, printed, _ in prints if printed == text) for text in "xyz"}


def test_the_number_of_texts_remembered_is_bounded():
    folding = Folding(5.0)
    for number in range(5_000):
        folding.feed(line(1, str(number)), 0.0)
    assert len(folding._seen) <= 1_000


def test_the_prefix_is_coloured_on_terminals_only():
    assert line(7, "text").shown(colour=False) == "(f pid=7) text"
    assert line(7, "text").shown(colour=True) == "\x1b[36m(f pid=7)\x1b[0m text"
    assert Line("", 0, 1, "text").shown(colour=False) == "(worker) text"
