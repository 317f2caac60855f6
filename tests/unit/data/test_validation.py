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
from PIL import Image
from pycocotools import mask as coco_mask

from nas.data.coco import CocoSplit, fingerprint
from nas.data.image_cache import PixelCache
from nas.data.splits import read_index, write_index
from nas.data.validation import check_split, usable_splits
from nas.errors import DataError
from nas.reports.dataset import same_data

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
    [("{", "is not JSON.*line 1"), ("[]", "must have a list"), ("\xff\xfe", "not")],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: str, words: str):
    write(tmp_path, GOOD)
    (tmp_path / "instances_train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words) as error:
        check_split(tmp_path, "train")
    assert "instances_train.json" in str(error.value)


def test_categories_that_only_one_split_has_are_named(tmp_path: Path):
    write(tmp_path, GOOD)
    other = copy.deepcopy(GOOD)
    other["categories"][0]["name"] = "wolf"
    write(tmp_path, other, "val")
    with pytest.raises(DataError, match="category that 'train' does not have .'wolf', 1 boxes"):
        usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    _, val = usable_splits(tmp_path, ("train", "val"), skip_broken=True)
    assert [box.category_id for box in val.split.boxes] == [3, 3]
    other["annotations"][1]["category_id"] = 3  # none is a wolf now
    write(tmp_path, other, "val")
    _, val = usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    assert val.problems[-1].detail == "lacks 'dog'; lists without boxes 'wolf'"


def test_a_split_may_lack_categories_or_number_them_otherwise(tmp_path: Path):
    write(tmp_path, GOOD)
    other = copy.deepcopy(GOOD)
    other["categories"] = [{"id": 1, "name": "cat"}]
    other["annotations"] = [{**box, "category_id": 1} for box in other["annotations"]]
    write(tmp_path, other, "val")
    train, val = usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    assert val.split.categories == train.split.categories
    assert {box.category_id for box in val.split.boxes} == {3}
    assert val.problems[-1].detail == "lacks 'dog'; numbers otherwise 'cat'"


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


def written(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    coco = copy.deepcopy(GOOD)
    change(coco)
    return write(folder, coco)


def test_ids_of_any_kind_lead_to_the_same_boxes(tmp_path: Path):
    plain = check_split(write(tmp_path / "plain", GOOD), "train").split
    spellings = {
        "text": {1: "1", 2: "2"},
        "float": {1: 1.0, 2: "2.0"},
        "names": {1: "a frame", 2: "b"},
        "hashes": {1: 2**70, 2: str(2**70 + 1)},
    }
    for name, ids in spellings.items():

        def renamed(coco: dict[str, Any], ids: dict[int, Any] = ids) -> None:
            for image in coco["images"]:
                image["id"] = ids[image["id"]]
            for box in coco["annotations"]:
                box["image_id"] = ids[box["image_id"]]

        checked = check_split(written(tmp_path / name, renamed), "train")
        assert checked.lost == []
        files = {image.id: image.file_name for image in checked.split.images}
        assert all(abs(number) < 2**53 for number in files)
        expected = {image.id: image.file_name for image in plain.images}
        assert [(files[b.image_id], b.bbox) for b in checked.split.boxes] == [
            (expected[b.image_id], b.bbox) for b in plain.boxes
        ]


def test_categories_numbered_by_text_keep_their_boxes(tmp_path: Path):
    def renamed(coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            category["id"] = f"c{category['id']}"
        for box in coco["annotations"]:
            box["category_id"] = f"c{box['category_id']}"

    split = check_split(written(tmp_path, renamed), "train").split
    names = dict(split.categories)
    assert [names[box.category_id] for box in split.boxes] == ["cat", "dog", "cat"]


def boxes_of(coco: dict[str, Any], convert: Callable[[float, float, float, float], list]) -> None:
    for box in coco["annotations"]:
        box["bbox"] = convert(*box["bbox"])


@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda x, y, w, h: [x / 60, y / 40, w / 60, h / 40], "normalised: none of the 3 has"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "corners x1, y1, x2, y2"),
    ],
)
def test_boxes_in_another_form_are_refused(tmp_path: Path, convert: Callable, words: str):
    def changed(coco: dict[str, Any]) -> None:
        coco["annotations"][1]["bbox"] = [10, 20, 30, 15]
        boxes_of(coco, convert)

    checked = check_split(written(tmp_path, changed), "train")
    assert checked.lost[0].kind == "boxes in another form"
    assert words in checked.lost[0].detail
    with pytest.raises(DataError, match="boxes in another form"):
        usable_splits(tmp_path, ("train",), skip_broken=False)


def test_a_mask_without_a_box_has_the_box_of_its_pixels(tmp_path: Path):
    generator = np.random.default_rng(0)
    for number in range(8):
        pixels = np.zeros((40, 60), dtype=np.uint8, order="F")
        y, x = generator.integers(0, 30), generator.integers(0, 50)
        pixels[y : y + generator.integers(1, 10), x : x + generator.integers(1, 10)] = 1
        pixels[y, x] = 1
        code = coco_mask.encode(pixels)
        expected = tuple(coco_mask.toBbox(code).tolist())
        mask = {"size": [40, 60], "counts": code["counts"].decode()}
        root = written(
            tmp_path / str(number),
            lambda coco, mask=mask: coco["annotations"][0].update(bbox=None, segmentation=mask),
        )
        checked = check_split(root, "train")
        assert checked.split.boxes[0].bbox == expected
        assert [problem.kind for problem in checked.problems] == ["mask without a box"]
    polygon = [[5, 6, 25, 6, 25, 16, 5, 16]]
    root = written(
        tmp_path / "polygon",
        lambda coco: coco["annotations"][0].update(bbox=[], segmentation=polygon),
    )
    assert check_split(root, "train").split.boxes[0].bbox == (5, 6, 20, 10)


def test_one_area_for_all_boxes_is_no_area(tmp_path: Path):
    root = written(tmp_path, lambda coco: [box.update(area=1.0) for box in coco["annotations"]])
    checked = check_split(root, "train")
    assert [box.area for box in checked.split.boxes] == [200, 2400, 15.4375]
    (problem,) = checked.problems
    assert (problem.kind, problem.detail[:10]) == ("one area for all boxes", "3 of 1; wi")


def test_boxes_without_an_area_are_no_finding(tmp_path: Path):
    root = written(tmp_path, lambda coco: [box.pop("area") for box in coco["annotations"]])
    checked = check_split(root, "train")
    assert [box.area for box in checked.split.boxes] == [200, 2400, 15.4375]
    assert checked.problems == ()


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


def test_roboflows_category_above_all_others_is_left_out(tmp_path: Path):
    def root_added(coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            category["supercategory"] = "animals"
        coco["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})

    checked = check_split(written(tmp_path, root_added), "train")
    assert checked.split.categories == ((3, "cat"), (7, "dog"))
    assert [problem.kind for problem in checked.problems] == ["category above all others"]

    def used(coco: dict[str, Any]) -> None:
        root_added(coco)
        coco["annotations"][0]["category_id"] = 0

    checked = check_split(written(tmp_path / "used", used), "train")
    assert [name for _, name in checked.split.categories] == ["animals", "cat", "dog"]


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
    assert train.problems[-1].detail == "values up to 3000, 12 bits: 0 to 4095 become 0 to 255"
    again = CocoSplit.from_coco(train.split.folder, train.split.to_coco())
    assert again.white_level == train.split.white_level
    alone = check_split(tmp_path, "train").split
    assert alone.white_level == 1023
    assert fingerprint([alone]) != fingerprint([train.split])
