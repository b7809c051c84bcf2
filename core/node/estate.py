"""What dead processes have left in their memory that belongs to the living: the head's view of block headers. Pure.

A worker makes a result in its own region, in the name of its owner, and tells the owner. The death may come at any
point of that:

    dies while WRITING     the block counts as free to whoever looks into the region next (allocator.Slab.open)
    dies before it tells   the block is LIVE and nobody knows of it: named here, freed by its owner (runtime/untold.py)
    dies after it told     LIVE and known: named here, too, and kept; the owner frees it when nobody needs it
    the owner died, too    the inheritance sweeps what it owned (inheritance.py)
    the owner dies later   the same: it had not freed it, or had, and the state says so

    head: worker dies -> ProcessDied -> every process hears it out, buries it, answers -> settled -> BlocksLeft

Invariants:
  * Only what lies in a region whose last holder is settled is named: its owner has buried the holder then, has handled
    what came from it, and drops what may come still. So told and untold do not change any more.
  * A block is named at most once and freed by nobody but its owner; place and serial are checked when it is freed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from ..protocol.specs import BlockLeft
from ..store.allocator import HEADER_BYTES, LIVE, Block, live_blocks, read_block
from ..store.regions import Region


def left_to_the_living(
    settled: Container[bytes], regions: Iterable[Region], memory: memoryview, living: Container[bytes]
) -> Iterator[tuple[bytes, bytes, list[BlockLeft]]]:
    """(dead process, owner, LIVE blocks of this owner), one region at a time.

    Args:
      settled: processes whose death everybody has answered to.
      memory: the arena that the regions divide.
      living: the owners to be told.
    """
    for region in regions:
        if region.holder or region.former not in settled:
            continue
        found: dict[bytes, list[BlockLeft]] = {}
        for block, is_dedicated in blocks_in(memory[region.offset : region.offset + region.size]):
            if block.state == LIVE and block.owner in living:
                payload = region.offset + block.offset + HEADER_BYTES
                found.setdefault(block.owner, []).append((payload, block.serial, is_dedicated))
        for owner, blocks in found.items():
            yield region.former, owner, blocks


def blocks_in(region: memoryview) -> list[tuple[Block, bool]]:
    """The LIVE blocks of a region in which nobody allocates; or the one, in any state, that fills it: a large object
    (True). None where nothing has been written.
    """
    try:
        first = read_block(region, 0)
    except ValueError:
        return []
    if first.size == len(region):
        return [(first, True)]
    return [(block, False) for block in live_blocks(region)]
