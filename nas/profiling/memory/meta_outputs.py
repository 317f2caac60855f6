"""Operations on meta tensors, without working out twice what the same operation gives.

PyTorch derives the shapes of most outputs on meta in Python, in milliseconds. A network repeats
its operations, and so do the traces of its pieces: what an operation gave once for inputs of some
shapes, strides and types is made again from its description.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.profiling.memory.torch_internals import (
    returns_new_tensors,
    storage_address,
    tree_leaves,
)

MAX_DESCRIPTIONS = 50_000
# Whose outputs depend on more than the form of the inputs.
_UNFORESEEABLE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

Form = tuple[torch.Size, tuple[int, ...], torch.dtype]  # of a tensor: shape, strides, type


class Forms(NamedTuple):
    """What an operator returns: one tensor, or a tuple of `several`, in which None stands for
    itself.
    """

    outputs: tuple[Form | None, ...]
    several: bool

    def made(self) -> Any:
        """New tensors of these forms."""
        tensors = tuple(None if form is None else _made(form) for form in self.outputs)
        return tensors if self.several else tensors[0]


_descriptions: dict[Hashable, Forms | None] = {}  # None: outputs that cannot be described


def call_on_meta(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call an operator; with tensors on meta alone its outputs may be made from memory.

    Args:
        func: an `OpOverload`, as `__torch_dispatch__` gets it.
        args: its arguments; tensors, numbers and sequences of them.
        kwargs: the same by name.

    Returns:
        What `func` returns: new tensors of the same shapes, strides and types.
    """
    key = _key(func, args, kwargs)
    if key is None:
        return func(*args, **kwargs)
    if key in _descriptions:
        forms = _descriptions[key]
        return func(*args, **kwargs) if forms is None else forms.made()
    result = func(*args, **kwargs)
    if len(_descriptions) >= MAX_DESCRIPTIONS:
        _descriptions.clear()
    _descriptions[key] = _described(result, tree_leaves((args, kwargs)))
    return result


@cache
def _is_decided_by_forms(func: Any) -> bool:
    """Whether an operator makes new tensors whose shapes follow from those of its inputs."""
    return returns_new_tensors(func) and not _UNFORESEEABLE & set(func.tags)


def _key(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Hashable:
    """All that decides about the outputs; None where that is more than forms of meta tensors."""
    if not _is_decided_by_forms(func):
        return None
    seen: list[bool] = []  # for each tensor, whether it is on meta
    key = (func, _frozen(args, seen), *((name, _frozen(x, seen)) for name, x in kwargs.items()))
    return key if seen and all(seen) else None


def _frozen(value: Any, seen: list[bool]) -> Hashable:
    if isinstance(value, Tensor):
        seen.append(value.is_meta)
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple([_frozen(item, seen) for item in value])
    return type(value), value  # 1, 1.0 and True are equal


def _described(result: Any, inputs: Sequence[Any]) -> Forms | None:
    """Forms of an operator's outputs; None where they share memory or are no plain tensors."""
    outputs = result if isinstance(result, tuple) else (result,)
    if not all(output is None or isinstance(output, Tensor) for output in outputs):
        return None
    forms = tuple(None if x is None else (x.shape, x.stride(), x.dtype) for x in outputs)
    tensors = [x for x in outputs if x is not None]
    outside = {_address(x) for x in inputs if isinstance(x, Tensor)}
    if len({*map(_address, tensors)} - outside) < len(tensors):
        return None
    dense = all(
        _made(form).untyped_storage().nbytes() == x.untyped_storage().nbytes()
        for x, form in zip(outputs, forms, strict=True)
        if form is not None
    )
    return Forms(forms, several=isinstance(result, tuple)) if dense else None


def _address(tensor: Tensor) -> int:
    return storage_address(tensor.untyped_storage())


def _made(form: Form) -> Tensor:
    shape, stride, dtype = form
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
