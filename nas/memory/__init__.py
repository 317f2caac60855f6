"""Peak training memory of a candidate, predicted without a GPU."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from functools import lru_cache

import torch

from nas.detectors import build_detector
from nas.memory.live_bytes import LiveBytes, rounded_bytes
from nas.memory.step import CudaKernels, bounded_loss, every_mask_full
from nas.records import MemoryEstimate
from nas.spec import DetectorSpec
from search_spaces.layout import Layout

__all__ = ["LiveBytes", "predict_memory"]

ADAMW_STATES = 2  # moments for each parameter


@lru_cache(maxsize=4096)
def predict_memory(
    layout: Layout,
    detector: DetectorSpec,
    num_classes: int,
    batch_shape: tuple[int, int, int, int],
    *,
    boxes_per_image: int = 100,
    accumulates: bool = False,
    cuda: bool = True,
) -> MemoryEstimate:
    """Trace one fp32 training step with AdamW on meta tensors and take the highest sum of live bytes.

    Args:
        layout: of the backbone.
        detector: which detector.
        num_classes: without the background.
        batch_shape: [B, 3, H, W] of the largest batch, H and W multiples of 32.
        boxes_per_image: targets of one image.
        accumulates: several batches make one step, so that gradients are there during the forward pass.
        cuda: count the attention kernel of CUDA; else the one of the CPU, to compare with a run there.

    Returns:
        Allocated bytes, as `torch.cuda.max_memory_allocated` counts them, blocks rounded as its allocator does. What a GPU adds
        is not in it: workspaces of cuBLAS and cuDNN (tens of MiB), fragmentation, and the context outside PyTorch.
        For bf16 autocast this is an upper bound.
    """
    with torch.device("meta"):
        network = build_detector(layout, detector, num_classes)
        images = torch.empty(batch_shape)
    network.train()
    counter = LiveBytes("activations")
    parameters = list(network.parameters())
    counter.mark([*parameters, *network.buffers()], "parameters")
    counter.mark([images], "inputs")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda p: counter.mark([p.grad], "gradients"))
    with every_mask_full(), counter, CudaKernels() if cuda else nullcontext():
        for _ in range(2 if accumulates else 1):
            counter.category = "activations"
            loss = bounded_loss(network, images, boxes_per_image)
            counter.category = "transients"
            loss.backward()
            del loss
    return _estimate(counter, trained)


def _estimate(counter: LiveBytes, trained: list[torch.nn.Parameter]) -> MemoryEstimate:
    moments = ADAMW_STATES * sum(rounded_bytes(parameter.nbytes) for parameter in trained)
    at_update = counter.parts["parameters"] + counter.parts["gradients"]
    parts, moment = counter.peak_parts, "backward" if counter.peak_category == "transients" else "forward"
    if at_update > counter.peak_bytes:
        parts, moment = Counter(parameters=counter.parts["parameters"], gradients=counter.parts["gradients"]), "update"
    return MemoryEstimate(
        peak_bytes=parts.total() + moments,
        parameters_bytes=parts["parameters"],
        optimizer_bytes=moments,
        inputs_bytes=parts["inputs"],
        gradients_bytes=parts["gradients"],
        activations_bytes=parts["activations"],
        transients_bytes=parts["transients"],
        moment=moment,
    )
