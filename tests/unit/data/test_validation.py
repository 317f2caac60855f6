"""A data set with every fault that the check knows, one at a time: repaired and counted, or
named.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.data.annotation_files import find_split
from nas.data.coco import CocoSplit, fingerprint
from nas.data.splits import read_index, write_index
from nas.data.validation import check_split, usable_splits
from nas.errors import DataError

GOOD: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 2, "file_name": "b.png", "width": 60, "height": 40},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 3,
            "bbox": [5, 6, 20, 10],
            "area": 150,
            "iscrowd": 0,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 7,
            "bbox": [0, 0, 60, 40],
            "area": 2400,
            "iscrowd": 1,
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 3,
            "bbox": [1.5, 2.5, 3.25, 4.75],
            "area": 15.4375,
            "iscrowd": 0,
        },
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
}


def write(root: Path, coco: dict[str, Any], split: str = "train") -> Path:
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(folder / name)
    (root / f"instances_{split}.json").write_text(json.dumps(coco))
    return root


def test_a_good_split_has_no_findings(tmp_path: Path):
    checked = check_split(write(tmp_path, GOOD), "train")
    assert checked.problems == ()
    split = checked.split
    assert [image.file_name for image in split.images] == ["a.png", "b.png"]
    assert split.categories == ((3, "cat"), (7, "dog"))
    assert split.labels == {3: 1, 7: 2}
    assert split.boxes[2].bbox == (1.5, 2.5, 3.25, 4.75)
    assert (split.boxes[0].area, split.boxes[1].iscrowd) == (150, 1)


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """`annotations.0.bbox` set to a value, or taken away."""

    def act(coco: dict[str, Any]) -> None:
        *way, last = path.split(".")
        target: Any = coco
        for step in way:
            target = target[int(step) if step.isdigit() else step]
        if value is KeyError:
            del target[last]
        else:
            target[int(last) if last.isdigit() else last] = value

    return act


def append(section: str, entry: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda coco: coco[section].append(entry)


REPAIRED = [
    (change("images.0.width", 61), "size disagrees with the file", "61x40 stated, 60x40 used"),
    (change("images.0.width", KeyError), "size disagrees with the file", "no size stated"),
    (change("annotations.0.bbox", [-5, 6, 20, 10]), "box partly outside the image", "clipped"),
    (change("annotations.0.id", 3), "duplicate annotation id", "renumbered to 4"),
    (change("annotations.0.id", KeyError), "annotation without a number", "renumbered to 4"),
    (change("annotations.0.id", "one"), "annotation without a number", "renumbered to 4"),
    (append("annotations", GOOD["annotations"][0]), "annotation listed twice", ""),
    (append("images", GOOD["images"][0]), "image listed twice", ""),
]


@pytest.mark.parametrize(("fault", "kind", "detail"), REPAIRED)
def test_what_can_be_repaired_is_and_counted(
    tmp_path: Path, fault: Callable, kind: str, detail: str
):
    coco = copy.deepcopy(GOOD)
    fault(coco)
    checked = check_split(write(tmp_path, coco), "train")
    (problem,) = checked.problems
    assert problem.repaired
    assert problem.kind == kind
    assert detail in problem.detail
    assert (len(checked.split.images), len(checked.split.boxes)) == (2, 3)
    assert len({box.id for box in checked.split.boxes}) == 3
    assert all((image.width, image.height) == (60, 40) for image in checked.split.images)


LOST = [
    (change("annotations.0.bbox", [5, 6, 0, 10]), "box of zero area", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, 20, -10]), "box of zero area", "a.png", 1),
    (change("annotations.0.bbox", [60, 6, 20, 10]), "box outside the image", "a.png", 1),
    (change("annotations.0.bbox", [5, -30, 20, 10]), "box outside the image", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, 20]), "malformed box", "a.png", 1),
    (change("annotations.0.bbox", None), "malformed box", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, "20", 10]), "malformed box", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, float("nan"), 10]), "malformed box", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, 10**400, 10]), "malformed box", "a.png", 1),
    (change("annotations.0.category_id", 4), "unknown category", "a.png", 1),
    (change("annotations.0.category_id", [3]), "unknown category", "a.png", 1),
    (change("annotations.0.image_id", 9), "unknown image", "instances_train.json", 1),
    (change("annotations.0.image_id", {}), "unknown image", "instances_train.json", 1),
    (
        append("images", {"id": 1, "file_name": "b.png", "width": 60, "height": 40}),
        "duplicate image id",
        "b.png",
        None,
    ),
    (change("images.1.file_name", "c.png"), "missing image", "c.png", None),
]


@pytest.mark.parametrize(("fault", "kind", "file", "annotation_id"), LOST)
def test_what_cannot_be_repaired_is_named(
    tmp_path: Path, fault: Callable, kind: str, file: str, annotation_id: int | None
):
    coco = copy.deepcopy(GOOD)
    fault(coco)
    write(tmp_path, coco)
    checked = check_split(tmp_path, "train")
    (problem,) = checked.lost
    assert (problem.kind, problem.file, problem.annotation_id) == (kind, file, annotation_id)
    with pytest.raises(
        DataError, match=f"faults that cannot be repaired: {file}.*{kind}.*skip_broken"
    ):
        usable_splits(tmp_path, ("train",), skip_broken=False)
    (skipped,) = usable_splits(tmp_path, ("train",), skip_broken=True)
    assert len(skipped.split.boxes) == (3 if kind == "duplicate image id" else 2)


def test_a_broken_image_takes_its_boxes_with_it(tmp_path: Path):
    write(tmp_path, GOOD)
    (tmp_path / "train" / "a.png").write_bytes(b"\x89PNG broken")
    checked = check_split(tmp_path, "train")
    assert [(problem.kind, problem.file) for problem in checked.lost] == [("broken image", "a.png")]
    assert [box.id for box in checked.split.boxes] == [3]


def test_clipping_changes_box_and_area(tmp_path: Path):
    coco = copy.deepcopy(GOOD)
    coco["annotations"][0]["bbox"] = [-5, 30, 20, 30]
    checked = check_split(write(tmp_path, coco), "train")
    assert checked.split.boxes[0].bbox == (0, 30, 15, 10)
    assert checked.split.boxes[0].area == 150


def test_rounding_of_half_a_pixel_is_clipped_without_a_word(tmp_path: Path):
    coco = copy.deepcopy(GOOD)
    coco["annotations"][1]["bbox"] = [0, 0, 60.3, 40.4]
    checked = check_split(write(tmp_path, coco), "train")
    assert checked.problems == ()
    assert checked.split.boxes[1].bbox == (0, 0, 60, 40)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (change("annotations", []), "no usable box"),
        (change("images", []), "no usable box"),
        (change("annotations", KeyError), "must have a list 'annotations'"),
        (change("categories", []), "list of categories is empty"),
        (change("categories.0.id", "x"), "id of a category must be a whole number"),
        (change("categories.0.id", 3), "category 3 has two names"),
        (change("images.0.file_name", "../a.png"), "must stay inside the image folder"),
        (change("images.0.file_name", "/a.png"), "must stay inside the image folder"),
        (change("images.0.id", KeyError), "an image needs a whole number as id"),
    ],
)
def test_files_that_cannot_be_used_at_all(tmp_path: Path, fault: Callable, words: str):
    coco = copy.deepcopy(GOOD)
    fault(coco)
    with pytest.raises(DataError, match=words):
        usable_splits(write(tmp_path, coco), ("train",), skip_broken=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is not JSON.*line 1"), ("[]", "must have a list"), ("\xff\xfe", "not")],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: str, words: str):
    write(tmp_path, GOOD)
    (tmp_path / "instances_train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words) as error:
        check_split(tmp_path, "train")
    assert "instances_train.json" in str(error.value)


def test_both_spellings_are_found(tmp_path: Path):
    ours, cocos = write(tmp_path / "ours", GOOD), tmp_path / "cocos"
    assert find_split(ours, "train") == (ours / "train", ours / "instances_train.json")
    (cocos / "annotations").mkdir(parents=True)
    (cocos / "train2017").mkdir()
    (cocos / "annotations" / "instances_train2017.json").write_text("{}")
    assert find_split(cocos, "train") == (
        cocos / "train2017",
        cocos / "annotations" / "instances_train2017.json",
    )
    with pytest.raises(
        DataError, match=r"no split 'val' .*looked for instances_val.json with val/"
    ):
        find_split(ours, "val")
    with pytest.raises(DataError, match="does not exist"):
        find_split(tmp_path / "nowhere", "train")


def test_splits_must_have_the_same_categories(tmp_path: Path):
    write(tmp_path, GOOD)
    other = copy.deepcopy(GOOD)
    other["categories"][0]["name"] = "wolf"
    write(tmp_path, other, "val")
    with pytest.raises(DataError, match="same categories"):
        usable_splits(tmp_path, ("train", "val"), skip_broken=False)


def test_index_and_coco_form_keep_everything(tmp_path: Path):
    split = check_split(write(tmp_path, GOOD), "train").split
    assert CocoSplit.from_coco(split.folder, split.to_coco()) == split
    write_index(tmp_path / "index.json", split)
    assert read_index(tmp_path / "index.json") == split


def test_fingerprint_sees_boxes_files_and_nothing_else(tmp_path: Path):
    first = fingerprint([check_split(write(tmp_path / "1", GOOD), "train").split])
    assert first == fingerprint([check_split(write(tmp_path / "2", GOOD), "train").split])
    moved = copy.deepcopy(GOOD)
    moved["annotations"][0]["bbox"][0] += 1
    assert first != fingerprint([check_split(write(tmp_path / "3", moved), "train").split])
    Image.fromarray(np.full((40, 60, 3), 7, dtype=np.uint8)).save(
        tmp_path / "2" / "train" / "a.png", compress_level=0
    )
    assert first != fingerprint([check_split(tmp_path / "2", "train").split])


def test_subset_is_a_share_that_stays_the_same(tmp_path: Path):
    split = check_split(write(tmp_path, GOOD), "train").split
    half = split.subset(0.5)
    assert half == split.subset(0.5)
    assert len(half.images) == 1
    assert {box.image_id for box in half.boxes} <= {half.images[0].id}
    assert split.subset(1.0) == split


@pytest.mark.parametrize("name", ["bccd", "coco_mini"])
def test_published_counts_of_real_data(name: str, request: pytest.FixtureRequest):
    counts = {
        "bccd": [(205, 2804, 0), (87, 1137, 0)],
        "coco_mini": [(128, 939, 10), (80, 815, 11)],
    }[name]
    checked = usable_splits(request.getfixturevalue(name), ("train", "val"), skip_broken=False)
    found = [
        (len(c.split.images), len(c.split.boxes), sum(box.iscrowd for box in c.split.boxes))
        for c in checked
    ]
    assert found == counts
    assert [problem.kind for c in checked for problem in c.problems] == (
        ["not 8-bit RGB"] if name == "coco_mini" else []
    )
