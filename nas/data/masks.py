"""Instance masks: COCO's polygons and run-length codes to pixels, and pixels to codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms.v2 import functional as F

from nas.data.segmentation import Segmentation

THRESHOLD = 0.5  # probability from which a pixel belongs to an object (He et al. 2017, section 3.1)


def rasterize(
    segmentations: Sequence[Segmentation | None], original: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Draw the masks of one image's objects in the pixels of the image after its resize.

    Polygons are resized, then drawn, so that no mask is larger than it will be used; run-length
    codes are decoded and resized as pixels are.

    Args:
        segmentations: COCO's form of each mask; None for an object without one, whose mask is 0.
        original: height and width in pixels of the image that the segmentations are of.
        size: height and width in pixels after the resize.

    Returns:
        [N, *size] of 0 and 1, uint8.
    """
    masks = torch.zeros(len(segmentations), *size, dtype=torch.uint8)
    scale = np.array([size[1] / original[1], size[0] / original[0]])
    for mask, segmentation in zip(masks, segmentations, strict=True):
        if isinstance(segmentation, list):
            resized: Segmentation = [
                (np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in segmentation
            ]
            mask.copy_(_decode(resized, size))
        elif segmentation is not None:
            pixels = 255 * _decode(segmentation, original)
            mask.copy_(
                F.resize_image(pixels[None], list(size), antialias=True)[0] >= 255 * THRESHOLD
            )
    return masks


def _decode(segmentation: Segmentation, size: tuple[int, int]) -> Tensor:
    code: Any = segmentation
    if isinstance(segmentation, list):
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        code = coco_mask.frPyObjects(segmentation, *size)
    return torch.from_numpy(coco_mask.decode(code))


def encode_masks(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Encode the masks of detections as COCO results have them.

    One is drawn after the other, because all at full size would need gigabytes.

    Args:
        probabilities: [N, M, M] in 0 to 1, over a grid of cells in each box.
        boxes: [N, 4] as x1, y1, x2, y2, in pixels of an image of `size`.
        size: height and width of the image in pixels.

    Returns:
        N run-length codes, each with `size` and `counts` (a text), plain JSON.
    """
    codes = []
    turned = (
        probabilities.transpose(1, 2)[:, None, None],
        boxes[:, [1, 0, 3, 2]][:, None],
    )  # codes go column by column
    for grid, box in zip(*turned, strict=True):
        pasted = paste_masks_in_image(grid, box, size[::-1])[0, 0] >= THRESHOLD
        code = coco_mask.encode(pasted.numpy().view(np.uint8).T)
        codes.append({"size": list(size), "counts": code["counts"].decode()})
    return codes
