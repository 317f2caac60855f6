"""A data set that was converted is read as the one that it was made from; and archives, copies and
objects that training would lose.
"""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_files import GOOD, append, write, written
from PIL import Image

from nas.config.recipe import Recipe
from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.conversion import write_coco
from nas.data.training_size import crowded_images, vanishing_boxes
from nas.data.validation import check_split, check_splits, usable_splits
from nas.errors import DataError, OutputError
from nas.utils.paths import localize


def test_what_was_converted_is_the_same(tmp_path: Path):
    write(tmp_path / "in", GOOD)
    write(tmp_path / "in", GOOD, "valid")
    before = check_splits(tmp_path / "in", ("train", "val"))
    write_coco(tmp_path / "out", [(each.name, each.split) for each in before])
    after = check_splits(tmp_path / "out", ("train", "val"))
    for old, new in zip(before, after, strict=True):
        assert new.problems == ()
        assert new.split.to_coco() == old.split.to_coco()
        assert new.digests == old.digests
    with pytest.raises(OutputError, match="is there already; name a new folder"):
        write_coco(tmp_path / "out", [])


def test_a_turned_photograph_stays_upright(tmp_path: Path):
    coco = copy.deepcopy(GOOD)
    write(tmp_path / "in", coco)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((60, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "train" / "a.png", exif=exif)
    before = check_split(tmp_path / "in", "train")
    write_coco(tmp_path / "out", [("train", before.split)])
    assert check_split(tmp_path / "out", "train").split.to_coco() == before.split.to_coco()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    localize.cache_clear()
    return tmp_path / "cache"


@pytest.mark.parametrize("above", ["", "cells/"])
def test_a_zip_file_is_unpacked_once(tmp_path: Path, cache: Path, above: str):
    write(tmp_path / "in", GOOD)
    archive = tmp_path / "cells.ZIP"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted((tmp_path / "in").rglob("*.*")):
            opened.write(path, above + path.relative_to(tmp_path / "in").as_posix())
        opened.writestr("__MACOSX/._a.png", b"x")
    folder = localize(str(archive))
    assert folder.is_relative_to(cache)
    assert check_split(folder, "train").split.to_coco()["annotations"]
    localize.cache_clear()
    made = (folder / "train" / "a.png").stat().st_mtime_ns
    assert localize(str(archive)) == folder
    assert (folder / "train" / "a.png").stat().st_mtime_ns == made


def test_a_folder_that_holds_one_folder(tmp_path: Path, cache: Path):
    write(tmp_path / "cells" / "cells", GOOD)
    (tmp_path / "cells" / ".DS_Store").write_bytes(b"")
    assert localize(str(tmp_path / "cells")) == tmp_path / "cells" / "cells"
    write(tmp_path / "part", GOOD)
    (tmp_path / "part" / "instances_train.json").unlink()
    assert localize(str(tmp_path / "part")) == tmp_path / "part"  # `train` alone


def test_a_zip_file_stays_in_its_folder(tmp_path: Path, cache: Path):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../../outside.txt", b"x")
        opened.writestr("/absolute.txt", b"x")
    folder = localize(str(archive))
    assert {path.name for path in folder.rglob("*.txt")} == {"outside.txt", "absolute.txt"}
    assert not (tmp_path / "outside.txt").exists()


def test_a_broken_zip_file_is_named(tmp_path: Path, cache: Path):
    archive = tmp_path / "cells.zip"
    archive.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"zip file '.*cells\.zip' cannot be unpacked"):
        localize(str(archive))
    with pytest.raises(DataError, match="does not exist"):
        check_split(localize(str(tmp_path / "none.zip")), "train")


def test_images_of_two_splits_are_named(tmp_path: Path):
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "val")
    for name, source in (("val/b.png", "train/a.png"), ("train/b.png", "train/a.png")):
        (tmp_path / name).write_bytes((tmp_path / source).read_bytes())
    train, val = check_splits(tmp_path, ("train", "val"))
    (within,), (between,) = train.problems, val.problems
    assert (within.kind, within.file, within.detail) == (
        "image that its split has twice",
        "b.png",
        "as a.png",
    )
    assert (between.kind, between.detail) == (
        "image that another split has too",
        "a.png of 'train'",
    )
    assert within.warning
    assert between.done == "kept"
    assert not train.lost + val.lost


def objects(*sides: float) -> CocoSplit:
    image = ImageRecord(1, "a.png", 1000, 500)
    boxes = tuple(
        Box(i, 1, 1, (0.0, 0.0, side, 50.0), 50 * side, 0) for i, side in enumerate(sides)
    )
    return CocoSplit(Path(), (image,), boxes, ((1, "a"),))


def made(size: int, largest: int, **more: object) -> Recipe:
    keys = {"epochs": 1, "batch": 4, "lr": 1e-3, "image_size": size, "max_size": largest}
    return Recipe.model_validate(keys | more)


def test_boxes_that_vanish_at_the_training_size():
    """Made 100 high, an image of 500 is at a fifth: 5 pixels become one, 4.9 less."""
    recipe = made(100, 1000)
    assert vanishing_boxes(objects(5, 4.9, 2, 30), recipe) == 2
    assert vanishing_boxes(objects(5, 10), made(100, 100)) == 1
    both = made(200, 1000, train_sizes=(50, 200))
    assert vanishing_boxes(objects(9.9, 10), both) == 1
    with pytest.raises(DataError, match=r"all 2 training boxes .* 'nas tile'"):
        vanishing_boxes(objects(2, 3), recipe)
    assert vanishing_boxes(objects(), recipe) == 0


def test_more_objects_than_detections():
    split = objects(*range(1, 12))
    assert [crowded_images(split, most) for most in (10, 11)] == [1, 0]


def test_missing_images_are_named_before_boxes(tmp_path: Path):
    box = {"id": 4, "image_id": 2, "category_id": 3, "bbox": [70, 70, 5, 5]}
    root = written(tmp_path, append("annotations", box))
    for name in ("a.png", "b.png"):
        (root / "train" / name).unlink()
    with pytest.raises(DataError, match=r"has no usable image: a\.png: missing image"):
        usable_splits(root, ("train",), skip_broken=True)


def test_json_of_a_conversion_is_plain(tmp_path: Path):
    write(tmp_path / "in", GOOD)
    write_coco(tmp_path / "out", [("train", check_split(tmp_path / "in", "train").split)])
    assert set(json.loads((tmp_path / "out" / "instances_train.json").read_text())) == {
        "images",
        "annotations",
        "categories",
    }
