"""The split that is held out of a data set without one: a fifth, in every category, with what
belongs together on one side.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import GOOD, write
from PIL import Image

from nas.data.file_names import stated_name
from nas.data.holdout import _Parts, _without_number, choose, part_of
from nas.data.split_source import Places, find_split, find_splits
from nas.data.validation import check_splits
from nas.errors import DataError


def photographs(count: int, kinds: int, seed: int = 0) -> list[Counter[Hashable]]:
    """Objects of random kinds, common ones and rare ones."""
    rng = random.Random(seed)
    return [
        Counter(min(int(rng.expovariate(0.7)), kinds - 1) for _ in range(rng.randrange(5)))
        for _ in range(count)
    ]


@pytest.mark.parametrize(("count", "kinds"), [(100, 3), (400, 8), (60, 1)])
def test_a_fifth_of_the_images_and_of_every_category(count: int, kinds: int):
    objects = photographs(count, kinds)
    chosen = choose([f"img{index}.jpg" for index in range(count)], objects)
    assert 0.15 < len(chosen) / count < 0.25
    total = sum(objects, Counter[Hashable]())
    held = sum((objects[index] for index in chosen), Counter[Hashable]())
    for kind, number in total.items():
        assert number - held[kind] > 0
        if number >= 20:
            assert 0.1 < held[kind] / number < 0.32


def test_names_of_halves_of_characters_are_parted_too():
    names = [f"\ud800{number}.jpg" for number in range(9)] + ["\udcff.jpg"]
    assert 1 <= len(choose(names, [Counter(["a"])] * 10)) <= 3


def test_the_rarest_category_is_placed_first_however_many_there_are():
    """Written out in the plain way, which takes the square of their number."""
    rng = random.Random(0)
    kinds: list[Hashable] = [None, "None", 1, "x1", *(f"k{number}" for number in range(9))]
    for _ in range(50):
        parts = _Parts([1] * 8, [Counter(rng.choices(kinds, k=3)) for _ in range(8)])
        for kind in parts.rarest():
            left = {each: n for each, n in parts.left.items() if n}
            assert (left[kind], str(kind)) == min((n, str(each)) for each, n in left.items())
            for which in [each for each in parts.waiting if kind in parts.counts[each]]:
                parts.place(which, kind)
        assert not any(parts.left.values())
    began_s = time.process_time()
    count = 20_000
    choose([f"{number}.jpg" for number in range(count)], [Counter([n]) for n in range(count)])
    assert time.process_time() - began_s < 20


def test_the_number_of_a_frame_by_an_expression():
    """One that says the same, and takes hours for the last name."""
    expression = re.compile(r"[\W_]*(frame|f)?[\W_]*\d+$", re.IGNORECASE)
    rng = random.Random(0)
    for _ in range(3000):
        name = "".join(rng.choice("aF_f-1 2frme.é٣²") for _ in range(rng.randrange(9)))
        name += rng.choice(["", "", "frame1", "_FRAME_01", "f2"])
        assert _without_number(name) == expression.sub("", name)
    assert _without_number("_" * 100_000 + "x") == "_" * 100_000 + "x"
    assert _without_number("1x" * 100_000 + "_f_1") == "1x" * 100_000


def test_the_names_alone_decide():
    objects = photographs(50, 3)
    names = [f"{index:03d}.jpg" for index in range(50)]
    order = list(range(50))
    random.Random(1).shuffle(order)
    again = choose([names[i] for i in order], [objects[i] for i in order])
    assert {names[i] for i in choose(names, objects)} == {names[order[i]] for i in again}


@pytest.mark.parametrize(
    "frame", ["clip{v}_frame_{f:04d}.png", "clip{v}/{f:06d}.jpg", "clip{v}-{f}.jpg"]
)
def test_frames_of_one_video_stay_together(frame: str):
    names = [frame.format(v=chr(97 + v), f=f) for v in range(12) for f in range(15)]
    chosen = choose(names, photographs(len(names), 3))
    videos = Counter(index // 15 for index in chosen)
    assert videos
    assert set(videos.values()) == {15}
    assert 0.1 <= len(chosen) / len(names) <= 0.34
    backwards = choose(names[::-1], photographs(len(names), 3)[::-1])
    assert {names[::-1][index] for index in backwards} == {names[index] for index in chosen}


def test_copies_of_one_image_stay_together():
    names = [f"cell{i}_jpg.rf.{c}{i}abc.jpg" for i in range(40) for c in "xyz"]
    chosen = choose(names, photographs(len(names), 3))
    assert set(Counter(index // 3 for index in chosen).values()) == {3}
    assert 0.1 <= len(chosen) / len(names) <= 0.3


def test_names_of_categories_are_no_videos():
    """`Abyssinian_1.jpg`: held out by its name, a breed would be in one part alone."""
    names = [f"breed{chr(97 + b)}_{n}.jpg" for b in range(10) for n in range(20)]
    chosen = choose(names, [Counter([index // 20]) for index in range(200)])
    held = Counter(index // 20 for index in chosen)
    assert len(held) == 10
    assert set(held.values()) <= {3, 4, 5}


def test_few_images_and_rare_categories():
    assert len(choose(["a", "b", "c"], [Counter([1])] * 3)) == 1
    names = [f"{index}.jpg" for index in range(100)]
    alone = choose(names, [Counter([index]) for index in range(100)])  # each category once
    assert len(alone) == 0 or alone < set(range(100))
    mixed = choose(names, [Counter([index, "common"]) for index in range(100)])
    assert mixed < set(range(100))


def test_annotations_follow_their_images_however_ids_are_written():
    content: dict[str, Any] = {
        "images": [{"id": str(index), "file_name": f"{index}.jpg"} for index in range(30)],
        "annotations": [{"image_id": index, "category_id": 1} for index in range(30)] * 2,
        "categories": [{"id": 1, "name": "a"}],
    }
    content["annotations"].append({"image_id": "nowhere", "category_id": 1})
    train, val = (part_of(content, held_out=out) for out in (False, True))
    assert len(train["images"]) + len(val["images"]) == 30
    assert 4 <= len(val["images"]) <= 8
    for part in (train, val):
        ids = {int(entry["id"]) for entry in part["images"]}
        inside = [e for e in part["annotations"] if e["image_id"] != "nowhere"]
        assert Counter(entry["image_id"] for entry in inside) == dict.fromkeys(ids, 2)
    assert [e["image_id"] for e in train["annotations"]].count("nowhere") == 1


def many(root: Path, file: str, images: str, count: int = 20) -> Path:
    """A data set with one annotation file."""
    content: dict[str, Any] = {"categories": GOOD["categories"], "images": [], "annotations": []}
    for index in range(count):
        path = root / images / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (index, 0, 0)).save(path)
        size = {"width": 60, "height": 40}
        content["images"].append({"id": index, "file_name": f"{index}.png", **size})
        box = {"id": index + 1, "image_id": index, "category_id": 3, "bbox": [index, 5, 20, 30]}
        content["annotations"].append(box)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_default.json", "images/default"),
        ("result.json", "images"),
        ("_annotations.coco.json", "."),
        ("train/_annotations.coco.json", "train"),
        ("my cells.json", "pictures"),
    ],
)
def test_a_data_set_of_one_file_is_parted(tmp_path: Path, file: str, images: str):
    train, val = check_splits(many(tmp_path, file, images), ("train", "val"))
    assert (train.problems, val.problems) == ((), ())
    assert len(train.split.images) + len(val.split.images) == 20
    assert 3 <= len(val.split.images) <= 5
    names = [{image.file_name for image in each.split.images} for each in (train, val)]
    assert not names[0] & names[1]
    assert val.source.part == f"a fifth of the images of {Path(file).name}"
    alone = find_split(tmp_path, "val").read()  # as `nas evaluate` asks for it
    assert {stated_name(entry) for entry in alone["images"]} == {
        Path(name).name for name in names[1]
    }


def test_a_data_set_with_val_keeps_all_of_train(tmp_path: Path):
    root = many(tmp_path, "instances_train.json", "train")
    write(root, GOOD, "val")
    assert [len(each.split.images) for each in check_splits(root, ("train", "val"))] == [20, 2]
    assert len(find_split(root, "train").read()["images"]) == 20
    (root / "instances_val.json").rename(root / "instances_test.json")
    assert len(find_splits(root, ("train", "test"))[0].read()["images"]) == 20
    assert len(find_splits(root, ("train", "val"))[0].read()["images"]) < 20
    with pytest.raises(DataError, match="no split 'validate'"):
        find_splits(root, ("train", "validate"))


def test_a_request_names_file_and_folder(tmp_path: Path):
    root = many(tmp_path, "meta/a/first.json", "raw/pictures")
    many(tmp_path, "meta/a/second.json", "raw/pictures", 9)
    with pytest.raises(DataError, match="--set data.annotations=FILE"):
        find_splits(root, ("train", "val"))
    places = Places("meta/a/SPLIT.json", "raw/pictures")
    first, second = find_splits(root, ("first", "second"), places)
    assert (len(first.read()["images"]), len(second.read()["images"])) == (20, 9)
    assert first.images == root / "raw" / "pictures"
    train, val = find_splits(root, ("train", "val"), Places("meta/a/second.json", "raw/pictures"))
    assert len(train.read()["images"]) + len(val.read()["images"]) == 9


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (Places("meta/none.json"), "there is no .*meta/none.json"),
        (Places("result.json", "elsewhere"), "data.images must be a folder below"),
        (Places("result.json", "../outside"), "data.images must be a folder below"),
    ],
)
def test_places_that_are_not_there_are_named(tmp_path: Path, places: Places, said: str):
    (tmp_path / "outside").mkdir()
    root = many(tmp_path / "data", "result.json", "images")
    with pytest.raises(DataError, match=said):
        find_splits(root, ("train", "val"), places)


def test_two_files_are_not_guessed_between(tmp_path: Path):
    root = many(many(tmp_path, "one.json", "images"), "two.json", "images")
    with pytest.raises(DataError, match="no split 'train'"):
        find_splits(root, ("train", "val"))


def test_too_few_images_to_part(tmp_path: Path):
    root = many(tmp_path, "result.json", "images", 2)
    with pytest.raises(DataError, match="2 images are too few to hold some out"):
        check_splits(root, ("train", "val"))
    train, val = check_splits(many(tmp_path, "result.json", "images", 3), ("train", "val"))
    assert (len(train.split.images), len(val.split.images)) == (2, 1)
