"""Who holds a full store, in words."""

from __future__ import annotations

from shoal.core.runtime.fullness import held_by


def row(pid, *sizes):
    largest = [[bytes([pid]) * 28, size] for size in sorted(sizes, reverse=True)]
    return {"type": "worker", "pid": pid, "nbytes": sum(sizes), "objects": len(sizes), "largest": largest}


def test_the_largest_owner_comes_first_with_its_largest_object():
    words = held_by([row(1, 5_000_000), row(2, 1_000_000, 7_000_000)])
    assert words == (
        f"the worker (pid 2) owns 2 objects of 8.0 MB, the largest with 7.0 MB: ObjectRef({'02' * 28}); "
        f"the worker (pid 1) owns 1 object of 5.0 MB: ObjectRef({'01' * 28})"
    )


def test_only_some_owners_are_named():
    words = held_by([row(pid, 1_000_000) for pid in range(1, 8)])
    assert words.count("owns 1 object") == 4
    assert words.endswith("3 more processes own objects")


def test_what_the_dead_have_left_is_told():
    assert held_by([], 32_000_000) == "32.0 MB stay behind dead processes until nobody reads there any more"
    assert held_by([]) == "no object of a living process is in it"
