"""What detectors share that predict at every location of their pyramid: anchors, towers, and losses
that mask instead of indexing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import sigmoid_focal_loss

from nas.config.recipe import LARGEST_STRIDE
from nas.models.backbones.stems import GroupNorm

STRIDES = (8, 16, 32, 64, 128)  # of the pyramid, pixels
BACKGROUND = -1  # among indices of boxes and labels from 0
PRIOR = 0.01  # probability of every class at the start (focal loss, Lin et al. 2017, section 4.1)
TOWER_DEPTH = 4


class Tower(nn.Sequential):
    """`depth` times 3x3 convolution, group norm and ReLU: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int, depth: int = TOWER_DEPTH) -> None:
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                GroupNorm(32, channels),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class PyramidAnchors(AnchorGenerator):
    """Boxes of `side` x `side` strides at each location, one for each ratio of height to width: [N,
    4] of all levels, the same for every image of a batch.

    Centres are multiples of the stride, as torchvision's and mmdetection's. torchvision guesses the
    strides from the sizes of the maps, which goes wrong where these were rounded up (any side but
    multiples of 128), and takes the maps' precision, in which under autocast 1332 and 1328 are the
    same.
    """

    def __init__(
        self, side: float, strides: Sequence[int] = STRIDES, ratios: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__(
            tuple((side * stride,) for stride in strides), (tuple(ratios),) * len(strides)
        )
        self.strides = strides

    def forward(self, image_list: ImageList, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        sizes = [level.shape[-2:] for level in feature_maps]
        return [self._grids(sizes, feature_maps[0].device)] * len(image_list.image_sizes)

    def of_level(self, index: int) -> PyramidAnchors:
        """The anchors of one level alone."""
        one = PyramidAnchors(1, self.strides[index : index + 1], self.aspect_ratios[index])
        one.cell_anchors = self.cell_anchors[index : index + 1]
        return one

    def of_image(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Anchors [N, 4] of an image of a height and width in pixels."""
        return self._grids(self.shapes(size), device)

    def counts(self, size: tuple[int, int]) -> list[int]:
        """Number of anchors of each level for an image of a height and width in pixels."""
        ratios = self.num_anchors_per_location()
        return [h * w * n for (h, w), n in zip(self.shapes(size), ratios, strict=True)]

    def shapes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each level for an image of a height and width in pixels, which is
        padded as in training.
        """
        height, width = (-(-side // LARGEST_STRIDE) * LARGEST_STRIDE for side in size)
        return [(-(-height // stride), -(-width // stride)) for stride in self.strides]

    def _grids(self, sizes: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        self.set_cell_anchors(torch.float32, device)
        strides = [(stride, stride) for stride in self.strides]
        return torch.cat(self.grid_anchors(sizes, strides))


def centers_of(boxes: Tensor) -> Tensor:
    """Centres [..., 2], x and y, of boxes [..., 4]."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def assigned(
    targets: Sequence[dict[str, Tensor]], matched: Sequence[Tensor], stand_in: Tensor
) -> tuple[Tensor, Tensor]:
    """What each location is to predict: labels [B, N] from 0, or `BACKGROUND`, and boxes [B, N, 4].

    Args:
        targets: of each image, `boxes` [M, 4] and `labels` [M] from 1.
        matched: of each image, the index of a location's box [N], -1 for none.
        stand_in: [N, 4], where there is no box.
    """
    labels = [
        picked(t["labels"] - 1, found, BACKGROUND)
        for t, found in zip(targets, matched, strict=True)
    ]
    boxes = [
        torch.where((found >= 0)[:, None], picked(t["boxes"], found, 0), stand_in)
        for t, found in zip(targets, matched, strict=True)
    ]
    return torch.stack(labels), torch.stack(boxes)


def picked(values: Tensor, index: Tensor, fill: int) -> Tensor:
    """Rows of `values` by index.

    Args:
        values: [M, ...].
        index: [N], -1 for none.
        fill: what a row is where there is none.

    Returns:
        [N, ...].
    """
    if not len(values):
        return values.new_full((len(index), *values.shape[1:]), fill)
    chosen = values[index.clamp(min=0)]
    return torch.where((index >= 0).view(-1, *[1] * (values.dim() - 1)), chosen, fill)


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss (alpha 0.25, gamma 2), summed, of logits [B, N, K] for labels [B, N] from 0 or
    `BACKGROUND`. It is computed in fp32 at least: in bf16 the gradient of a background that is
    nearly certain is wrong by a tenth or vanishes.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    positive = (labels != BACKGROUND)[..., None].to(logits.dtype)
    wanted = torch.zeros_like(logits).scatter_(2, labels.clamp(min=0)[..., None], positive)
    loss: Tensor = sigmoid_focal_loss(logits, wanted, reduction="sum")
    return loss


def giou_loss(boxes: Tensor, others: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - GIoU (Rezatofighi et al., CVPR 2019) of pairs of boxes [..., 4]: [...], 0 to 2.

    torchvision's `generalized_box_iou_loss` indexes by a mask, which waits for the GPU.
    """

    def extent(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(dim=-1)

    low, high = (boxes[..., :2], others[..., :2]), (boxes[..., 2:], others[..., 2:])
    shared = extent(torch.maximum(*low), torch.minimum(*high))
    union = extent(low[0], high[0]) + extent(low[1], high[1]) - shared
    hull = extent(torch.minimum(*low), torch.maximum(*high))
    return 1 - shared / (union + eps) + (hull - union) / (hull + eps)


def centerness_of(points: Tensor, boxes: Tensor) -> Tensor:
    """Centerness of points within boxes (FCOS, Tian et al., ICCV 2019, equation 3).

    Args:
        points: [N, 2], x and y.
        boxes: [B, N, 4], each around its point.

    Returns:
        [B, N], 0 at a side to 1 in the middle.
    """
    before, behind = points - boxes[..., :2], boxes[..., 2:] - points
    return (
        (torch.minimum(before, behind) / torch.maximum(before, behind))
        .prod(dim=2)
        .clamp(min=0)
        .sqrt()
    )
