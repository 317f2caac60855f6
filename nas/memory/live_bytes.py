"""Bytes of live tensors while code runs, counted at dispatch level; on meta tensors nothing is computed and nothing
allocated.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ALLOCATION_BYTES = 512  # the CUDA caching allocator rounds every block up to a multiple of this
_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)


def rounded_bytes(size: int) -> int:
    """What `size` bytes take in the CUDA caching allocator."""
    return -(-size // ALLOCATION_BYTES) * ALLOCATION_BYTES


class LiveBytes(TorchDispatchMode):
    """Counts every storage from its first appearance to its release, by category, and remembers the highest sum.

    `category` names what newly met storages are; `mark` names them after the fact (gradients). `peak_bytes` and
    `peak_parts` describe the highest moment since the start or `reset_peak`.
    """

    def __init__(self, category: str) -> None:
        super().__init__()
        self.category = category
        self.parts: Counter[str] = Counter()
        self.peak_bytes, self.peak_parts, self.peak_category = 0, Counter[str](), category
        self._live: dict[int, tuple[Any, str, int]] = {}

    @property
    def live_bytes(self) -> int:
        """Now."""
        return sum(self.parts.values())

    def mark(self, tensors: Iterable[Tensor], category: str) -> None:
        """Count `tensors` under `category` from now on."""
        for tensor in tensors:
            self._see(tensor, category)

    def reset_peak(self) -> None:
        """Forget earlier moments."""
        self.peak_bytes = 0
        self._keep_peak()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS and args[0].is_meta:
            return 1  # a meta tensor holds no value; counts that code divides by are at least this
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf, None)
        return result

    def _see(self, tensor: Tensor, category: str | None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            reference, known, size = self._live[key]
            if category and category != known:
                self.parts[known] -= size
                self.parts[category] += size
                self._live[key] = (reference, category, size)
            return
        size = rounded_bytes(storage.nbytes())
        reference = weakref.ref(storage, lambda _: self._release(key))
        self._live[key] = (reference, category or self.category, size)
        self.parts[category or self.category] += size
        self._keep_peak()

    def _release(self, key: int) -> None:
        _, category, size = self._live.pop(key)
        self.parts[category] -= size

    def _keep_peak(self) -> None:
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_parts, self.peak_category = self.live_bytes, self.parts.copy(), self.category
