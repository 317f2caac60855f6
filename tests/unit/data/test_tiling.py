"""Tiles: every pixel and object of an image is in one, where it was."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_files import GOOD, write
from PIL import Image
from pycocotools import mask as coco_mask

from nas.data.box_table import Box, BoxTable
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.tiling import Window, cut_box, windows, write_tiles
from nas.data.validation import check_split
from nas.errors import OutputError, SpecError


@pytest.mark.parametrize("size", [(100, 60), (64, 64), (1000, 33), (65, 129)])
@pytest.mark.parametrize("overlap", [0, 10, 40])
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int], overlap: int):
    width, height = size
    seen = np.zeros((height, width), dtype=int)
    tiles = list(windows(width, height, 64, overlap))
    for left, top, w, h in tiles:
        assert (w, h) == (min(64, width), min(64, height))
        seen[top : top + h, left : left + w] += 1
    assert seen.min() == 1 or (seen.min() > 1 and overlap)
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(b - a <= 64 - overlap for a, b in itertools.pairwise(starts))


def box(bbox: tuple[float, float, float, float], **more: object) -> Box:
    fields = {"area": bbox[2] * bbox[3], "iscrowd": 0, "segmentation": None, **more}
    return Box(7, 1, 3, bbox, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bbox", "cut", "crowd"),
    [
        ((110, 60, 10, 20), (10, 10, 10, 20), 0),  # inside
        ((90, 50, 20, 10), (0, 0, 10, 10), 0),  # half of it
        ((80, 50, 24, 10), (0, 0, 4, 10), 1),  # a sixth
        ((0, 0, 100, 50), None, None),  # touches the corner
        ((40, 60, 60.5, 10), None, None),  # half a pixel
        ((0, 0, 500, 500), (0, 0, 64, 64), 1),
    ],
)
def test_a_box_is_cut(bbox, cut, crowd):
    found = cut_box(box(bbox), Window(100, 50, 64, 64), (600, 600))
    if cut is None:
        assert found is None
    else:
        assert found
        assert (found.bbox, found.iscrowd, found.category_id) == (cut, crowd, 3)
        assert found.area == pytest.approx(cut[2] * cut[3])


def test_a_crowd_stays_one():
    found = cut_box(box((110, 60, 10, 20), iscrowd=1), Window(100, 50, 64, 64), (600, 600))
    assert found
    assert found.iscrowd == 1


@pytest.mark.parametrize("form", ["polygon", "runs", "text"])
def test_a_mask_is_cut_as_its_pixels_are(form: str):
    height, width = 90, 120
    polygon = [[20.0, 10.0, 95.0, 30.0, 60.0, 80.0, 30.0, 70.0]]
    code = coco_mask.merge(coco_mask.frPyObjects(polygon, height, width))
    pixels = coco_mask.decode(code)
    columns = pixels.T.ravel()
    ends = [0, *(np.flatnonzero(np.diff(columns)) + 1).tolist(), columns.size]
    mask = {
        "polygon": polygon,
        "runs": {"size": [height, width], "counts": np.diff(ends).tolist()},
        "text": {"size": [height, width], "counts": code["counts"].decode()},
    }[form]
    window = Window(50, 20, 40, 40)
    whole = box((20, 10, 75, 70), segmentation=mask, area=float(pixels.sum()))
    found = cut_box(whole, window, (height, width))
    assert found
    part = coco_mask.decode(found.segmentation)
    expected = pixels[20:60, 50:90]
    # A polygon is drawn anew where it was moved: a pixel of its edge may round otherwise.
    assert np.abs(part.astype(int) - expected).sum() <= (10 if form == "polygon" else 0)
    assert found.area == part.sum()
    rows, cols = np.nonzero(part)
    assert found.bbox == (
        cols.min(),
        rows.min(),
        cols.max() + 1 - cols.min(),
        rows.max() + 1 - rows.min(),
    )


def test_a_mask_that_is_elsewhere_is_left_out():
    corner = box((0, 0, 100, 100), segmentation=[[0.0, 0.0, 20.0, 0.0, 0.0, 20.0]])
    assert cut_box(corner, Window(60, 60, 40, 40), (100, 100)) is None


def test_tiles_of_a_file_with_the_longest_name(tmp_path: Path):
    name = "é" * 125 + ".png"  # 254 bytes
    Image.new("RGB", (100, 60)).save(tmp_path / name)
    record = ImageRecord(1, name, 100, 60)
    split = CocoSplit(tmp_path, (record,), BoxTable.of([]), ((3, "cat"),))
    ((_, tiles),) = write_tiles(tmp_path / "out", [("train", split)], 64, 16)
    assert len({image.file_name for image in tiles.images}) == 2
    assert all((tmp_path / "out" / "train" / each.file_name).is_file() for each in tiles.images)


def test_written_tiles_are_a_data_set(tmp_path: Path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (150, 230, 3), dtype=np.uint8)
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "scene.png")
    boxes = tuple(
        Box(i, 1, 3, (float(x), float(y), 8.0, 6.0), 48.0, 0)
        for i, (x, y) in enumerate(rng.integers(0, 140, (30, 2)), start=1)
    )
    record = ImageRecord(1, "sub/scene.png", 230, 150)
    split = CocoSplit(tmp_path / "in", (record,), boxes, ((3, "cat"),))
    write_tiles(tmp_path / "out", [("train", split)], 64, 16)
    checked = check_split(tmp_path / "out", "train")
    assert checked.problems == ()
    assert len(checked.split.images) == 5 * 3
    whole = set()
    for image in checked.split.images:
        left, top = map(int, Path(image.file_name).stem.split("_")[1:])
        with Image.open(checked.split.folder / image.file_name) as tile:
            part = pixels[top : top + image.height, left : left + image.width]
            assert np.array_equal(np.asarray(tile), part)
        for each in checked.split.boxes:
            if each.image_id == image.id and each.bbox[2:] == (8, 6):
                whole.add((each.bbox[0] + left, each.bbox[1] + top))
    assert whole == {each.bbox[:2] for each in boxes}  # the overlap is larger than an object


def test_what_cannot_be_written_is_refused(tmp_path: Path):
    split = check_split(write(tmp_path / "in", GOOD), "train").split
    with pytest.raises(SpecError, match="--overlap must be from 0 to less than --size 32; got 32"):
        write_tiles(tmp_path / "out", [("train", split)], 32, 32)
    with pytest.raises(OutputError, match="is there already"):
        write_tiles(tmp_path / "in", [("train", split)], 32, 0)
    assert json.loads((tmp_path / "in" / "instances_train.json").read_text()) == GOOD
