"""The replayed caching allocator: the rules that PyTorch documents, and a slow allocator on random
programs.
"""

from __future__ import annotations

import random

import pytest

from nas.config.sections import DetectorSpec
from nas.profiling.memory import Training, predict_memory, predict_reserved_bytes
from nas.profiling.memory.allocator import MIB, CachingAllocator
from search_spaces.layout import Layout


def reserved(*sizes: int) -> int:
    allocator = CachingAllocator()
    for storage, size in enumerate(sizes):
        allocator.allocate(storage, size)
    return allocator.reserved_bytes


@pytest.mark.parametrize(
    ("sizes", "expected_mib"),
    [
        ((0,), 0),
        ((1,), 2),  # small blocks share segments of 2 MiB
        ((MIB, MIB), 2),
        ((MIB, MIB, 1), 4),
        ((MIB + 1,), 20),  # larger ones segments of 20 MiB
        ((9 * MIB, 9 * MIB), 20),
        ((9 * MIB, 9 * MIB, 9 * MIB), 40),
        ((10 * MIB,), 10),  # the largest have their own, in steps of 2 MiB
        ((10 * MIB + 1,), 12),
        ((MIB, 5 * MIB, 33 * MIB), 2 + 20 + 34),
    ],
)
def test_segments(sizes: tuple[int, ...], expected_mib: int):
    assert reserved(*sizes) == expected_mib * MIB


def test_free_blocks_are_used_again_split_and_joined():
    allocator = CachingAllocator()
    for storage in range(4):
        allocator.allocate(storage, 5 * MIB)
    assert allocator.reserved_bytes == 20 * MIB
    allocator.release(1)
    allocator.release(2)  # joined to 10 MiB
    allocator.allocate(4, 8 * MIB)  # taken from it
    assert allocator.reserved_bytes == 20 * MIB
    allocator.allocate(5, 3 * MIB)  # 2 MiB are left of it
    assert allocator.reserved_bytes == 40 * MIB


def test_the_smallest_sufficient_block_is_taken():
    allocator = CachingAllocator()
    allocator.allocate(0, 40 * MIB)
    allocator.allocate(1, 30 * MIB)
    allocator.release(0)
    allocator.release(1)
    allocator.allocate(2, 29 * MIB)  # of the 30; the 40 stay whole
    allocator.allocate(3, 40 * MIB)
    assert allocator.reserved_bytes == 70 * MIB


class SlowAllocator:
    """The same rules on lists of (start, end, used) for each segment, searched from end to end."""

    def __init__(self) -> None:
        self.segments: list[tuple[bool, list[list]]] = []
        self.reserved_bytes = 0

    def allocate(self, storage: int, size: int) -> None:
        size = -(-size // 512) * 512
        small = size <= MIB
        fits = [
            (end - start, number, index)
            for number, (kind, blocks) in enumerate(self.segments)
            for index, (start, end, used) in enumerate(blocks)
            if kind == small and used is None and end - start >= size
        ]
        if not fits:
            taken = (
                2 * MIB
                if small
                else 20 * MIB
                if size < 10 * MIB
                else -(-size // (2 * MIB)) * 2 * MIB
            )
            self.reserved_bytes += taken
            self.segments.append((small, [[0, taken, None]]))
            fits = [(taken, len(self.segments) - 1, 0)]
        _, number, index = min(fits)
        blocks = self.segments[number][1]
        start, end, _ = blocks[index]
        rest = end - start - size
        split = rest >= 512 if small else rest > MIB
        blocks[index : index + 1] = (
            [[start, start + size, storage], [start + size, end, None]]
            if split
            else [[start, end, storage]]
        )

    def release(self, storage: int) -> None:
        for _, blocks in self.segments:
            for block in blocks:
                if block[2] == storage:
                    block[2] = None
            joined: list[list] = []
            for block in blocks:
                if joined and joined[-1][2] is None and block[2] is None:
                    joined[-1][1] = block[1]
                else:
                    joined.append(block)
            blocks[:] = joined


@pytest.mark.parametrize("seed", range(5))
def test_random_programs_against_a_slow_allocator(seed: int):
    draw = random.Random(seed)
    fast, slow = CachingAllocator(), SlowAllocator()
    alive: list[int] = []
    for storage in range(600):
        if alive and draw.random() < 0.45:
            gone = alive.pop(draw.randrange(len(alive)))
            fast.release(gone)
            slow.release(gone)
        else:
            size = int(10 ** draw.uniform(2, 8))
            fast.allocate(storage, size)
            slow.allocate(storage, size)
            alive.append(storage)
        assert fast.reserved_bytes == slow.reserved_bytes


@pytest.mark.parametrize("text", ["C1-C1-T2-T1@16", "C1-C1-C1-C1@32", "T1-T1-T1-T1@16"])
def test_what_a_step_reserves_holds_its_peak(text: str):
    asked = Layout.parse(text), DetectorSpec(channels=64), 3, Training((2, 3, 160, 224))
    peak_bytes, reserved_bytes = predict_memory(*asked).peak_bytes, predict_reserved_bytes(*asked)
    assert peak_bytes <= reserved_bytes <= 1.5 * peak_bytes + 22 * MIB  # a segment of each kind
