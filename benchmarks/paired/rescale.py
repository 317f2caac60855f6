"""A data set with its images and boxes scaled, to judge what a plan makes of small and large ones.

    python benchmarks/paired/rescale.py DATA 0.25 OUT

DATA has `train`, `val` and `instances_*.json`. Images are resampled as training resamples them and
written as PNG, so that nothing but the number of pixels is lost.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

SPLITS = ("train", "val")


def rescaled(content: dict[str, Any], factor: float) -> dict[str, Any]:
    """Annotations in COCO form, scaled; polygons and masks are left out."""
    images = [
        {
            **image,
            "width": max(1, round(image["width"] * factor)),
            "height": max(1, round(image["height"] * factor)),
            "file_name": f"{Path(image['file_name']).stem}.png",
        }
        for image in content["images"]
    ]
    annotations = [
        {
            **{key: value for key, value in box.items() if key != "segmentation"},
            "bbox": [side * factor for side in box["bbox"]],
            "area": box["area"] * factor**2,
        }
        for box in content["annotations"]
    ]
    return {**content, "images": images, "annotations": annotations}


def write(data: Path, split: str, factor: float, out: Path) -> None:
    """One split."""
    content = json.loads((data / f"instances_{split}.json").read_text())
    scaled = rescaled(content, factor)
    (out / split).mkdir(parents=True)
    for before, after in zip(content["images"], scaled["images"], strict=True):
        with Image.open(data / split / before["file_name"]) as image:
            size = after["width"], after["height"]
            resized = image.convert("RGB").resize(
                size, Image.Resampling.BILINEAR, reducing_gap=None
            )
        resized.save(out / split / after["file_name"])
    (out / f"instances_{split}.json").write_text(json.dumps(scaled))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("factor", type=float)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    for split in SPLITS:
        write(arguments.data, split, arguments.factor, arguments.out)


if __name__ == "__main__":
    main()
