"""Pictures of the numbers of a data set: classes, sizes, objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas.artifacts.drawing import new_figure, png_of
from nas.data.coco import CocoSplit
from nas.utils.shown_text import in_one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES = 40  # shown as bars


def charts(split: CocoSplit) -> bytes:
    """Draw six charts of a split, crowds left out: objects of each class, sizes of the images,
    objects an image, and sides and shapes of the objects.

    Returns:
        A PNG file.
    """
    figure = new_figure()
    axes = figure.subplots(2, 3).ravel()
    objects = split.boxes.objects
    _classes(axes[0], split)
    sizes = np.array([(image.width, image.height) for image in split.images]).reshape(-1, 2)
    axes[1].scatter(*sizes.T, s=8, alpha=0.5)
    axes[1].set(title="images", xlabel="width, pixels", ylabel="height, pixels")
    counts = Counter(objects.image_ids.tolist())
    _histogram(axes[2], [counts[image.id] for image in split.images], "objects an image", "number")
    widths, heights = objects.bboxes[:, 2], objects.bboxes[:, 3]
    sides = np.sqrt(widths * heights)
    _histogram(axes[3], sides, "objects", "side, pixels (root of the area)")
    shorts = {image.id: min(image.width, image.height) for image in split.images}
    shares = 100 * sides / objects.by_image(shorts)
    _histogram(axes[4], shares, "objects", "side, % of the short side")
    _histogram(axes[5], np.log2(heights / widths), "objects", "height over width, powers of 2")
    return png_of(figure, dots_per_inch=110)


def _classes(axis: Axes, split: CocoSplit) -> None:
    counts = Counter(split.boxes.objects.category_ids.tolist())
    rows = sorted(((counts[number], name) for number, name in split.categories), reverse=True)
    shown = rows[:CLASSES][::-1]
    axis.barh(range(len(shown)), [count for count, _ in shown])
    names = [in_one_line(name[:24]) for _, name in shown]
    axis.set_yticks(range(len(shown)), names, fontsize=7, parse_math=False)
    axis.set(title=f"{len(rows)} classes, objects of each")


def _histogram(axis: Axes, values: Sequence[float] | np.ndarray, title: str, label: str) -> None:
    axis.hist(values, bins=30)
    axis.set(title=title, xlabel=label)
