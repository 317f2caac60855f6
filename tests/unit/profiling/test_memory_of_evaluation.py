"""Scoring a candidate takes no more memory than training it, so that the budget holds for both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.memory import TINY

from nas.config.sections import DetectorSpec
from nas.models.detectors import DETECTORS, Detector, build_detector
from nas.profiling.memory import Training, predict_memory
from nas.profiling.memory.allocator import rounded_bytes
from nas.profiling.memory.measurement import highest_bytes
from nas.profiling.memory.recorder import Recorder
from search_spaces.layout import Layout

LAYOUT = Layout.parse("C1-C1-T2-T1@16")


def counted(network: Detector, images: list[torch.Tensor], states: int) -> int:
    """Bytes at the peak of detection in a training, beside which the optimizer keeps its states."""
    recorder = Recorder()
    there = [*network.parameters(), *network.buffers(), *images]
    for tensor in there:
        recorder.register(tensor)
    with torch.inference_mode(), recorder:
        network(images)
    weights = sum(rounded_bytes(weight.nbytes) for weight in network.parameters())
    kept = sum(rounded_bytes(tensor.nbytes) for tensor in there)
    return highest_bytes(recorder, kept + states * weights)


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_thousand_detections_of_an_image_take_less_than_a_training_step(
    name: Any, checkpointing: Any
):
    """With nothing kept back but what Faster R-CNN's threshold of 0.05 does: of all regions with
    all classes it makes boxes of their own. Fifteen classes of each region pass it here.
    """
    overlap = {} if name == "sparse_rcnn" else {"nms_iou": 0.99}
    least = {} if name == "faster_rcnn" else {"score_threshold": 0.0}
    limits = {"detections_per_image": 1000, **least, **overlap}
    spec = DetectorSpec(name=name, **TINY, **limits)
    torch.manual_seed(0)
    network = build_detector(LAYOUT, spec, 80).eval()
    if name == "faster_rcnn":
        with torch.no_grad():
            network.roi_heads.box_predictor.cls_score.bias[1:16] = 20.0
    images, shape = [torch.rand(3, 160, 224) for _ in range(2)], (2, 3, 160, 224)
    training = Training(shape, 20, checkpointing=checkpointing, cuda=False)
    predicted = predict_memory(LAYOUT, spec, 80, training)
    assert counted(network, images, states=2) <= predicted.peak_bytes
