"""What one candidate takes of a GPU beside its budget, and which budgets a GPU holds."""

from __future__ import annotations

from nas.errors import SpecError
from nas.utils.formatting import GIB, gib

# The allocator reserves more than is allocated. In its replay 1.03 to 1.25 times as much with
# batches of one shape, more for small candidates; with batches of sixty shapes 1.4 to 1.6 times
# where it may, and 1.02 to 1.11 times where a cap makes it give back what is free. cuDNN's
# workspaces, which nobody predicts, come on top.
RESERVED_SHARE, WORKSPACES_BYTES = 1.25, GIB // 2
# CUDA's context and loaded kernels, outside of PyTorch's counters: 0.5 to 0.8 GB by card.
CONTEXT_BYTES = int(0.8 * 10**9)


def cap_bytes(budget_bytes: int) -> int:
    """Bytes that the allocator of one candidate may reserve in a search with this budget."""
    return round(budget_bytes * RESERVED_SHARE) + WORKSPACES_BYTES


def card_share_bytes(budget_bytes: int) -> int:
    """Bytes that one candidate takes of a card at most: its cap, and the CUDA context of its
    process.
    """
    return cap_bytes(budget_bytes) + CONTEXT_BYTES


def card_budget_gib(card_bytes: int) -> float:
    """The largest budget that a candidate can have on a card with room to spare, the inverse of
    `card_share_bytes`: GiB down to a tenth, 0 where the card has no room.
    """
    budget_bytes = (card_bytes - CONTEXT_BYTES - WORKSPACES_BYTES) / RESERVED_SHARE
    return max(0, int(10 * budget_bytes / GIB)) / 10


def check_share(budget_bytes: int, share_bytes: int, what: str) -> str:
    """Hold a budget against what a candidate has of a GPU.

    Args:
        budget_bytes: peak of allocated memory that a candidate may take.
        share_bytes: memory of the part of the GPU that it has.
        what: that part in words, for the texts.

    Returns:
        A warning where the budget only just holds; else empty.

    Raises:
        SpecError: a candidate that uses the budget cannot run there.
    """
    least_bytes = budget_bytes + WORKSPACES_BYTES + CONTEXT_BYTES
    needs = f"the budget of {gib(budget_bytes)} GiB takes {gib(least_bytes)} GiB of a GPU at least"
    room_gib = card_budget_gib(share_bytes)
    lower = f"budget.memory to {room_gib:g}GiB" if room_gib else "budget.memory"
    if least_bytes > share_bytes:
        raise SpecError(
            f"{needs}, with CUDA's context and cuDNN's workspaces; {what} has {gib(share_bytes)} "
            f"GiB: lower {lower}, or raise run.gpus_per_trial where it is below 1"
        )
    if card_share_bytes(budget_bytes) <= share_bytes:
        return ""
    return (
        f"{needs}, and what the allocator reserves up to {gib(card_share_bytes(budget_bytes))}; "
        f"{what} has {gib(share_bytes)} GiB: candidates near the budget may run out of memory and "
        f"end as infeasible; with {lower} there is room"
    )
