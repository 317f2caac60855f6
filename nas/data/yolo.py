"""YOLO's text labels as COCO's lists (the form of Ultralytics' data sets).

    data.yaml            names; train, val, test: folders of images, or text files that list them;
                         without these keys folders of these names
    classes.txt          names alone, a line each, of a data set without splits (Label Studio)
    obj.data             names = data/obj.names; train = data/train.txt (Darknet, CVAT)
    images/train/a.jpg   labels/train/a.txt: a line an object, or beside the image

A line is `class x y width height`, the box's middle and size as fractions of the image, or `class
x1 y1 x2 y2 x3 y3 ...`, a polygon. An image without a file of labels has no object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from nas.data.annotation_files import read_text
from nas.data.image_files import opened_image
from nas.data.segmentation import extent
from nas.data.split_files import IMAGE_SUFFIXES, SPELLINGS
from nas.errors import DataError, quoted
from nas.utils.paths import real_path
from search_spaces.yaml_text import parse_yaml

Entries = list[dict[str, Any]]
BOX, LEAST_POLYGON = 4, 6  # numbers after the class
LIST, DARKNET = "classes.txt", ".data"


def find_description(root: Path) -> Path | None:
    """Find the file that describes a YOLO data set in its folder; None where there is none."""
    written = sorted((*root.glob("*.yaml"), *root.glob("*.yml"), *root.glob("*.data")))
    for file in (*written, root / LIST):
        if file.is_file() and "names" in _read(file):
            return file
    return None


def all_image_files(root: Path) -> list[Path]:
    """List the images of a data set without splits, sorted: those that have a file of labels,
    and, where `images` and `labels` are apart, those without one, which have no object.
    """
    apart = (root / "images").is_dir() and (root / "labels").is_dir()
    images = sorted(_below(root / "images" if apart else root))
    if any(label_file(path).is_file() for path in images):
        return [path for path in images if apart or label_file(path).is_file()]
    return []


def image_files(description: Path, split: str) -> list[Path]:
    """List the images of a split, sorted: those that the description names, else those in a folder
    of the split's name; none where there is neither.
    """
    keys, names = _read(description), SPELLINGS.get(split, (split,))
    stated = next((keys[name] for name in names if keys.get(name)), None)
    if not stated:
        return _in_folder_of(description.parent, names)
    places = stated if isinstance(stated, list) else [stated]
    found: list[Path] = []
    for place in places:
        path = _inside(description, _resolved(description, str(keys.get("path") or ""), str(place)))
        found += _listed(description, path) if path.suffix == ".txt" else _below(path)
    return sorted(dict.fromkeys(found))


def _in_folder_of(root: Path, names: Iterable[str]) -> list[Path]:
    """The images of the first folder of one of these names that has labels as well."""
    for name in names:
        for folder in (root / name / "images", root / "images" / name, root / name):
            images = sorted(_below(folder))
            if any(label_file(path).is_file() for path in images):
                return images
    return []


def read_yolo(description: Path, images: Iterable[Path], folder: Path) -> dict[str, Entries]:
    """Read the labels of images as the lists of a COCO file.

    Args:
        description: the YAML file, for the names.
        images: files below `folder`.
        folder: that the names of images are relative to.

    Raises:
        DataError: a line that is no object, or a class without a name.
    """
    names = _names(description)
    content: dict[str, Entries] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    for image_id, path in enumerate(images, start=1):
        width, height = _size(path)
        entry = {"id": image_id, "file_name": path.relative_to(folder).as_posix()}
        content["images"].append(entry | {"width": width, "height": height})
        for object_ in _objects(label_file(path), names, width, height):
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {"id": number, "image_id": image_id, "iscrowd": 0} | object_
            )
    return content


def label_file(image: Path) -> Path:
    """Give the file of an image's labels: in `labels` where the image is in `images`, else beside
    it.
    """
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _objects(
    file: Path, names: dict[int, str], width: int, height: int
) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            first, *numbers = map(float, line.split())
            kind = int(first)
        except (ValueError, OverflowError):
            raise DataError(f"{where}: numbers are needed; got {line[:60]!r}") from None
        if kind not in names:
            raise DataError(f"{where}: class {kind} has no name in the YAML file")
        if len(numbers) == BOX:
            x, y, w, h = numbers
            bbox = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            yield {"category_id": kind, "bbox": bbox, "area": bbox[2] * bbox[3]}
        elif len(numbers) >= LEAST_POLYGON and len(numbers) % 2 == 0:
            polygon = [n * (width, height)[i % 2] for i, n in enumerate(numbers)]
            box = extent([polygon])
            yield {"category_id": kind, "bbox": box and [*box], "segmentation": [polygon]}
        else:
            raise DataError(
                f"{where}: a class and 4 numbers, or 6 and more of a polygon, are needed; got "
                f"{len(numbers)}"
            )


def _names(description: Path) -> dict[int, str]:
    names = _read(description)["names"]
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names or [])
        return {int(number): str(name) for number, name in pairs}
    except (TypeError, ValueError):
        raise DataError(f"{description}: names must be a list, or names by number") from None


def _resolved(description: Path, base: str, place: str) -> Path:
    """A place relative to `path`, to the file, or to the file where Roboflow has one `../` more and
    Darknet the folder `data/` of its own program.
    """
    folder = description.parent
    inside = place.removeprefix("../").removeprefix("./").removeprefix("data/")
    tried = [folder / base / place, folder / place, folder / inside]
    return next((path for path in tried if path.exists()), tried[0])


def _inside(description: Path, path: Path) -> Path:
    """A place, before anything is looked for in it."""
    try:
        inside = real_path(path).is_relative_to(real_path(description.parent))
    except ValueError:  # a name that no disk has
        inside = False
    if not inside:
        raise DataError(f"{description}: images must be in {str(description.parent)!r}; got {path}")
    return path


def _listed(description: Path, file: Path) -> list[Path]:
    """Images of a list, relative to it or to the description."""
    lines = _lines(read_text(file)) if file.is_file() else []
    if odd := [line for line in lines if "\0" in line]:
        raise DataError(f"{file}: a name of a file has no NUL; got {quoted(odd[0])}")
    beside = [file.parent / line for line in lines]
    found = zip(lines, beside, strict=True)
    return [
        real_path(path if path.is_file() else _resolved(description, "", line))
        for line, path in found
    ]


def _below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]


def _size(path: Path) -> tuple[int, int]:
    """Width and height; of a file that cannot be opened, which is a finding later, any."""
    try:
        with opened_image(path) as image:
            return image.size
    except Exception:
        return 1, 1


def _read(file: Path) -> dict[str, Any]:
    """Keys of a description: of a YAML file, of Darknet's `obj.data`, or `names` of a list."""
    try:
        text = read_text(file)
        if file.name == LIST:
            return {"names": _lines(text)}
        if file.suffix == DARKNET:
            return _of_darknet(file, text)
        content = parse_yaml(text)
    except (DataError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _of_darknet(file: Path, text: str) -> dict[str, Any]:
    """Keys of `key = value` lines; the file of names is read."""
    pairs = (line.partition("=") for line in _lines(text) if "=" in line)
    keys: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    names = _resolved(file, "", keys.pop("names", ""))
    return keys | ({"names": _lines(read_text(names))} if names.is_file() else {})


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
