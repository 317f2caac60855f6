"""The only module of this package that names what PyTorch keeps private.

Checked with PyTorch 2.14. Modes, trees and the switch for meta masks have no public names; a newer
PyTorch that moves them breaks the import here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.fx.experimental._config as fx_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "TorchDispatchMode",
    "every_mask_full",
    "returns_new_tensors",
    "storage_address",
    "tree_leaves",
    "tree_map",
]


def storage_address(storage: torch.UntypedStorage) -> int:
    """Where the C++ object of a storage is, the same for all tensors that share it: Python objects
    of one storage differ, and `data_ptr` is 0 for every storage on meta.
    """
    return int(storage._cdata)


def returns_new_tensors(operator: torch._ops.OpOverload) -> bool:
    """Tell by an operator's schema whether it neither changes its arguments nor returns views of
    them. The schema of `aten._unsafe_view` and its like does not admit that they do.
    """
    schema = operator._schema
    return not schema.is_mutable and all(output.alias_info is None for output in schema.returns)


@contextmanager
def every_mask_full() -> Iterator[None]:
    """Have `nonzero` of a meta mask, which has no values, give every element."""
    before = fx_config.meta_nonzero_assume_all_nonzero
    fx_config.meta_nonzero_assume_all_nonzero = True
    try:
        yield
    finally:
        fx_config.meta_nonzero_assume_all_nonzero = before
