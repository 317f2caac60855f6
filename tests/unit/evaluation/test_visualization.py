"""Drawn boxes: their edges to the pixel, their colours, which images and which detections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.errors import DataError
from nas.evaluation.detections import ImageDetections
from nas.evaluation.visualization import (
    MASK_OPACITY,
    SHOWN_SCORE,
    Mark,
    colour_of,
    draw,
    sample,
    write_drawings,
)

GREY = 90


def split(folder: Path, images: int = 1, width: int = 80, height: int = 60) -> CocoSplit:
    """Grey images with a cell of category 7 (label 2) each; category 3 (label 1) is a nucleus."""
    records = tuple(
        ImageRecord(number, f"{number}.png", width, height) for number in range(1, images + 1)
    )
    for record in records:
        Image.new("RGB", (width, height), (GREY,) * 3).save(folder / record.file_name)
    boxes = tuple(Box(record.id, record.id, 7, (10, 20, 30, 25), 750, 0) for record in records)
    return CocoSplit(folder, records, boxes, ((3, "nucleus"), (7, "cell")))


def frame(image: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """First and last column and row of the pixels of a colour."""
    rows, columns = np.nonzero((image == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def drawn(marks: list[Mark], width: int = 80, height: int = 60) -> np.ndarray:
    image = torch.full((3, height, width), GREY, dtype=torch.uint8)
    return draw(image, marks).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("bbox", "outermost"),
    [
        ((10, 20, 30, 25), (10, 20, 39, 44)),  # 30 columns: 10 to 39
        ((10.4, 20.6, 29.2, 25), (10, 20, 39, 45)),  # 39.6 lies in column 39, 45.6 in row 45
        ((0, 0, 80, 60), (0, 0, 79, 59)),
        ((70, 50, 20, 20), (70, 50, 79, 59)),  # beyond the border
        ((79.9, 59.9, 0.05, 0.05), (79, 59, 79, 59)),
    ],
)
def test_the_edge_of_a_box_has_its_colour(bbox: tuple, outermost: tuple):
    image, colour = drawn([Mark(bbox, 4, "")]), colour_of(4)
    left, top, right, bottom = outermost
    assert (image[top, left : right + 1] == colour).all()
    assert (image[bottom, left : right + 1] == colour).all()
    assert (image[top : bottom + 1, left] == colour).all()
    assert (image[top : bottom + 1, right] == colour).all()
    assert frame(image, colour) == outermost


def test_nothing_to_draw_changes_nothing():
    assert (drawn([]) == GREY).all()


def test_large_images_get_wide_lines_and_large_letters():
    small = drawn([Mark((10, 10, 300, 200), 1, "cell")], 400, 300)
    large = drawn([Mark((10, 10, 300, 200), 1, "cell")], 4000, 3000)
    column = 150
    counts = [(image[:, column] == colour_of(1)).all(axis=-1).sum() for image in (small, large)]
    assert counts == [4, 22]  # two edges of 2 and of 11 pixels
    letters = [(image == 0).all(axis=-1).sum() for image in (small, large)]
    assert letters[1] > 4 * letters[0]


def test_neighbouring_labels_have_colours_far_apart():
    colours = torch.tensor([colour_of(label) for label in range(1, 13)], dtype=torch.float)
    apart = torch.cdist(colours, colours) + 1000 * torch.eye(12)
    assert apart.min() > 20
    assert apart.diagonal(1).min() > 100


@pytest.mark.parametrize(
    ("images", "ids"), [(3, [1, 2, 3]), (8, list(range(1, 9))), (12, [1, 2, 4, 5, 7, 8, 10, 11])]
)
def test_samples_are_spread_evenly_and_always_the_same(tmp_path: Path, images: int, ids: list[int]):
    chosen = sample(split(tmp_path, images))
    assert [image.id for image in chosen.images] == ids
    assert [box.image_id for box in chosen.boxes] == ids
    assert sample(split(tmp_path, images)) == chosen


def test_the_longest_name_of_a_file(tmp_path: Path):
    whole = split(tmp_path)
    name = "x" * 251 + ".png"
    (tmp_path / whole.images[0].file_name).rename(tmp_path / name)
    renamed = replace(whole.images[0], file_name=name)
    (path,) = write_drawings(tmp_path, replace(whole, images=(renamed,)), [])
    assert path.is_file()


def test_truth_is_left_and_what_was_found_right(tmp_path: Path):
    whole = split(tmp_path)
    detections = [
        {"image_id": 1, "category_id": 3, "bbox": [50, 5, 20, 40], "score": SHOWN_SCORE},
        {"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5], "score": SHOWN_SCORE - 0.01},
    ]
    (path,) = write_drawings(tmp_path, whole, detections)
    assert path == tmp_path / "000001-1.png"
    with Image.open(path) as picture:
        shown = np.asarray(picture)
    assert shown.shape == (60, 80 + 4 + 80, 3)
    left, right = shown[:, :80], shown[:, 84:]
    assert frame(left, colour_of(2)) == (10, 20, 39, 44)
    assert not (left == colour_of(1)).all(axis=-1).any()
    assert frame(right, colour_of(1))[:2] == (50, 5)
    assert not (right == colour_of(2)).all(axis=-1).any()
    assert (shown[:, 80:84] == 255).all()
    assert (left[0] == GREY).all()


def test_detections_draw_themselves(tmp_path: Path):
    """Into the file of their name, or into an image that is given, which stays as it was."""
    image = Image.new("RGB", (80, 60), (GREY,) * 3)
    image.save(tmp_path / "1.png")
    found = ImageDetections(
        str(tmp_path / "1.png"),
        height=60,
        width=80,
        boxes=np.array([[10.0, 20.0, 40.0, 45.0]]),
        scores=np.array([0.9]),
        labels=np.array([2]),
        categories=("nucleus", "cell"),
    )
    shown = np.asarray(found.draw())
    assert (shown[44, 10:40] == colour_of(2)).all()  # the lowest row of the box
    assert (shown[44, [9, 40]] == GREY).all()
    assert (np.asarray(replace(found, name="0").draw(image)) == shown).all()
    assert (np.asarray(image) == GREY).all()
    with pytest.raises(DataError, match="is missing"):
        replace(found, name=str(tmp_path / "2.png")).draw()


def test_names_and_scores_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    texts: list[list[str]] = []
    monkeypatch.setattr(
        "nas.evaluation.visualization.draw",
        lambda image, marks: texts.append([mark.text for mark in marks]) or image,
    )
    whole = split(tmp_path)
    crowd = Box(2, 1, 3, (0, 0, 70, 50), 3500, 1)
    found = [
        {"image_id": 1, "category_id": 3, "bbox": [5, 5, 9, 9], "score": score}
        for score in (0.987, 0.31, 0.1)
    ]
    write_drawings(
        tmp_path,
        CocoSplit(whole.folder, whole.images, (*whole.boxes, crowd), whole.categories),
        found,
    )
    assert texts == [["cell", "nucleus (crowd)"], ["nucleus 0.31", "nucleus 0.99"]]


def test_an_image_that_has_gone_is_named(tmp_path: Path):
    whole = split(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(
        DataError,
        match=r"1\.png' was sound when the data set was checked, and is not now: is missing",
    ):
        write_drawings(tmp_path, whole, [])


def test_masks_are_tinted_on_both_sides(tmp_path: Path):
    whole = split(tmp_path)
    square = [20.0, 36, 36, 36, 36, 42, 20, 42]  # below the text
    masked = replace(whole, boxes=tuple(replace(box, segmentation=[square]) for box in whole.boxes))
    code = {"size": [60, 80], "counts": [10 * 60, 60, 69 * 60]}  # column 10
    detections = [
        {
            "image_id": 1,
            "category_id": 7,
            "bbox": [10, 0, 1, 60],
            "score": 0.9,
            "segmentation": code,
        }
    ]
    (path,) = write_drawings(tmp_path, masked, detections)
    with Image.open(path) as picture:
        shown = np.asarray(picture).astype(int)
    tint = [round((1 - MASK_OPACITY) * GREY + MASK_OPACITY * channel) for channel in colour_of(2)]
    tinted = (np.abs(shown - tint) <= 1).all(axis=-1)
    left, right = tinted[:, :80], tinted[:, 84:]
    assert left[37:41, 21:35].all()
    assert left.sum() == 16 * 6
    assert right.sum() == 0  # its box is one column wide, and lies above
    (path,) = write_drawings(tmp_path, whole, [{**detections[0], "bbox": [50, 50, 5, 5]}])
    with Image.open(path) as picture:
        assert (np.abs(np.asarray(picture).astype(int)[:, 84 + 10] - tint) <= 1).all()
