"""What a detector finds in an image, and the files that detections are written to."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import SpecError
from nas.utils.files import atomic_write
from nas.utils.paths import short_name
from nas.utils.shown_text import csv_cell

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = ("image", "category", "score", "x", "y", "width", "height")
FORMS = (".json", ".csv")  # and a folder


@dataclass(frozen=True)
class ImageDetections:
    """Objects that were found in an image, the surest first.

    Args:
        name: of the image: its path, or a number where it has none.
        height: of the image, pixels.
        width: of the image, pixels.
        boxes: [N, 4], x1, y1, x2, y2 in pixels of the image.
        scores: [N], 0 to 1.
        labels: [N], from 1.
        categories: names of the classes, label 1 first.
        masks: of each object as COCO's run-length code; None where the detector has no masks.
    """

    name: str
    height: int
    width: int
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    categories: tuple[str, ...]
    masks: tuple[dict[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Class of each object."""
        return [self.categories[label - 1] for label in self.labels]

    def above(self, score: float) -> ImageDetections:
        """Those with at least this score."""
        return self.only(np.flatnonzero(self.scores >= score))

    def only(self, chosen: NDArray[np.int64]) -> ImageDetections:
        """Some of the objects, by their indices, in that order."""
        masks = None if self.masks is None else tuple(self.masks[index] for index in chosen)
        kept = {name: getattr(self, name)[chosen] for name in ("boxes", "scores", "labels")}
        return replace(self, **kept, masks=masks)

    def summary(self) -> str:
        """Say what was found: `3 RBC, 1 WBC`."""
        counts = Counter(self.names)
        found = [f"{counts[name]} {name}" for name in self.categories if counts[name]]
        return ", ".join(found) or "nothing"

    def draw(self, image: Image.Image | None = None) -> Image.Image:
        """Draw boxes, masks, classes and scores into a copy of the image; the surest are on top.

        Args:
            image: the image of Pillow that was looked at; None reads the file that `name` says.

        Raises:
            DataError: the file is gone, or cannot be decoded.
        """
        from nas.evaluation.visualization import picture_of

        return picture_of(self, image)

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO results: `image_id`, `category_id` (the label), `bbox` (x, y, width, height),
        `score`, and `segmentation` where there are masks.
        """
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        rows: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for label, box, score in zip(
                self.labels.tolist(), corners.tolist(), self.scores.tolist(), strict=True
            )
        ]
        for row, mask in zip(rows, self.masks or (), strict=False):
            row["segmentation"] = mask
        return rows


def check_target(out: Path) -> None:
    """Find out early whether detections can be written somewhere.

    Raises:
        SpecError: a file of an unknown form, or a name that is taken by something else.
    """
    if out.suffix and out.suffix not in FORMS:
        raise SpecError(
            f"--out must end in {' or '.join(FORMS)}, or be a folder for YOLO's form; got "
            f"{str(out)!r}"
        )
    if out.exists() and out.is_dir() == bool(out.suffix):
        raise SpecError(f"--out {str(out)!r} is there already, and is something else")


def write_detections(out: Path, found: Sequence[ImageDetections]) -> None:
    """Write detections: to a file `.json` as COCO has them, with images and categories, to a file
    `.csv` in a line each, to a folder in YOLO's form, a file for each image.

    Args:
        out: see `check_target`.
        found: of each image.

    Raises:
        OutputError: the disk is full or away.
    """
    if out.suffix == ".json":
        _write_text(out, json.dumps(coco_content(found), indent=1) + "\n")
    elif out.suffix == ".csv":
        _write_text(out, _csv_text(found))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for name, each in zip(file_names(found), found, strict=True):
            _write_text(out / f"{name}.txt", _yolo_text(each))


def check_results(out: Path) -> None:
    """Find out early whether COCO results can be written to a file.

    Raises:
        SpecError: its name does not end in `.json`, or is that of a folder.
    """
    if out.suffix != ".json" or out.is_dir():
        raise SpecError(f"--out must be a file that ends in .json; got {str(out)!r}")


def write_results(out: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write COCO results: the list that `loadRes` of pycocotools reads.

    Raises:
        SpecError: as `check_results`.
        OutputError: the disk is full or away.
    """
    check_results(out)
    _write_text(out, json.dumps(results) + "\n")


def coco_content(found: Sequence[ImageDetections]) -> dict[str, Any]:
    """Detections with their images and categories; `annotations` are COCO results."""
    images = [
        {"id": number, "file_name": each.name, "width": each.width, "height": each.height}
        for number, each in enumerate(found, start=1)
    ]
    names = found[0].categories if found else ()
    return {
        "images": images,
        "categories": [{"id": label, "name": name} for label, name in enumerate(names, start=1)],
        "annotations": [
            row for number, each in enumerate(found, start=1) for row in each.to_coco(number)
        ],
    }


def _csv_text(found: Sequence[ImageDetections]) -> str:
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(COLUMNS)
    for each in found:
        for row, name in zip(each.to_coco(each.name), each.names, strict=True):
            box = [f"{value:.2f}" for value in row["bbox"]]
            table.writerow([csv_cell(each.name), csv_cell(name), f"{row['score']:.4f}", *box])
    return written.getvalue()


def _yolo_text(found: ImageDetections) -> str:
    """Class from 0, centre and size as fractions of the image, score."""
    scale = np.array([found.width, found.height] * 2, dtype=np.float64)
    corners = found.boxes / scale
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    numbers = np.concatenate([centres, sides, found.scores[:, None]], axis=1)
    rows = zip(found.labels, numbers, strict=True)
    return "".join(
        f"{label - 1} {' '.join(f'{value:.6f}' for value in row)}\n" for label, row in rows
    )


def file_names(found: Sequence[ImageDetections]) -> list[str]:
    """A name for each image's file: that of the image, with a number where several have it."""
    stems = [short_name(Path(each.name).stem) for each in found]
    twice, seen = Counter(stems), Counter[str]()
    names = []
    for stem in stems:
        seen[stem] += 1
        names.append(f"{stem}-{seen[stem]}" if twice[stem] > 1 else stem)
    return names


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode(errors="surrogateescape")  # names of files, as the disk has them
    atomic_write(path, lambda file: file.write(content))
