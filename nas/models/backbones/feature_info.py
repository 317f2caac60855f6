"""The backbone in the interfaces that other libraries have for one: timm's `features_only`, and
named maps, as torchvision's detectors take them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nas.models.backbones.hybrid import HybridBackbone


class FeatureInfo:
    """Describes chosen feature maps, with the methods of timm's class of this name.

    Args:
        widths: channels of all maps.
        out_indices: which of them are chosen, from 0.
    """

    def __init__(self, widths: Sequence[int], out_indices: Sequence[int]) -> None:
        self.out_indices = tuple(out_indices)
        self.info = [
            {
                "num_chs": width,
                "reduction": 4 * 2**index,
                "module": f"stages.{index}",
                "index": index,
            }
            for index, width in enumerate(widths)
        ]

    def channels(self) -> list[int]:
        """Channels of each chosen map."""
        return self._of("num_chs")

    def reduction(self) -> list[int]:
        """Stride of each chosen map, in pixels."""
        return self._of("reduction")

    def module_name(self) -> list[str]:
        """Name of the stage that makes each chosen map."""
        return self._of("module")

    def get_dicts(self) -> list[dict[str, Any]]:
        """Channels, stride, stage name and index of each chosen map, under timm's keys."""
        return [self.info[index] for index in self.out_indices]

    def __len__(self) -> int:
        return len(self.out_indices)

    def _of(self, key: str) -> list[Any]:
        return [self.info[index][key] for index in self.out_indices]


class BackboneFeatures(nn.Module):
    """Gives a list of chosen feature maps of images, as timm's models do with `features_only=True`.

    Args:
        backbone: gives four maps.
        out_indices: which of them, 0 (stride 4) to 3 (stride 32), or counted from the end.
    """

    def __init__(self, backbone: HybridBackbone, out_indices: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_info = FeatureInfo(
            backbone.widths, [range(len(backbone.widths))[index] for index in out_indices]
        )

    def forward(self, images: Tensor) -> Any:
        maps = self.backbone(images)
        return [maps[index] for index in self.feature_info.out_indices]


class NamedFeatures(BackboneFeatures):
    """Gives chosen feature maps as an ordered dict "0", "1", ...: the `body` of torchvision's
    `BackboneWithFPN`.
    """

    def forward(self, images: Tensor) -> Any:
        return OrderedDict((str(level), x) for level, x in enumerate(super().forward(images)))
