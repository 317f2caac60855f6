"""The detector of a bundle, run on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from nas.data.batch_shapes import resized_size
from nas.data.image_io import BrokenImage, read_rgb
from nas.data.masks import encode_masks
from nas.data.tiling import Window, windows
from nas.errors import BundleError, SpecError
from nas.evaluation.detections import ImageDetections
from nas.evaluation.tile_merging import cut_by, merged, surest
from nas.export.bundle import read_bundle, read_description
from nas.export.onnx.export import OnnxModel
from nas.export.onnx.writer import DETECTOR, running
from nas.utils.device import default_device, tf32

Network = Callable[[list[Tensor]], list[dict[str, Tensor]]]
OVERLAP = 0.2  # of a tile, that neighbours share
AT_ONCE = 8  # images or tiles in memory


class Predictor:
    """The detector of a bundle, ready for images: `Predictor("best")(images)`.

    Images are resized as the bundle's recipe scores them, and boxes come back in pixels of the
    images as they were given.

    Args:
        bundle: its folder.
        onnx: run its `detector.onnx` by ONNX Runtime on the CPU, instead of PyTorch on this
            machine's GPU, or CPU.
        tile: cut larger images into tiles of so many pixels, which overlap by a fifth, and merge
            what is found in them; None: whole images.
        white_level: value of a file of more than 8 bits that becomes 255; without it such a file is
            refused, for its data set decides that.

    Raises:
        SpecError, BundleError: there is no bundle, it is damaged, or it has no ONNX.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        onnx: bool = False,
        tile: int | None = None,
        white_level: int | None = None,
    ) -> None:
        if tile is not None and tile < 1:
            raise SpecError(f"--tile must be a number of pixels, at least 1; got {tile}")
        folder, self.tile, self.white_level = Path(bundle), tile, white_level
        self.device = torch.device("cpu" if onnx else default_device())
        self.trained, self._network = _onnx(folder) if onnx else _torch(folder, self.device)

    def __call__(
        self, images: Sequence[Any], *, names: Sequence[str] | None = None
    ) -> list[ImageDetections]:
        """Find objects in images.

        Args:
            images: each a path, an image of Pillow of 8 bits, which is taken as it is, or an array
                [H, W, 3] or [H, W] of uint8.
            names: of the images; default: their paths, or numbers from 0.

        Raises:
            BrokenImage: a file cannot be decoded.
            SpecError: something that is no image.
        """
        if names is None:
            names = [
                str(image) if isinstance(image, (str, Path)) else str(number)
                for number, image in enumerate(images)
            ]
        found: list[ImageDetections] = []
        for start in range(0, len(images), AT_ONCE):
            group = slice(start, start + AT_ONCE)
            pictures = [as_rgb(image, self.white_level) for image in images[group]]
            found += self._detect(pictures, names[group])
        return found

    def _detect(
        self, pictures: Sequence[Image.Image], names: Sequence[str]
    ) -> list[ImageDetections]:
        parts = [self._parts(picture) for picture in pictures]
        outputs = iter(self._outputs([part for each in parts for _, part in each]))
        return [
            self._joined(picture, [(window, next(outputs)) for window, _ in each], name)
            for picture, each, name in zip(pictures, parts, names, strict=True)
        ]

    def _outputs(self, pictures: Sequence[Image.Image]) -> list[dict[str, Tensor]]:
        """What the network says of each picture, a few at a time."""
        found: list[dict[str, Tensor]] = []
        with torch.inference_mode(), tf32(self.trained.recipe.tf32, self.device):
            for start in range(0, len(pictures), AT_ONCE):
                tensors = [self._tensor(each) for each in pictures[start : start + AT_ONCE]]
                found += self._network(tensors)
        return found

    def _parts(self, picture: Image.Image) -> list[tuple[Window, Image.Image]]:
        width, height = picture.size
        whole = Window(0, 0, width, height)
        if self.tile is None or max(picture.size) <= self.tile:
            return [(whole, picture)]
        places = windows(width, height, self.tile, int(OVERLAP * self.tile))
        return [
            (w, picture.crop((w.left, w.top, w.left + w.width, w.top + w.height))) for w in places
        ]

    def _tensor(self, picture: Image.Image) -> Tensor:
        recipe, (width, height) = self.trained.recipe, picture.size
        size = resized_size(height, width, recipe.image_size, recipe.long_side)
        resized = F.resize_image(F.pil_to_tensor(picture), list(size), antialias=True)
        converted: Tensor = F.to_dtype_image(resized, torch.float32, scale=True)
        return converted.to(self.device)

    def _joined(
        self, picture: Image.Image, outputs: list[tuple[Window, dict[str, Tensor]]], name: str
    ) -> ImageDetections:
        """What was found in the parts of an image, in its own pixels."""
        width, height = picture.size
        placed = [(window, self._placed(window, found["boxes"])) for window, found in outputs]
        boxes = torch.cat([each for _, each in placed])
        scores, labels = (
            torch.cat([found[key].cpu() for _, found in outputs]) for key in ("scores", "labels")
        )
        cut = torch.cat([cut_by(window, each, (height, width)) for window, each in placed])
        one = len(outputs) == 1
        kept = surest(scores) if one else merged(boxes, scores, labels, cut)
        kept = kept[boxes[kept].isfinite().all(dim=1) & scores[kept].isfinite()]
        grids = [found["masks"].cpu() for _, found in outputs if "masks" in found]
        return ImageDetections(
            name,
            height,
            width,
            boxes[kept].numpy(),
            scores[kept].double().numpy(),
            labels[kept].numpy(),
            self.trained.categories,
            _codes(torch.cat(grids)[kept], boxes[kept], (height, width)) if grids else None,
        )

    def _placed(self, window: Window, boxes: Tensor) -> Tensor:
        """Boxes of a part as the network saw it, in pixels of the whole image."""
        recipe = self.trained.recipe
        rows, columns = resized_size(
            window.height, window.width, recipe.image_size, recipe.long_side
        )
        scale = torch.tensor([window.width / columns, window.height / rows] * 2)
        return boxes.cpu().double() * scale + torch.tensor([window.left, window.top] * 2)


def _codes(grids: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    return tuple(encode_masks(grids, boxes.float(), size))


def as_rgb(image: Any, white_level: int | None) -> Image.Image:
    """Make an 8-bit RGB image of a path, an image of Pillow, or an array.

    Args:
        image, white_level: see `Predictor`.

    Raises:
        BrokenImage: a file cannot be decoded.
        SpecError: something else, or one of another shape or type.
    """
    if isinstance(image, (str, Path)):
        return read_rgb(Path(image), None, white_level)
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise SpecError(f"an image of Pillow must have 8 bits; got mode {image.mode}")
        return image.convert("RGB")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise SpecError(
            "an image is a path, an image of Pillow, or an array [H, W, 3] or [H, W] of uint8; got "
            f"{type(image).__name__}, {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array).convert("RGB")


def predict_files(
    predictor: Predictor, paths: Sequence[Path], batch: int
) -> Iterator[ImageDetections | BrokenImage]:
    """Find objects in files, `batch` at a time.

    Yields:
        Of each file, in order, what was found, or why it cannot be decoded.
    """
    for start in range(0, len(paths), batch):
        group = paths[start : start + batch]
        opened = [_opened(path, predictor.white_level) for path in group]
        sound = [(path, image) for path, image in zip(group, opened, strict=True) if _sound(image)]
        found = iter(
            predictor([image for _, image in sound], names=[str(path) for path, _ in sound])
            if sound
            else []
        )
        for image in opened:
            yield next(found) if _sound(image) else image  # type: ignore[misc]


def _opened(path: Path, white_level: int | None) -> Image.Image | BrokenImage:
    try:
        return as_rgb(path, white_level)
    except BrokenImage as error:
        return BrokenImage(f"{path}: {error}")


def _sound(image: Image.Image | BrokenImage) -> bool:
    return not isinstance(image, BrokenImage)


def _torch(folder: Path, device: torch.device) -> tuple[Any, Network]:
    trained, detector = read_bundle(folder)
    return trained, detector.to(device)


def _onnx(folder: Path) -> tuple[Any, Network]:
    trained = read_description(folder)
    if not (folder / DETECTOR).is_file():
        raise BundleError(
            f"bundle {str(folder)!r} has no {DETECTOR}: its README.md says why, and another export "
            "writes it, with scratch-nas[onnx] installed"
        )
    with running(folder / DETECTOR):
        model = OnnxModel(folder / DETECTOR)

    def network(images: list[Tensor]) -> list[dict[str, Tensor]]:
        with running(folder / DETECTOR):
            found = [dict(zip(model.outputs, model(image[None]), strict=True)) for image in images]
            classes = len(trained.categories)
            pairs = zip(found, images, strict=True)
            return [_as_detections(each, classes, image) for each, image in pairs]

    return trained, network


def _as_detections(found: dict[str, Tensor], classes: int, image: Tensor) -> dict[str, Tensor]:
    """What a file of others gives, as detections within an image [3, H, W].

    Raises:
        ValueError: it is something else.
    """
    boxes, scores, labels = (found.get(name) for name in ("boxes", "scores", "labels"))
    if boxes is None or scores is None or labels is None:
        raise ValueError(f"its outputs are {', '.join(found)}, not boxes, scores and labels")
    count = (len(scores),)
    if boxes.shape != (*count, 4) or scores.shape != count or labels.shape != count:
        raise ValueError("its boxes, scores and labels are not of one number of objects")
    if "masks" in found and (found["masks"].ndim != 3 or len(found["masks"]) != len(scores)):
        raise ValueError("its masks are not a grid for each object")
    if not ((labels >= 1) & (labels <= classes)).all() or labels.is_floating_point():
        raise ValueError(f"its labels are not 1 to {classes}")
    if not (boxes.isfinite().all() and scores.isfinite().all()):
        raise ValueError("its boxes and scores are not finite")
    height, width = image.shape[-2:]
    within = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2, dtype=boxes.dtype))
    return {**found, "boxes": within}
