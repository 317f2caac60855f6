"""Our data pipeline beside torchvision's reference pipeline for detection: images a second, epoch
by epoch.

    python benchmarks/data.py --data DIR --out benchmarks/results/data-cpu.json

Same images, sizes, batches and numbers of loader processes. Theirs decodes and resizes each image
in every epoch, with transforms v2 in the order of torchvision's `references/detection`, its model's
resize included; ours keeps decoded images from the first epoch on. `ours, on the CPU` ends with the
same float images; `ours` ends with what a GPU is sent, 8-bit pixels that it flips and converts
itself. Epochs take turns. Of the second and later ones two figures are given: images a second in
the fastest, for other programs on the machine only ever slow one down, and images for each second
that all processes together computed, which others hardly change.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.dataloader import make_loader
from nas.data.dataset import Batch
from nas.data.samplers import AspectRatioBatchSampler
from nas.data.split_source import find_split
from nas.data.transforms import train_transforms
from nas.data.validation import usable_splits
from nas.utils.formatting import GIB

Epoch = Callable[[], Iterator[int]]  # images of one batch after the other


def theirs(root: Path, recipe: Recipe, workers: int) -> Epoch:
    """torchvision's: `DetectionPresetTrain` with flips, and the resize of
    `GeneralizedRCNNTransform`.
    """
    found = find_split(root, "train")
    transforms = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomHorizontalFlip(recipe.flip),
            v2.Resize(recipe.image_size, max_size=recipe.long_side),
            v2.ToDtype(torch.float32, scale=True),
            v2.ConvertBoundingBoxFormat("XYXY"),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    dataset = CocoDetection(str(found.images), str(found.annotations), transforms=transforms)
    dataset.ids = [
        image for image in dataset.ids if dataset.coco.getAnnIds(image)
    ]  # it fails on images without boxes
    dataset = wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels", "image_id"))
    loader = DataLoader(
        dataset,
        batch_size=recipe.batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=_columns,
        persistent_workers=workers > 0,
    )
    return lambda: (len(images) for images, _ in loader)


def _columns(items: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*items, strict=True))


def ours(split: CocoSplit, recipe: Recipe, workers: int, finish: Callable[[Batch], Batch]) -> Epoch:
    """What candidates train on; `finish` is the training device's part."""
    order = AspectRatioBatchSampler(split.images, recipe.batch, seed=0)
    loader = make_loader(split, train_transforms(recipe), order, workers, 32 * GIB)

    def epoch() -> Iterator[int]:
        for batch in loader:
            yield len(finish(batch).images)
        order.epoch += 1

    return epoch


def core_s() -> float:
    """Seconds that this process and its loaders have computed, on all cores."""
    ticks = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(
            fields[12]
        )  # in user and in kernel mode: proc(5), behind the name
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Pace:
    """Of some epochs, the start of loader processes included in the first."""

    images: int
    elapsed_s: float
    core_s: float

    @classmethod
    def of(cls, epoch: Epoch) -> Pace:
        """Run an epoch."""
        elapsed_s, used_s = time.perf_counter(), core_s()
        images = sum(epoch())
        return cls(images, time.perf_counter() - elapsed_s, core_s() - used_s)


def compare(root: Path, image_size: int, workers: int, epochs: int) -> list[dict[str, Any]]:
    """Both pipelines with one number of loader processes."""
    recipe = Recipe(epochs=1, image_size=image_size, batch=8, lr=1e-3)
    split = usable_splits(root, ("train",), skip_broken=True)[0].split.without_masks()
    with tempfile.TemporaryDirectory() as cache:
        pipelines = {
            "ours": ours(split, recipe, workers, lambda batch: batch),
            "ours, on the CPU": ours(
                split, recipe, workers, lambda batch: batch.to(torch.device("cpu"))
            ),
            "torchvision": theirs(root, recipe, workers),
        }
        paces: dict[str, list[Pace]] = {name: [] for name in pipelines}
        for _ in range(epochs):
            for name, epoch in pipelines.items():
                os.environ["XDG_CACHE_HOME"] = str(Path(cache, name))  # opened in the first epoch
                paces[name].append(Pace.of(epoch))
    rows = []
    for name, (first, *later) in paces.items():
        images, used_s = sum(pace.images for pace in later), sum(pace.core_s for pace in later)
        rows.append(
            {
                "data": root.name,
                "images": len(split.images),
                "image_size": image_size,
                "loader_workers": workers,
                "pipeline": name,
                "first_epoch_images_per_s": first.images / first.elapsed_s,
                "later_images_per_s": max(pace.images / pace.elapsed_s for pace in later),
                "later_images_per_core_s": images / used_s,
            }
        )
    for figure in ("first_epoch_images_per_s", "later_images_per_s", "later_images_per_core_s"):
        base = rows[-1][figure]
        for row in rows:
            row[figure.replace("images_per", "ratio_per")] = round(row[figure] / base, 2)
            row[figure] = round(row[figure], 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--image-size", type=int, default=[400, 800], nargs="+")
    parser.add_argument("--workers", type=int, default=[0, 2], nargs="+")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for root in arguments.data:
        for image_size, workers in itertools.product(arguments.image_size, arguments.workers):
            for row in compare(root, image_size, workers, arguments.epochs):
                rows.append(row)
                print(
                    f"{row['data']:10} {image_size:4} pixels {workers} processes "
                    f"{row['pipeline']:16} "
                    f"first epoch {row['first_epoch_images_per_s']:7.1f} images/s "
                    f"({row['first_epoch_ratio_per_s']:.2f}), "
                    f"later ones {row['later_images_per_s']:7.1f} "
                    f"({row['later_ratio_per_s']:.2f}), for each second of a core "
                    f"{row['later_images_per_core_s']:7.1f} ({row['later_ratio_per_core_s']:.2f})",
                    flush=True,
                )
    if arguments.out:
        words = [Path(word).name if Path(word) in arguments.data else word for word in sys.argv]
        content = {
            "command": " ".join(["python", *words]),
            "device": "cpu",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
