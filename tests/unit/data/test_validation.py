"""A data set with every fault that the check knows, one at a time: repaired and counted, or
named.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.coco_files import GOOD, append, change, write, written
from PIL import Image

from nas.data.coco import CocoSplit
from nas.data.fingerprint import fingerprint
from nas.data.image_cache import PixelCache
from nas.data.split_index import read_index, write_index
from nas.data.validation import check_split, check_splits, usable_splits
from nas.errors import DataError
from nas.reports.dataset import same_data


def test_a_good_split_has_no_findings(tmp_path: Path):
    checked = check_split(write(tmp_path, GOOD), "train")
    assert checked.problems == ()
    split = checked.split
    assert [image.file_name for image in split.images] == ["a.png", "b.png"]
    assert split.categories == ((3, "cat"), (7, "dog"))
    assert split.labels == {3: 1, 7: 2}
    assert split.boxes[2].bbox == (1.5, 2.5, 3.25, 4.75)
    assert (split.boxes[0].area, split.boxes[1].iscrowd) == (150, 1)


NAMED = "file name of another spelling"
REPAIRED = [
    (change("images.0.width", 61), "size disagrees with the file", "61x40 stated, 60x40 used"),
    (change("images.0.width", KeyError), "size disagrees with the file", "no size stated"),
    (change("annotations.0.bbox", [-5, 6, 20, 10]), "box partly outside the image", "clipped"),
    (change("annotations.0.id", 3), "duplicate annotation id", "renumbered to 4"),
    (change("annotations.0.id", KeyError), "annotation without a number", "renumbered to 4"),
    (change("annotations.0.id", "one"), "annotation without a number", "renumbered to 4"),
    (append("annotations", GOOD["annotations"][0]), "annotation listed twice", ""),
    (append("annotations", {**GOOD["annotations"][0], "id": 9}), "box listed twice", "left out"),
    (change("annotations.0.id", 0), "annotation id outside 1 to 2^53", "renumbered to 4"),
    (change("annotations.0.id", 2**63), "annotation id outside 1 to 2^53", "renumbered to 4"),
    (change("annotations.0.bbox", [25, 16, -20, -10]), "box of negative size", "backwards"),
    (change("annotations.0.iscrowd", "0"), "crowd flag as text", "iscrowd '0' is 0"),
    (change("annotations.0.iscrowd", "maybe"), "crowd flag as text", "is 0"),
    (change("categories.0.name", "cat"), "categories of one name", "'cat': 7, 3; kept apart"),
    (append("images", GOOD["images"][0]), "image listed twice", ""),
    (change("images.0.file_name", "/home/of/another/train/a.png"), NAMED, "/home/of"),
    (change("images.0.file_name", r"train\a.png"), NAMED, "train"),
    (change("images.0.file_name", "A.PNG"), NAMED, "A.PNG"),
    (change("images.0.file_name", "./a.png"), NAMED, "./a.png"),
    (change("images.0.file_name", "%61.png"), NAMED, "%61.png"),
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
    (change("annotations.0.bbox", [60, 6, 20, 10]), "box outside the image", "a.png", 1),
    (change("annotations.0.bbox", [5, -30, 20, 10]), "box outside the image", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, 20]), "malformed box", "a.png", 1),
    (change("annotations.0.bbox", None), "malformed box", "a.png", 1),
    (change("annotations.0.bbox", [5, 6, "wide", 10]), "malformed box", "a.png", 1),
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
    (change("images.1.file_name", "../../c.png"), "missing image", "../../c.png", None),
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


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (change("annotations", []), "no usable box"),
        (change("images", []), "no usable image"),
        (change("annotations", KeyError), "must have a list 'annotations'"),
        (change("categories", []), "list of categories is empty"),
        (change("categories.0.id", KeyError), "a category needs an id"),
        (change("categories.0.id", 3), "category 3 has two names"),
        (change("images.0.id", KeyError), "an image needs an id and a file_name"),
        (change("images.0.file_name", KeyError), "an image needs an id and a file_name"),
    ],
)
def test_files_that_cannot_be_used_at_all(tmp_path: Path, fault: Callable, words: str):
    coco = copy.deepcopy(GOOD)
    fault(coco)
    with pytest.raises(DataError, match=words):
        usable_splits(write(tmp_path, coco), ("train",), skip_broken=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON.*line 1"),
        ("[]", "must have a list"),
        ("\xff\xfe", "not"),
        ('{"images": [' + "9" * 5000 + "]}", "is not JSON.*5000 digits"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: str, words: str):
    write(tmp_path, GOOD)
    (tmp_path / "instances_train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words) as error:
        check_split(tmp_path, "train")
    assert "instances_train.json" in str(error.value)


def test_index_and_coco_form_keep_everything(tmp_path: Path):
    split = check_split(write(tmp_path, GOOD), "train").split
    again = CocoSplit.from_coco(split.folder, split.to_coco())
    assert dataclasses.replace(again, content=split.content) == split  # no file's bytes in COCO's
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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marks_of_the_encoding_are_understood(tmp_path: Path, encoding: str):
    write(tmp_path, GOOD)
    text = json.dumps(GOOD)
    mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
    (tmp_path / "instances_train.json").write_bytes((mark + text).encode(encoding))
    assert len(check_split(tmp_path, "train").split.boxes) == 3


def test_one_file_under_two_ids_is_named_and_its_second_boxes_left_out(tmp_path: Path):
    root = written(tmp_path, lambda coco: coco["images"][1].update(file_name="a.png"))
    checked = check_split(root, "train")
    (problem,) = checked.lost
    assert (problem.kind, problem.detail) == ("file of two images", "ids 1 and 2")
    assert len(checked.split.boxes) == 2


def test_an_image_replaced_by_one_of_equal_size_and_time_is_noticed(tmp_path: Path):
    write(tmp_path, GOOD)
    file = tmp_path / "train" / "a.bmp"
    coco = copy.deepcopy(GOOD)
    coco["images"][0]["file_name"] = "a.bmp"
    (tmp_path / "instances_train.json").write_text(json.dumps(coco))
    found, pixels = [], []
    for color in (10, 200):
        Image.new("RGB", (60, 40), (color,) * 3).save(file)
        os.utime(file, ns=(10**18, 10**18))
        split = check_split(tmp_path, "train").split
        found.append(fingerprint([split]))
        pixels.append(int(PixelCache(split, 40, 60, 10**8).read(0)[0, 0, 0]))
    assert found[0] != found[1]
    assert pixels == [10, 200]
    # A study of release 0.1.0 knew no more than the first half.
    assert found[0][:16] == found[1][:16]
    assert same_data(found[0][:16], found[1])
    assert not same_data(found[0], found[1])
    assert not same_data("0" * 16, found[1])


def test_splits_of_deep_images_have_one_white_level(tmp_path: Path):
    for split, brightest in (("train", 900), ("val", 3000)):
        write(tmp_path, GOOD, split)
        for name in ("a.png", "b.png"):
            values = np.full((40, 60), brightest, dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / split / name)
    train, val = usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    assert train.split.white_level == val.split.white_level == 4095
    (deep,) = (issue for issue in train.problems if issue.kind == "images of more than 8 bits")
    assert deep.detail == "values up to 3000, 12 bits: 0 to 4095 become 0 to 255"
    again = CocoSplit.from_coco(train.split.folder, train.split.to_coco())
    assert again.white_level == train.split.white_level
    alone = check_split(tmp_path, "train").split
    assert alone.white_level == 1023
    assert fingerprint([alone]) != fingerprint([train.split])


def test_images_with_more_objects_than_are_scored_are_warned_of(tmp_path: Path):
    def crowded(coco: dict[str, Any]) -> None:
        of = {"image_id": 1, "category_id": 3}
        boxes = [[1, 2, 3 + number / 9, 4] for number in range(101)]
        new = enumerate(boxes, start=1000)
        coco["annotations"] += [{"id": number, "bbox": bbox, **of} for number, bbox in new]

    (checked,) = check_splits(written(tmp_path, crowded), ["train"])
    (issue,) = [issue for issue in checked.problems if issue.warning]
    assert (issue.kind, issue.done) == ("image with more than 100 objects", "kept")
    assert issue.file == checked.split.images[0].file_name
    assert "COCO's metrics look at the best 100 detections" in issue.detail
