"""What one candidate books of a GPU."""

from __future__ import annotations

from nas.profiling.memory import CONTEXT_BYTES
from nas.utils.formatting import GIB

# The allocator reserves more than is allocated: 1.03 to 1.25 times as much in its replay, more for
# small candidates. cuDNN's workspaces, which nobody predicts, come on top.
RESERVED_SHARE, WORKSPACES_BYTES = 1.25, GIB // 2


def cap_bytes(budget_bytes: int) -> int:
    """Bytes that the allocator of one candidate may reserve in a search with this budget."""
    return round(budget_bytes * RESERVED_SHARE) + WORKSPACES_BYTES


def card_share_bytes(budget_bytes: int) -> int:
    """Bytes that one candidate takes of a card at most: its cap, and the CUDA context of its
    process.
    """
    return cap_bytes(budget_bytes) + CONTEXT_BYTES
