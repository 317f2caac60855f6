"""Outputs of operators on meta that are made from memory: the same as the operators' own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.config.spec import DetectorSpec
from nas.models.detectors import build_detector
from nas.profiling.memory.head import bounded_loss
from nas.profiling.memory.kernels import CudaKernels
from nas.profiling.memory.meta_outputs import call_on_meta
from nas.profiling.memory.recorder import Event, Recorder
from nas.profiling.memory.torch_internals import every_mask_full
from search_spaces.layout import Layout

ATEN = torch.ops.aten


def form(x: Tensor) -> tuple:
    storage = x.untyped_storage().nbytes()
    return x.shape, x.stride(), x.dtype, x.device.type, x.storage_offset(), storage


def twice(func, *args, **kwargs) -> list[Tensor]:
    """The outputs of the second of two calls, after a comparison of both with the operator's."""
    plain, first, second = (
        [result] if isinstance(result, Tensor) else list(result)
        for result in (
            func(*args, **kwargs),
            call_on_meta(func, args, kwargs),
            call_on_meta(func, args, kwargs),
        )
    )
    for theirs, one, two in zip(plain, first, second, strict=True):
        assert (theirs is None) == (one is None) == (two is None)
        if theirs is not None:
            assert form(theirs) == form(one) == form(two)
    return second


def test_forms_are_those_of_the_operator():
    x, y = torch.empty(4, 6, device="meta"), torch.empty(6, device="meta")
    image = torch.empty(2, 3, 8, 8, device="meta").to(memory_format=torch.channels_last)
    weight = torch.empty(5, 3, 3, 3, device="meta")
    twice(ATEN.add.Tensor, x, y)
    twice(ATEN.add.Tensor, x.t(), x.t())
    twice(ATEN.mm.default, x, x.t())
    twice(ATEN.sum.dim_IntList, x, [1], True)
    twice(ATEN.convolution.default, image, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    twice(ATEN.native_layer_norm.default, x, [6], y, y, 1e-5)
    twice(ATEN.max.dim, x, 1)
    arguments = (image, torch.empty(2, 3, 8, 8, device="meta"), weight, None, [1, 1], [1, 1])
    mask = [True, False, False]
    twice(
        ATEN.convolution_backward.default,
        *(torch.empty(2, 5, 8, 8, device="meta"), arguments[1], weight, [5], [1, 1], [1, 1]),
        *([1, 1], False, [0, 0], 1, mask),
    )


def test_numbers_of_another_type_are_other_arguments():
    x = torch.empty(3, dtype=torch.int64, device="meta")
    assert [twice(ATEN.mul.Tensor, x, factor)[0].dtype for factor in (2, 2.0)] == [
        torch.int64,
        torch.float32,
    ]


@pytest.mark.parametrize(
    ("func", "arguments"),
    [
        (ATEN.view.default, ([6, 4],)),
        (ATEN._unsafe_view.default, ([24],)),
        (ATEN.transpose.int, (0, 1)),
        (ATEN.detach.default, ()),
        (ATEN.relu_.default, ()),
        (ATEN.add_.Tensor, (1.0,)),
    ],
    ids=str,
)
def test_what_shares_memory_with_its_input_still_does(func, arguments: tuple):
    x = torch.empty(4, 6, device="meta")
    assert all(
        y.untyped_storage()._cdata == x.untyped_storage()._cdata
        for y in (call_on_meta(func, (x, *arguments), {}) for _ in range(2))
    )


def test_outputs_are_new_every_time():
    x = torch.empty(4, 6, device="meta")
    a, b, c = (call_on_meta(ATEN.relu.default, (x,), {}) for _ in range(3))
    assert len({tensor.untyped_storage()._cdata for tensor in (a, b, c, x)}) == 4


def test_tensors_with_content_are_computed():
    x = torch.tensor([1.0, -2.0])
    for value in (x, x + 1):
        assert torch.equal(call_on_meta(ATEN.relu.default, (value,), {}), value.relu())
    mixed = ATEN.mul.Tensor, (torch.empty(2, device="meta"), torch.tensor(2.0)), {}
    assert all(call_on_meta(*mixed).is_meta for _ in range(2))


def events(layout: str, detector: str, *, autocast: bool) -> list[Event]:
    """Of a training step."""
    spec = DetectorSpec(name=detector, channels=32, hidden=64, proposals=20, regions=64)
    with torch.device("meta"):
        network = build_detector(Layout.parse(layout), spec, 3).train()
        images = torch.empty(2, 3, 64, 96)
    recorder = Recorder()
    for state in (*network.parameters(), *network.buffers(), images):
        recorder.register(state)
    with every_mask_full(), recorder:
        with CudaKernels(autocast=autocast):
            loss = bounded_loss(network, list(network.backbone(images).values()), images, 10)
        loss.backward()
        del loss
    return recorder.events


@pytest.mark.parametrize(
    ("layout", "detector", "autocast"),
    [
        ("C1-C1-T2-T1@16", "fcos", True),
        ("T2-C1-T1-C1@16+norm=gn", "atss", False),
        ("C1-T1-C1-C1@16+dense=true", "faster_rcnn", True),
        ("C1-C1-T1-C1@16", "cascade_mask_rcnn", False),
        ("C1-C1-C1-C1@16", "reppoints_v2", True),
        ("T1-T1-T1-T1@16", "sparse_rcnn", False),
    ],
)
def test_a_step_has_the_same_events_with_and_without(
    monkeypatch: pytest.MonkeyPatch, layout: str, detector: str, autocast: bool
):
    first, again = (events(layout, detector, autocast=autocast) for _ in range(2))
    monkeypatch.setattr(
        "nas.profiling.memory.recorder.call_on_meta",
        lambda func, args, kwargs: func(*args, **kwargs),
    )
    plain = events(layout, detector, autocast=autocast)
    assert first == again == plain
    assert len(plain) > 1000
