"""Pascal VOC's XML files as COCO's lists.

    JPEGImages/a.jpg  Annotations/a.xml  ImageSets/Main/train.txt     VOC's own
    train/a.jpg  train/a.xml                                          beside each other
    train/images/a.jpg  train/annotations/a.xml                       a folder for each split

The corners of a box count pixels from 1, both included, in VOC's own files; many programs write
them from 0. A data set counts from 1 where corners are whole numbers, none is 0, and some box
reaches the last column or row of its image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nas.data.annotation_files import read_text
from nas.data.split_files import IMAGE_SUFFIXES, SPELLINGS
from nas.errors import DataError
from search_spaces.regular_files import read_regular

Entries = list[dict[str, Any]]
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def xml_files(root: Path, split: str) -> list[Path]:
    """List the XML files of a split, sorted; none where there is no such split."""
    for name in SPELLINGS.get(split, (split,)):
        listed = root / "ImageSets" / "Main" / f"{name}.txt"
        if listed.is_file():
            words = [line.split()[0] for line in read_text(listed).splitlines() if line.strip()]
            return sorted(root / "Annotations" / f"{word}.xml" for word in words)
        places = (name, f"Annotations/{name}", f"annotations/{name}")
        for place in (*places, f"{name}/Annotations", f"{name}/annotations", f"{name}/labels"):
            if found := sorted((root / place).glob("*.xml")):
                return found
    return []


def all_xml_files(root: Path) -> list[Path]:
    """List the XML files of a data set without splits, sorted."""
    for folder in (root / "Annotations", root / "annotations", root, root / "images"):
        if found := sorted(folder.glob("*.xml")):
            return found
    return []


def read_voc(files: Iterable[Path], folder: Path, root: Path) -> dict[str, Entries]:
    """Read XML files as the lists of a COCO file; categories are numbered by their names, those of
    all splits, and an image that is listed without an XML file has no objects.

    Args:
        files: of a split.
        folder: that the names of images are relative to.
        root: of the data set, all of whose files tell from where corners count.

    Raises:
        DataError: a file that cannot be read, or without what a box needs.
    """
    of_splits = (file for split in SPELLINGS for file in xml_files(root, split))
    files = [*files]
    trees = {path: _parse(path, folder) for path in dict.fromkeys((*files, *of_splits))}
    first = first_pixel(trees)
    names = sorted({_text(o, "name", p) for p, tree in trees.items() for o in tree.iter("object")})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    content: dict[str, Entries] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
    for image_id, path in enumerate(files, start=1):
        tree = trees[path]
        content["images"].append({"id": image_id, **_image(path, tree, folder)})
        for object_ in tree.iter("object"):
            left, top, right, bottom = _corners(object_, path)
            sides = [right - left + first, bottom - top + first]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": numbers[_text(object_, "name", path)],
                    "bbox": [left - first, top - first, *sides],
                    "iscrowd": 0,
                }
            )
    return content


def first_pixel(trees: Mapping[Path, ElementTree.Element]) -> int:
    """Tell whether corners count from 1 or from 0, by all files of a data set.

    Raises:
        DataError: a box without its corners.
    """
    least, touching = math.inf, False
    for path, tree in trees.items():
        width, height = (_side(tree, side) for side in ("width", "height"))
        for object_ in tree.iter("object"):
            corners = _corners(object_, path)
            fractions = any("." in (object_.findtext(f"bndbox/{name}") or "") for name in CORNERS)
            least = min(least, 0 if fractions else math.inf, *corners)
            touching |= corners[2] == width or corners[3] == height
    return int(least >= 1 and touching)


def _image(path: Path, tree: ElementTree.Element, folder: Path) -> dict[str, Any]:
    """Name and size; the name is that of the XML file where the one that it states is not there."""
    stated = (tree.findtext("filename") or "").strip()
    folders = (path.parent, folder)
    alike = [each / f"{path.stem}{suffix}" for each in folders for suffix in IMAGE_SUFFIXES]
    file = next((other.name for other in alike if other.is_file()), None)
    entry: dict[str, Any] = {"file_name": stated or file or f"{path.stem}.jpg"}
    if file and not (folder / entry["file_name"]).is_file():
        entry["file_name"] = file
    stated_sides = {side: _side(tree, side) for side in ("width", "height")}
    return entry | {side: int(pixels) for side, pixels in stated_sides.items() if pixels}


def _side(tree: ElementTree.Element, side: str) -> float:
    """Stated width or height of the image, 0 where it is none."""
    try:
        pixels = float(tree.findtext(f"size/{side}") or 0)
    except ValueError:
        return 0.0
    return pixels if 0 < pixels < math.inf else 0.0


def _corners(object_: ElementTree.Element, path: Path) -> list[float]:
    box = object_.find("bndbox")
    try:
        if box is None:
            raise ValueError
        return [float(box.findtext(name) or "") for name in CORNERS]
    except ValueError:
        name = object_.findtext("name")
        raise DataError(
            f"{path}: object {name!r} needs a bndbox with {', '.join(CORNERS)}"
        ) from None


def _text(element: ElementTree.Element, name: str, path: Path) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise DataError(f"{path}: an object needs a {name}")
    return text


def _parse(path: Path, folder: Path) -> ElementTree.Element:
    """The content of a file; of one that is not there though its image is, an image's without
    objects.
    """
    if not path.exists() and any((folder / f"{path.stem}{s}").is_file() for s in IMAGE_SUFFIXES):
        return ElementTree.Element("annotation")
    try:
        return ElementTree.fromstring(read_regular(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # encodings, names of files
        raise DataError(f"{path} is not XML: {error}") from None
