"""Who holds what of a full object store, in words for the error. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .history import Row

#: Owners that are named.
_OWNERS = 4


def never_fits(needed_bytes: int, store_bytes: int) -> str:
    """The words for what is larger than the whole store."""
    return (
        f"{needed_bytes / 1e6:,.1f} MB in one piece never fit into the object store, which has "
        f"{store_bytes / 1e6:,.0f} MB: give init a larger object_store_memory"
    )


def held_by(owners: Sequence[Row], orphaned_bytes: int = 0) -> str:
    """The largest owners and their largest objects.

    Args:
      owners: rows of "store", as `inspecting.py` tells them.
      orphaned_bytes: regions of dead processes in which somebody still reads, or others' objects live.
    """
    told = []
    for row in sorted(owners, key=lambda row: -row["nbytes"])[:_OWNERS]:
        objects = "1 object" if row["objects"] == 1 else f"{row['objects']} objects"
        object_id, size = row["largest"][0]
        largest = "" if row["objects"] == 1 else f", the largest with {_mb(size)}"
        told.append(
            f"the {row['type']} (pid {row['pid']}) owns {objects} of {_mb(row['nbytes'])}"
            f"{largest}: ObjectRef({object_id.hex()})"
        )
    if len(owners) > _OWNERS:
        told.append(f"{len(owners) - _OWNERS} more processes own objects")
    if orphaned_bytes:
        told.append(f"{_mb(orphaned_bytes)} stay behind dead processes until nobody reads there any more")
    return "; ".join(told) or "no object of a living process is in it"


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
