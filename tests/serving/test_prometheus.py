from shoal.serving.measures import ROWS, SECONDS, Histogram, Tally
from shoal.serving.prometheus import TextWriter


def test_buckets_add_up_to_the_count():
    tally = Tally((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        tally.add(value)
    writer = TextWriter()
    writer.family("x", "histogram", "About\nx.")
    writer.histogram("x", tally.read(), {"policy": 'a"b\\c\n'})
    assert writer.text().splitlines() == [
        "# HELP x About\\nx.",
        "# TYPE x histogram",
        'x_bucket{policy="a\\"b\\\\c\\n",le="1"} 2',
        'x_bucket{policy="a\\"b\\\\c\\n",le="2"} 3',
        'x_bucket{policy="a\\"b\\\\c\\n",le="+Inf"} 4',
        'x_sum{policy="a\\"b\\\\c\\n"} 12',
        'x_count{policy="a\\"b\\\\c\\n"} 4',
    ]


def test_a_value_on_a_bound_is_below_it():
    tally = Tally(ROWS)
    tally.add(64, times=3)
    assert tally.read() == Histogram(ROWS, tuple(3 * (bound == 64) for bound in (*ROWS, 0)), 192.0)


def test_bounds_grow():
    assert list(SECONDS) == sorted(set(SECONDS))
    assert (SECONDS[0], SECONDS[-1]) == (5e-5, 10.0)


def test_numbers_are_as_prometheus_reads_them():
    writer = TextWriter()
    for value in (3.0, 0.25, 1e-7, float("inf"), 2.0**60):
        writer.number("n", value, {})
    assert writer.text() == "n 3\nn 0.25\nn 1e-07\nn +Inf\nn 1.152921504606847e+18\n"
