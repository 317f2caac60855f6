"""Out of memory: whose fault it is, on a card that is played by numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nas.errors import CandidateError, OutOfMemory
from nas.training.gpu_memory import limited_memory
from nas.utils.formatting import GIB
from nas.utils.gpu_share import cap_bytes, card_share_bytes

CUDA = torch.device("cuda")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """A card of 80 GiB, of which this process has reserved some and some is free; gives the
    fractions that were set.
    """

    def play(*, reserved_gib: float, free_gib: float, peak_gib: float) -> list[float]:
        fractions: list[float] = []
        properties = type("Properties", (), {"total_memory": 80 * GIB})
        answers = {
            "get_device_properties": properties,
            "get_device_name": "a card",
            "memory_reserved": int(reserved_gib * GIB),
            "max_memory_allocated": int(peak_gib * GIB),
            "mem_get_info": (int(free_gib * GIB), 80 * GIB),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        monkeypatch.setattr(
            torch.cuda,
            "set_per_process_memory_fraction",
            lambda fraction, device: fractions.append(fraction),
        )
        return fractions

    return play


def run_out(cap: int | None) -> None:
    with limited_memory(CUDA, cap):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_allocator_is_limited_to_the_cap(card: Callable[..., list[float]]):
    fractions = card(reserved_gib=0, free_gib=80, peak_gib=0)
    with limited_memory(CUDA, 20 * GIB):
        pass
    with limited_memory(CUDA, 90 * GIB):
        pass
    with limited_memory(CUDA, None), limited_memory(torch.device("cpu"), 20 * GIB):
        pass
    assert fractions == [0.25, 1.0]


def test_a_candidate_at_its_own_cap_is_infeasible(card: Callable[..., list[float]]):
    card(reserved_gib=19.5, free_gib=40, peak_gib=18)
    with pytest.raises(
        OutOfMemory,
        match="out of memory at 18.0 GiB on a card, where a candidate may reserve 20.0 GiB",
    ) as raised:
        run_out(20 * GIB)
    assert raised.value.peak_bytes == 18 * GIB


def test_a_card_that_others_filled_is_not_the_candidates_fault(card: Callable[..., list[float]]):
    card(reserved_gib=10, free_gib=0.5, peak_gib=9)
    with pytest.raises(
        CandidateError, match="a card was full: 10.0 GiB of the 20.0 GiB .* and 0.5 GiB free"
    ) as raised:
        run_out(20 * GIB)
    assert not isinstance(raised.value, OutOfMemory)


def test_without_a_cap_the_card_is_the_limit(card: Callable[..., list[float]]):
    card(reserved_gib=79, free_gib=0.1, peak_gib=78)
    with pytest.raises(OutOfMemory, match="out of memory at 78.0 GiB on a card$"):
        run_out(None)


def test_caps_grow_with_the_budget():
    assert cap_bytes(16 * GIB) == 20.5 * GIB
    assert 21 * GIB < card_share_bytes(16 * GIB) < 21.5 * GIB


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_card_refuses_what_is_over_the_cap():
    try:
        with (
            pytest.raises(OutOfMemory, match="where a candidate may reserve 1.0 GiB"),
            limited_memory(CUDA, GIB),
        ):
            torch.empty(2 * GIB, dtype=torch.uint8, device=CUDA)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
