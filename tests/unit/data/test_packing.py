"""Batches cross from a loader's process in one piece."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import torch

from nas.data.dataset import Batch
from nas.data.packing import pack, unpack
from nas.data.transforms import SampledTransform

TENSORS = [
    torch.arange(3 * 5 * 7, dtype=torch.uint8).view(3, 5, 7),
    torch.rand(2, 4),
    torch.tensor([3, 1], dtype=torch.int64),
    torch.tensor(2**40),
    torch.empty(0, 4),
    torch.rand(3, 8).t(),
]


def test_what_was_packed_comes_out():
    packed, forms = pack(TENSORS)
    assert packed.is_shared()
    for tensor, again in zip(TENSORS, unpack(packed, forms), strict=True):
        assert again.dtype == tensor.dtype
        assert torch.equal(again, tensor)
        assert again.untyped_storage().data_ptr() == packed.untyped_storage().data_ptr()


def test_a_batch_takes_one_tensor_with_it():
    images, targets = (
        [TENSORS[0], TENSORS[0][:, :2]],
        [{"boxes": TENSORS[1], "labels": TENSORS[2]}, {"boxes": TENSORS[4]}],
    )
    batch = Batch(
        images, targets, (SampledTransform((5, 7), True), SampledTransform((2, 7), False))
    )
    content = bytes(ForkingPickler.dumps(batch))
    assert content.count(b"rebuild_tensor") == 1
    again = pickle.loads(content)
    assert again.draws == batch.draws
    for tensor, expected in zip(again.images, images, strict=True):
        assert torch.equal(tensor, expected)
    for target, expected in zip(again.targets, targets, strict=True):
        assert target.keys() == expected.keys()
        assert all(torch.equal(target[key], expected[key]) for key in target)
