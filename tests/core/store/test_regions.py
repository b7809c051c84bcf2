"""The head's table of regions: whole MiB, warm space first, orphans."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from shoal.core.store.regions import UNIT_BYTES as MIB, Region, RegionTable

ME = b"me"


def test_sizes_are_rounded_up_to_whole_mebibytes():
    table = RegionTable(4 * MIB)
    assert table.allocate(1, ME) == 0
    assert table.allocate(MIB + 1, ME) == MIB
    assert table.allocate(1, ME) == 3 * MIB
    assert table.allocate(1, ME) is None


def test_the_most_recently_released_space_goes_out_first():
    table = RegionTable(8 * MIB)
    places = [table.allocate(MIB, ME) for _ in range(5)]
    for index in (3, 1):
        table.release(places[index])
    assert table.allocate(MIB, ME) == places[1]
    assert table.allocate(MIB, ME) == places[3]
    assert table.allocate(MIB, ME) == 5 * MIB


def test_released_neighbours_are_joined():
    table = RegionTable(3 * MIB)
    places = [table.allocate(MIB, ME) for _ in range(3)]
    for place in (places[0], places[2], places[1]):
        table.release(place)
    assert table.allocate(3 * MIB, ME) == 0


def test_released_and_untouched_space_serve_a_large_request_together():
    table = RegionTable(4 * MIB)
    table.release(table.allocate(2 * MIB, ME))
    assert table.allocate(4 * MIB, ME) == 0


def test_releasing_what_is_not_given_out_is_an_error():
    table = RegionTable(4 * MIB)
    place = table.allocate(MIB, ME)
    table.release(place)
    with pytest.raises(ValueError, match="no region starts at byte 0: it was never given out or was released before"):
        table.release(place)


def test_a_dead_holders_regions_have_none():
    table = RegionTable(4 * MIB)
    first, second, third = (table.allocate(MIB, holder) for holder in (ME, b"other", ME))
    assert [region.offset for region in table.holder_died(ME)] == [first, third]
    assert table.holder_died(ME) == []
    assert table.statistics().orphaned_regions == 2
    table.release(third)
    assert table.regions() == [Region(first, MIB, b"", ME), Region(second, MIB, b"other")]


def test_bad_requests_say_what_is_wrong():
    with pytest.raises(ValueError, match="at least 1048576 bytes, not 5"):
        RegionTable(5)
    table = RegionTable(MIB)
    with pytest.raises(ValueError, match="positive size, not 0"):
        table.allocate(0, ME)
    with pytest.raises(ValueError, match="the id given is empty"):
        table.allocate(1, b"")
    assert table.holder_died(b"") == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), max_size=50))
def test_regions_never_overlap_and_nothing_is_lost(script):
    table, given_out = RegionTable(20 * MIB), {}
    for take, amount in script:
        if take:
            place = table.allocate(amount * MIB, ME)
            if place is None:
                taken = {
                    unit for start, units in given_out.items() for unit in range(start // MIB, start // MIB + units)
                }
                longest = max(
                    (len(run) for run in "".join(" " if u in taken else "f" for u in range(20)).split()), default=0
                )
                # Free space lies apart in two kinds only next to the untouched space, where both are joined on demand.
                assert longest < amount
            else:
                given_out[place] = amount
        elif given_out:
            place = list(given_out)[amount % len(given_out)]
            table.release(place)
            del given_out[place]
        units = [unit for start, size in given_out.items() for unit in range(start // MIB, start // MIB + size)]
        assert len(units) == len(set(units))
        statistics = table.statistics()
        assert statistics.held_bytes == len(units) * MIB
        assert statistics.held_bytes + statistics.released_bytes + statistics.untouched_bytes == 20 * MIB
