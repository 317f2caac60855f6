"""Many tensors packed into one, to send them to another process.

Each tensor that is sent alone takes a file descriptor and two system calls with it, which for a
batch of boxes and labels is more work than the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Form = tuple[tuple[int, ...], torch.dtype]
_ALIGNED_BYTES = 64


def pack(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Form]]:
    """Copy CPU tensors into one.

    Returns:
        A uint8 tensor [bytes] in shared memory, and shape and dtype of each tensor.
    """
    forms = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
    packed = torch.empty(sum(map(_taken_bytes, forms)), dtype=torch.uint8).share_memory_()
    for view, tensor in zip(unpack(packed, forms), tensors, strict=True):
        view.copy_(tensor)
    return packed, forms


def unpack(packed: Tensor, forms: Sequence[Form]) -> list[Tensor]:
    """Give back the tensors that `pack` was given, as views into `packed`."""
    tensors, start = [], 0
    for shape, dtype in forms:
        size = math.prod(shape) * dtype.itemsize
        tensors.append(packed[start : start + size].view(dtype).view(shape))
        start += _taken_bytes((shape, dtype))
    return tensors


def _taken_bytes(form: Form) -> int:
    shape, dtype = form
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNED_BYTES) * _ALIGNED_BYTES
