"""A data set in Pascal VOC's form (`Annotations`, `JPEGImages`, `ImageSets/Main`) as a folder that
nas-submit reads.

    python examples/voc_to_coco.py BCCD_Dataset/BCCD bccd

Corners are taken as they are written, without the shift by one pixel of VOC's own counting from 1.
A box of no size is left out and counted; `difficult` objects stay. The old folder is only read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

SPLITS = ("train", "val")


def read_names(voc: Path, split: str) -> list[str]:
    """Names of a split's images, without suffix."""
    lines = (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def read_boxes(annotation: ET.Element) -> list[tuple[str, list[float]]]:
    """Category and [x, y, width, height] of each object."""
    boxes = []
    for found in annotation.iter("object"):
        x1, y1, x2, y2 = (
            float(found.findtext(f"bndbox/{side}", "nan"))
            for side in ("xmin", "ymin", "xmax", "ymax")
        )
        boxes.append((found.findtext("name", ""), [x1, y1, x2 - x1, y2 - y1]))
    return boxes


def convert(voc: Path, out: Path) -> None:
    """Write `out`, which must not exist."""
    read = {
        split: [
            (name, ET.parse(voc / "Annotations" / f"{name}.xml").getroot())
            for name in read_names(voc, split)
        ]
        for split in SPLITS
    }
    named = sorted(
        {name for images in read.values() for _, root in images for name, _ in read_boxes(root)}
    )
    categories = [{"id": number, "name": name} for number, name in enumerate(named, start=1)]
    ids = {category["name"]: category["id"] for category in categories}
    for split, files in read.items():
        (out / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        for number, (name, root) in enumerate(files, start=1):
            file = (voc / "JPEGImages" / f"{name}.jpg").resolve(strict=True)
            shutil.copyfile(file, out / split / file.name)
            width, height = (
                int(root.findtext(f"size/{side}", "0")) for side in ("width", "height")
            )
            images.append({"id": number, "file_name": file.name, "width": width, "height": height})
            for category, box in read_boxes(root):
                if min(box[2:]) > 0:
                    fields = {
                        "image_id": number,
                        "category_id": ids[category],
                        "bbox": box,
                        "area": box[2] * box[3],
                    }
                    boxes.append({"id": len(boxes) + 1, **fields, "iscrowd": 0})
        (out / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": boxes, "categories": categories})
        )
        empty = sum(len(read_boxes(root)) for _, root in files) - len(boxes)
        print(f"{split}: {len(images)} images, {len(boxes)} boxes, {empty} of no size left out")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voc", type=Path, help="folder with Annotations, JPEGImages and ImageSets")
    parser.add_argument("out", type=Path, help="new folder, in COCO form")
    arguments = parser.parse_args()
    convert(arguments.voc, arguments.out)
