"""Layouts of data folders that other programs write, and names of files as they write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from nas.data.file_names import ImageFiles, stated_name
from nas.data.split_source import find_split
from nas.errors import DataError

# Annotation file and image folder of a training split, below the data folder.
LAYOUTS = {
    "ours": ("instances_train.json", "train"),
    "COCO": ("annotations/instances_train2017.json", "train2017"),
    "COCO of 2014": ("annotations/instances_train2014.json", "train2014"),
    "Roboflow": ("train/_annotations.coco.json", "train"),
    "CVAT": ("annotations/instances_train.json", "images/train"),
    "one folder": ("annotations/train.json", "images"),
    "FiftyOne": ("train/labels.json", "train/data"),
    "beside": ("train.json", "images/train"),
    "LVIS": ("annotations/lvis_v1_train.json", "train2017"),
    "all in one": ("train.json", "."),
}


def made(root: Path, annotations: str, images: str) -> Path:
    for file in (root / annotations, root / images / "a.jpg"):
        file.parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).write_text("{}")
    Image.new("RGB", (8, 8)).save(root / images / "a.jpg")
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found(tmp_path: Path, layout: str):
    annotations, images = LAYOUTS[layout]
    found = find_split(made(tmp_path, annotations, images), "train")
    assert found.annotations == tmp_path / annotations
    file = ImageFiles(found.images).find("a.jpg")
    assert file
    assert (found.images / file).resolve() == (tmp_path / images / "a.jpg").resolve()


def test_validation_splits_are_found_under_their_other_names(tmp_path: Path):
    made(tmp_path, "valid/_annotations.coco.json", "valid")
    assert find_split(tmp_path, "val").images == tmp_path / "valid"
    with pytest.raises(DataError, match="no split 'train' .*there is valid/"):
        find_split(tmp_path, "train")
    with pytest.raises(DataError, match="does not exist"):
        find_split(tmp_path / "nowhere", "train")


def test_a_folder_of_labels_is_no_folder_of_images(tmp_path: Path):
    made(tmp_path, "annotations/instances_train.json", "images/train")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.txt").write_text("")
    assert find_split(tmp_path, "train").images == tmp_path / "images" / "train"


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    for name in ("a.jpg", "sub/b.JPG", "sub/c d.png", "other/a.jpg", "Caf\u00e9.png"):
        path = tmp_path / unicodedata.normalize("NFD", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return ImageFiles(tmp_path)


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("sub\\b.JPG", "sub/b.JPG"),
        ("sub/b.jpg", "sub/b.JPG"),
        ("sub/c%20d.png", "sub/c d.png"),
        ("C:\\Users\\me\\train\\sub\\b.JPG", "sub/b.JPG"),
        ("/mnt/data/train/a.jpg", "a.jpg"),
        ("images/train/b.jpg", "sub/b.JPG"),
        ("images/train/a.jpg", "a.jpg"),
        ("../other/a.jpg", "other/a.jpg"),
        ("nowhere.jpg", None),
        ("", None),
        ("/", None),
        ("a/" * 500_000 + "a.jpg", None),  # looked for part by part it would take an hour
    ],
)
def test_names_of_other_machines_are_found(files: ImageFiles, stated: str, found: str | None):
    assert files.find(stated) == found


def test_a_name_is_found_in_the_other_unicode_form(files: ImageFiles):
    found = files.find("Caf\u00e9.png")
    assert found is not None
    assert unicodedata.normalize("NFC", found) == "Caf\u00e9.png"
    assert (files.folder / found).is_file()


def test_two_files_that_differ_in_case_are_not_guessed_between(tmp_path: Path):
    for name in ("x.jpg", "X.jpg"):
        (tmp_path / name).write_bytes(b"")
    if len(list(tmp_path.iterdir())) == 2:  # a disk that tells them apart
        assert ImageFiles(tmp_path).find("x.JPG") is None
        assert ImageFiles(tmp_path).find("X.jpg") == "X.jpg"


def test_lvis_names_its_files_by_urls():
    url = "http://images.cocodataset.org/train2017/000000391895.jpg?x=1"
    assert stated_name({"coco_url": url}) == "train2017/000000391895.jpg"
    assert stated_name({"file_name": "a.jpg", "coco_url": url}) == "a.jpg"
    assert stated_name({"file_name": ""}) is None
