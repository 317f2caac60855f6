"""Images with their boxes: the ground truth on the left, what a detector found on the right, at the
image's own pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from nas.artifacts.drawing import font_file
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.image_io import broken_image_as_data_error, read_rgb
from nas.data.masks import rasterize
from nas.data.segmentation import Segmentation
from nas.evaluation.detections import ImageDetections, file_names
from nas.utils.files import atomic_write, os_errors_as_output_error
from nas.utils.paths import short_name

SHOWN_SCORE = 0.3  # detections below are not drawn
SAMPLES = 8  # images of a split that stand for it
MASK_OPACITY = 0.4
_GAP = 4  # white pixels between the sides
_HUE_STEP = 0.618034  # the golden section: neighbouring labels get colours far apart


@dataclass(frozen=True)
class Mark:
    """A box to draw.

    Args:
        bbox: x, y, width, height in pixels of its image.
        label: class that decides the colour.
        text: beside the box.
        mask: tinted in the same colour; None without one.
    """

    bbox: Sequence[float]
    label: int
    text: str
    mask: Segmentation | None = None


def sample(split: CocoSplit, count: int = SAMPLES) -> CocoSplit:
    """A part of a split with at most `count` images, evenly spread over it, and their boxes; the
    same images every time.
    """
    total = len(split.images)
    images = (
        tuple(split.images[index * total // count] for index in range(count))
        if total > count
        else split.images
    )
    return replace(split, images=images, boxes=split.boxes.of_images(image.id for image in images))


def write_drawings(
    folder: Path, split: CocoSplit, detections: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Draw every image of a split into a PNG of its own, named by its id and its file.

    Args:
        folder: exists.
        split: images and ground truth.
        detections: COCO results on images of the split; those with a score of at least
            `SHOWN_SCORE` are drawn.

    Raises:
        DataError: an image has become unreadable.
        OutputError: the disk is full or away.
    """
    truth, detected = _truth_marks(split), _detection_marks(split, detections)
    paths = []
    for image in split.images:
        pixels = _pixels(split, image)
        sides = (draw(pixels, truth[image.id]), draw(pixels, detected[image.id]))
        paths.append(folder / f"{image.id:06d}-{short_name(Path(image.file_name).stem)}.png")
        picture = functional.to_pil_image(_side_by_side(*sides))
        atomic_write(paths[-1], _png_writer(picture))
    return paths


def write_pictures(
    folder: Path, found: Sequence[ImageDetections], white_level: int | None = None
) -> list[Path]:
    """Draw what was found into image files, into a PNG of each.

    Args:
        folder: is made where it is not there.
        found: of each file, whose path is its name.
        white_level: of files with more than 8 bits, see `read_rgb`.

    Raises:
        DataError: an image has become unreadable.
        OutputError: the disk is full or away.
    """
    with os_errors_as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, each in zip(file_names(found), found, strict=True):
        paths.append(folder / f"{name}.png")
        atomic_write(paths[-1], _png_writer(picture_of(each, None, white_level)))
    return paths


def picture_of(
    found: ImageDetections, image: Image.Image | None = None, white_level: int | None = None
) -> Image.Image:
    """Draw what was found into a copy of an image.

    Args:
        found: of the image.
        image: of 8 bits; None reads the file whose path is the detections' name.
        white_level: of a file with more than 8 bits, see `read_rgb`.

    Raises:
        DataError: the file is gone, or cannot be decoded.
    """
    if image is None:
        with broken_image_as_data_error(Path(found.name)):
            image = read_rgb(Path(found.name), None, white_level)
    pixels = functional.pil_to_tensor(image.convert("RGB"))
    picture: Image.Image = functional.to_pil_image(draw(pixels, _marks(found)))
    return picture


def _marks(found: ImageDetections) -> list[Mark]:
    """The surest last, so that it lies above the others."""
    masks = found.masks or [None] * len(found)
    rows = zip(found.to_coco(0), found.names, masks, strict=True)
    return [
        Mark(row["bbox"], row["category_id"], f"{name} {row['score']:.2f}", mask)
        for row, name, mask in rows
    ][::-1]


def draw_truth(split: CocoSplit) -> Iterator[tuple[str, Tensor]]:
    """Draw the ground truth into every image of a split.

    Yields:
        Name of the file, and its pixels, [3, H, W], uint8.

    Raises:
        DataError: an image has become unreadable.
    """
    truth = _truth_marks(split)
    for image in split.images:
        yield image.file_name, draw(_pixels(split, image), truth[image.id])


def draw(image: Tensor, marks: Sequence[Mark]) -> Tensor:
    """A copy of an image with masks, boxes and texts; lines and letters grow with the image.

    Args:
        image: [3, H, W], uint8.
        marks: inside the image; the outermost pixels of a box are coloured, of a box of less than a
            pixel that one, of one whose corners are no numbers none.
    """
    marks = [mark for mark in marks if all(map(math.isfinite, mark.bbox))]
    if not marks:
        return image.clone()
    height, width = image.shape[-2:]
    for mark in (mark for mark in marks if mark.mask is not None):
        inside = rasterize([mark.mask], (height, width), (height, width)).bool()
        image = draw_segmentation_masks(
            image, inside, alpha=MASK_OPACITY, colors=[colour_of(mark.label)]
        )
    colours = [colour_of(mark.label) for mark in marks]
    drawn: Tensor = draw_bounding_boxes(
        image,
        torch.tensor([_outermost(mark.bbox, height, width) for mark in marks]),
        [mark.text for mark in marks],
        colors=colours,
        width=1 + min(height, width) // 300,
        font=font_file(),
        font_size=10 + min(height, width) // 100,
        label_colors="black",
        fill_labels=True,
    )
    return drawn


def colour_of(label: int) -> tuple[int, int, int]:
    """Colour of a label as red, green, blue, 0 to 255; bright, so that black letters can be read on
    it.
    """
    red, green, blue = colorsys.hsv_to_rgb(label * _HUE_STEP % 1, 0.6, 1)
    return round(255 * red), round(255 * green), round(255 * blue)


def _outermost(bbox: Sequence[float], height: int, width: int) -> list[int]:
    """First and last column and row that a box touches: x1, y1, x2, y2, both included, inside the
    image.
    """
    x, y, w, h = bbox
    left, top = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
    right, bottom = min(math.ceil(x + w), width) - 1, min(math.ceil(y + h), height) - 1
    return [left, top, max(left, right), max(top, bottom)]


def _truth_marks(split: CocoSplit) -> dict[int, list[Mark]]:
    names, marks = dict(split.categories), defaultdict(list)
    for box in split.boxes:
        text = names[box.category_id] + (" (crowd)" if box.iscrowd else "")
        marks[box.image_id].append(
            Mark(box.bbox, split.labels[box.category_id], text, box.segmentation)
        )
    return marks


def _detection_marks(
    split: CocoSplit, detections: Sequence[Mapping[str, Any]]
) -> dict[int, list[Mark]]:
    """Boxes by image id, the surest last, so that it lies above the others."""
    names, labels, marks = dict(split.categories), split.labels, defaultdict(list)
    for detection in sorted(detections, key=lambda detection: detection["score"]):
        if detection["score"] >= SHOWN_SCORE:
            category, mask = detection["category_id"], detection.get("segmentation")
            text = f"{names[category]} {detection['score']:.2f}"
            mark = Mark(detection["bbox"], labels[category], text, mask)
            marks[detection["image_id"]].append(mark)
    return marks


def _pixels(split: CocoSplit, image: ImageRecord) -> Tensor:
    """[3, H, W], uint8."""
    path = split.folder / image.file_name
    with broken_image_as_data_error(path):
        rgb = read_rgb(path, (image.width, image.height), split.white_level)
        pixels: Tensor = functional.pil_to_tensor(rgb)
        return pixels


def _side_by_side(left: Tensor, right: Tensor) -> Tensor:
    gap = torch.full((3, left.shape[1], _GAP), 255, dtype=torch.uint8)
    return torch.cat([left, gap, right], dim=2)


def _png_writer(picture: Image.Image) -> Callable[[Any], None]:
    """Little compression: a split has thousands of images."""
    return lambda file: picture.save(file, format="PNG", compress_level=1)
