"""What counts as growth between two looks at a session's processes."""

import pytest

from shoal.scripts.endurance.passes import growth
from shoal.scripts.endurance.processes import Footprint

MB = 10**6


def session(**changed: int) -> dict[str, Footprint]:
    """A driver and a worker; what is given differs in the worker."""
    fields = {"pss_bytes": 60 * MB, "private_bytes": 40 * MB, "descriptors": 20, "threads": 2, "processes": 1}
    return {"driver": Footprint(**fields), "worker 7": Footprint(**{**fields, **changed})}


def test_the_same_is_no_growth_and_less_is_none():
    assert growth(session(), session()) == []
    assert growth(session(), session(private_bytes=1, pss_bytes=1, descriptors=1, threads=1)) == []


@pytest.mark.parametrize(
    ("changed", "complaints"),
    [
        ({"private_bytes": 42 * MB}, []),
        ({"private_bytes": 43 * MB}, ["private memory of worker 7 grew from 40.0 to 43.0 MB, 7%"]),
        ({"pss_bytes": 66 * MB}, []),
        ({"pss_bytes": 67 * MB}, ["memory of all grew from 120.0 to 127.0 MB, 6%"]),
        ({"descriptors": 21}, ["worker 7 has 21 descriptors, had 20"]),
        ({"threads": 3}, ["worker 7 has 3 threads, had 2"]),
    ],
)
def test_more_than_a_twentieth_is_growth_and_so_is_any_descriptor_or_thread(changed, complaints):
    assert growth(session(), session(**changed)) == complaints


def test_less_than_a_mebibyte_is_noise():
    assert growth({"zygote 3": Footprint(private_bytes=2 * MB)}, {"zygote 3": Footprint(private_bytes=3 * MB)}) == []


def test_a_worker_may_be_replaced_but_there_may_not_be_more():
    replaced = {"driver": session()["driver"], "worker 8": session()["worker 7"]}
    assert growth(session(), replaced) == []
    assert "there are 3 processes, there were 2" in growth(session(), {**session(), **replaced})
