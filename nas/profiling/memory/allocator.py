"""PyTorch's CUDA caching allocator (c10/cuda/CUDACachingAllocator.cpp), replayed: what it reserves
for a sequence of events.

Blocks are rounded up to 512 bytes. Those of at most 1 MiB come from segments of 2 MiB; larger ones,
below 10 MiB, from segments of 20 MiB; the rest from segments of their own, rounded up to 2 MiB. The
smallest free block that is large enough is taken and split; free neighbours are joined. Segments go
back to the card only when it is full, which is not replayed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 2**20
BLOCK_BYTES = 512
SMALL_BYTES, SMALL_SEGMENT_BYTES = MIB, 2 * MIB
LARGE_BYTES, LARGE_SEGMENT_BYTES = 10 * MIB, 20 * MIB
SEGMENT_STEP_BYTES = 2 * MIB
_SEGMENT_SPACING = 2**48  # segments never touch


def rounded_bytes(size: int) -> int:
    """Bytes that `size` bytes take in the allocator."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


@dataclass
class _Block:
    address: int
    size: int
    small: bool
    before: _Block | None = None
    behind: _Block | None = None
    free: bool = False


class CachingAllocator:
    """Replays PyTorch's allocator: call `allocate` and `release` in the order of the program.

    Attributes:
        reserved_bytes: what it has taken from the card so far.
    """

    def __init__(self) -> None:
        self.reserved_bytes = 0
        self._segments = 0
        self._free: dict[bool, list[tuple[int, int]]] = {
            True: [],
            False: [],
        }  # small or not: (size, address), ascending
        self._at: dict[int, _Block] = {}
        self._used: dict[int, _Block] = {}

    def allocate(self, storage: int, size: int) -> None:
        """Take `size` bytes for `storage`, a number of the caller's."""
        if not size:
            return
        size = rounded_bytes(size)
        small = size <= SMALL_BYTES
        free = self._free[small]
        place = bisect_left(free, (size, 0))
        block = self._at[free.pop(place)[1]] if place < len(free) else self._segment(size, small)
        rest = block.size - size
        if rest >= BLOCK_BYTES if small else rest > SMALL_BYTES:
            other = _Block(block.address + size, rest, small, block, block.behind, free=True)
            if block.behind:
                block.behind.before = other
            block.behind, block.size = other, size
            self._at[other.address] = other
            insort(free, (other.size, other.address))
        block.free = False
        self._used[storage] = block

    def release(self, storage: int) -> None:
        """Give back the bytes of a storage; unknown ones never had any."""
        block = self._used.pop(storage, None)
        if block is None:
            return
        if block.before and block.before.free:
            block = self._join(block.before, block)
        if block.behind and block.behind.free:
            block = self._join(block, block.behind, second_listed=True)
        block.free = True
        insort(self._free[block.small], (block.size, block.address))

    def _join(self, first: _Block, second: _Block, *, second_listed: bool = False) -> _Block:
        listed = second if second_listed else first
        free = self._free[first.small]
        del free[bisect_left(free, (listed.size, listed.address))]
        first.size += second.size
        first.behind = second.behind
        if second.behind:
            second.behind.before = first
        del self._at[second.address]
        return first

    def _segment(self, size: int, small: bool) -> _Block:
        if small:
            taken = SMALL_SEGMENT_BYTES
        elif size < LARGE_BYTES:
            taken = LARGE_SEGMENT_BYTES
        else:
            taken = -(-size // SEGMENT_STEP_BYTES) * SEGMENT_STEP_BYTES
        self._segments += 1
        block = _Block(self._segments * _SEGMENT_SPACING, taken, small)
        self._at[block.address] = block
        self.reserved_bytes += taken
        return block
