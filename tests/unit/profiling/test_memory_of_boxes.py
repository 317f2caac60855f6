"""What the objects of an image take of a training step, predicted and counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.memory import TINY, predicted_and_counted

from nas.config.sections import DetectorSpec
from nas.models.detectors import DETECTORS
from nas.profiling.memory import Training, predict_memory
from search_spaces.layout import Layout


def crowded() -> Iterator[Any]:
    """Every detector with few and many boxes; in the long tests all but the many in the smaller
    images, without checkpointing.
    """
    shapes = (("C1-C1-T2-T1@16", (2, 3, 160, 224)), ("C1-C1-C1-C1@16", (1, 3, 320, 512)))
    counts, kept = (1000, 300, 20), ("none", "full")
    for name, (text, shape), boxes, how in itertools.product(DETECTORS, shapes, counts, kept):
        first = (shape, boxes, how) == (shapes[0][1], counts[0], kept[0])
        yield pytest.param(
            name,
            text,
            Training(shape, boxes, checkpointing=how, cuda=False),
            id=f"{name}-{shape[2]}-{boxes}-{how}",
            marks=[] if first else [pytest.mark.long],
        )


@pytest.mark.parametrize(("name", "text", "training"), list(crowded()))
def test_many_boxes_an_image(name: Any, text: str, training: Training):
    """What targets take grows with boxes times locations, but where parts of these are matched."""
    spec = DetectorSpec(name=name, masks=False, **TINY)
    predicted, counted = predicted_and_counted(text, spec, training)
    assert predicted == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_mask_rcnn"])
def test_matching_by_parts_takes_the_same_for_any_number_of_boxes(name: Any):
    spec, layout = DetectorSpec(name=name, masks=False), Layout.parse("C1-C1-C1-C1@16")
    few, many = (
        predict_memory(layout, spec, 80, Training((1, 3, 800, 1344), boxes)).peak_bytes
        for boxes in (20, 1000)
    )
    assert few <= many <= 1.05 * few
