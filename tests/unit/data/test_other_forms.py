"""One data set in YOLO's and Pascal VOC's forms, written here by their definitions, is read as the
boxes that it was written from.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Run
from PIL import Image

from nas.data.split_index import read_index, write_index
from nas.data.validation import CheckedSplit, check_split, check_splits
from nas.errors import DataError

NAMES = ("ant", "bee")
SIZES = {"a": (64, 48), "b": (50, 80), "c": (40, 40)}
# Class and corners, in pixels; c has none.
OBJECTS = {
    "a": [(0, (0, 0, 64, 48)), (1, (10, 12, 30, 20))],
    "b": [(1, (5, 6, 25, 46))],
    "c": [],
}
FILES = {"train": ("a", "b", "c"), "val": ("b",)}


def image(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = SIZES[name]
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def yolo_line(name: str, kind: int, box: tuple[int, ...]) -> str:
    width, height = SIZES[name]
    left, top, right, bottom = box
    middle = (left + right) / 2 / width, (top + bottom) / 2 / height
    return f"{kind} {middle[0]} {middle[1]} {(right - left) / width} {(bottom - top) / height}"


def write_yolo(root: Path, images: str = "images/{}", labels: str = "labels/{}") -> Path:
    for split, names in FILES.items():
        for name in names:
            image(root / images.format(split) / f"{name}.png", name)
            lines = [yolo_line(name, *object_) for object_ in OBJECTS[name]]
            file = root / labels.format(split) / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            if lines:  # an image without objects has no file
                file.write_text("\n".join(lines) + "\n")
    return root


def write_voc(root: Path, first: int, folder: str = "") -> Path:
    """Corners from `first`: 1, and then the last pixel is included, or 0."""
    for split, names in FILES.items():
        if not folder:
            lists = root / "ImageSets" / "Main"
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image(root / (folder.format(split) or "JPEGImages") / f"{name}.png", name)
            objects = ""
            for kind, (left, top, right, bottom) in OBJECTS[name]:
                corners = (left + first, top + first, right, bottom)
                tags = "".join(
                    f"<{tag}>{value}</{tag}>"
                    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
                )
                objects += f"<object><name>{NAMES[kind]}</name><bndbox>{tags}</bndbox></object>"
            width, height = SIZES[name]
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            file = root / (folder.format(split) or "Annotations") / f"{name}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
            )
    return root


def boxes(checked: CheckedSplit) -> list[tuple[str, str, tuple[float, ...]]]:
    files = {image.id: Path(image.file_name).stem for image in checked.split.images}
    names = dict(checked.split.categories)
    return sorted(
        (files[box.image_id], names[box.category_id], tuple(round(x, 3) for x in box.bbox))
        for box in checked.split.boxes
    )


def expected(split: str) -> list[tuple[str, str, tuple[float, ...]]]:
    return sorted(
        (name, NAMES[kind], (left, top, right - left, bottom - top))
        for name in FILES[split]
        for kind, (left, top, right, bottom) in OBJECTS[name]
    )


def described(root: Path, text: str) -> Path:
    (root / "data.yaml").write_text(text)
    return root


def darknet(root: Path, above: str) -> Path:
    keys = f"classes = 2\ntrain = {above}train.txt\nvalid = {above}val.txt\n"
    (root / "obj.data").write_text(f"{keys}names = {above}obj.names\nbackup = backup/\n")
    (root / "obj.names").write_text("ant\nbee\n")
    for split, names in FILES.items():
        lines = [f"{above}obj_{split}_data/{name}.png" for name in names]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def apart(root: Path, annotations: str) -> Path:
    """Images and XML files of each split in folders of their own below it."""
    for split in FILES:
        for name, suffix in (("images", ".png"), (annotations, ".xml")):
            (root / split / name).mkdir()
            for file in (root / split).glob(f"*{suffix}"):
                file.rename(root / split / name / file.name)
    return root


YOLO: dict[str, Callable[[Path], Path]] = {
    "names in a list": lambda root: described(
        write_yolo(root), "train: images/train\nval: images/val\nnames: [ant, bee]\n"
    ),
    "names by number": lambda root: described(
        write_yolo(root),
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: ant, 1: bee}\n",
    ),
    "path of another machine": lambda root: described(
        write_yolo(root),
        "path: /home/of/another\ntrain: images/train\nval: images/val\nnames: [ant, bee]\n",
    ),
    "Roboflow's": lambda root: described(
        write_yolo(root, "{}/images", "{}/labels"),
        "train: ../train/images\nval: ../val/images\nnc: 2\nnames: ['ant', 'bee']\n",
    ),
    "folders of the splits' names": lambda root: described(
        write_yolo(root, "{}/images", "{}/labels"), "nc: 2\nnames: [ant, bee]\n"
    ),
    "one of them for each kind of file": lambda root: described(
        write_yolo(root), "names: [ant, bee]\n"
    ),
    "Darknet's, as CVAT writes it": lambda root: darknet(
        write_yolo(root, "obj_{}_data", "obj_{}_data"), "data/"
    ),
    "Darknet's, as Datumaro writes it": lambda root: darknet(
        write_yolo(root, "obj_{}_data", "obj_{}_data"), ""
    ),
}
VOC: dict[str, Callable[[Path], Path]] = {
    "from 1": lambda root: write_voc(root, 1),
    "from 0": lambda root: write_voc(root, 0),
    "beside the images": lambda root: write_voc(root, 1, "{}"),
    "in a folder for each split": lambda root: apart(write_voc(root, 1, "{}"), "annotations"),
    "in VOC's folder for each split": lambda root: apart(write_voc(root, 0, "{}"), "Annotations"),
}


CORNERS = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
NAMELESS = f"<annotation><object>{CORNERS}</object></annotation>"


@pytest.mark.parametrize("how", YOLO)
def test_yolo_has_the_same_images_boxes_and_classes(tmp_path: Path, how: str):
    train, val = check_splits(YOLO[how](tmp_path), ("train", "val"))
    assert (train.source.form, len(train.split.images), train.problems) == ("YOLO", 3, ())
    assert (boxes(train), boxes(val)) == (expected("train"), expected("val"))
    assert [name for _, name in train.split.categories] == list(NAMES)


@pytest.mark.parametrize("how", VOC)
def test_pascal_voc_has_the_same_images_boxes_and_classes(tmp_path: Path, how: str):
    train, val = check_splits(VOC[how](tmp_path), ("train", "val"))
    assert (train.source.form, len(train.split.images), train.problems) == ("Pascal VOC", 3, ())
    assert (boxes(train), boxes(val)) == (expected("train"), expected("val"))
    assert [name for _, name in train.split.categories] == list(NAMES)


def test_yolos_lists_of_images_and_polygons(tmp_path: Path):
    root = described(write_yolo(tmp_path), "train: train.txt\nval: images/val\nnames: [ant, bee]\n")
    (root / "train.txt").write_text("./images/train/a.png\n\nimages/train/c.png\n")
    label = root / "labels" / "train" / "a.txt"
    label.write_text("1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    checked = check_split(root, "train")
    assert [Path(image.file_name).name for image in checked.split.images] == ["a.png", "c.png"]
    (box,) = checked.split.boxes
    assert box.bbox == (16, 12, 16, 24)
    assert box.segmentation == [[16, 12, 32, 12, 32, 36]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2", "a class and 4 numbers, or 6 and more of a polygon, .* got 3"),
        ("0 x 0.5 0.2 0.2", "numbers are needed; got '0 x"),
        ("7 0.5 0.5 0.2 0.2", "class 7 has no name"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str, words: str):
    root = YOLO["names in a list"](tmp_path)
    (root / "labels" / "train" / "a.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(DataError, match=f"a.txt, line 2: {words}"):
        check_split(root, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", "a.xml is not XML"),
        (NAMELESS, "an object needs a name"),
        (
            "<annotation><object><name>x</name></object></annotation>",
            "'x' needs a bndbox with xmin",
        ),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "is not XML: unknown encoding"),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
            "is not XML: undefined entity",
        ),
    ],
)
def test_xml_that_has_no_boxes_is_named(tmp_path: Path, text: str, words: str):
    root = VOC["from 1"](tmp_path)
    (root / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(DataError, match=words):
        check_split(root, "train")


@pytest.mark.parametrize("width", ["9" * 400, "nan", "²", "-1", "1e400", "x", ""])
def test_a_width_that_is_none_is_that_of_the_image(tmp_path: Path, width: str):
    root = VOC["from 1"](tmp_path)
    file = root / "Annotations" / "a.xml"
    file.write_text(re.sub("<width>.*?</width>", f"<width>{width}</width>", file.read_text()))
    assert boxes(check_split(root, "train")) == expected("train")


def test_a_name_that_no_disk_has_is_refused(tmp_path: Path):
    root = VOC["from 1"](tmp_path / "voc")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\0b\n")
    with pytest.raises(DataError, match="null byte"):
        check_split(root, "train")
    root = YOLO["names in a list"](tmp_path / "yolo")
    (root / "train.txt").write_text("a\0b.jpg\n")
    described(root, "train: train.txt\nnames: [ant, bee]\n")
    with pytest.raises(DataError, match=r"no NUL; got 'a\\x00b.jpg'"):
        check_split(root, "train")


@pytest.mark.parametrize("place", ["/", "../..", "/proc", '"a\\0b"'])
def test_nothing_is_looked_for_outside_the_data_folder(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    """A whole file system takes hours."""
    root = YOLO["names in a list"](tmp_path / "data")
    described(root, f"train: {place}\nnames: [ant, bee]\n")
    looked: list[Path] = []
    monkeypatch.setattr("nas.data.yolo._below", lambda folder: looked.append(folder) or [])
    with pytest.raises(DataError, match="images must be in '.*data'"):
        check_split(root, "train")
    assert looked == []


def test_names_in_another_encoding_are_read_checked_and_parted(tmp_path: Path, nas: Run):
    """As archives of other systems leave them on this disk."""
    root = described(write_yolo(tmp_path / "data"), "train: images/train\nnames: [ant, bee]\n")
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        folder = root / kind / "train"
        (folder / f"a.{suffix}").rename(folder / f"\udce4.{suffix}")  # a byte of its own, 0xe4
        shutil.rmtree(root / kind / "val", ignore_errors=True)
    (root / "labels" / "train" / "c.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    train, val = check_splits(root, ("train", "val"))
    names = {image.file_name for each in (train, val) for image in each.split.images}
    assert "images/train/\udce4.png" in names
    write_index(tmp_path / "index", train.split)
    assert read_index(tmp_path / "index").images == train.split.images
    assert nas("check-data", root, "--report", tmp_path / "report.html").code == 0
    assert nas("convert", root, tmp_path / "plain").code == 0
    plain = check_splits(tmp_path / "plain", ("train", "val"))
    assert [boxes(each) for each in plain] == [boxes(train), boxes(val)]


def test_a_link_to_itself_is_no_image(tmp_path: Path):
    root = YOLO["names in a list"](tmp_path)
    (root / "images" / "train" / "z.png").symlink_to("z.png")
    checked = check_split(root, "train")
    assert boxes(checked) == expected("train")
    assert [(issue.kind, Path(issue.where).name) for issue in checked.lost] == [
        ("broken image", "z.png")
    ]


@pytest.mark.parametrize("names", ["5", "{a: b}", "[[1]]", "true"])
def test_names_of_any_form_are_read_or_refused(tmp_path: Path, names: str):
    root = described(YOLO["names in a list"](tmp_path), f"train: images/train\nnames: {names}\n")
    with pytest.raises(DataError, match="names must be a list|has no name"):
        check_split(root, "train")


def test_images_outside_the_data_folder_are_refused(tmp_path: Path):
    root = YOLO["names in a list"](tmp_path / "data")
    image(tmp_path / "a.png", "a")
    (root / "train.txt").write_text("../a.png\n")
    described(root, "train: train.txt\nnames: [ant, bee]\n")
    with pytest.raises(DataError, match="images must be in '.*data'; got .*a.png"):
        check_split(root, "train")


def flat(root: Path, form: str) -> Path:
    """All in one place, without splits; the image without objects has no file of its own."""
    for name in SIZES:
        image(root / ("JPEGImages" if form == "VOC" else "images") / f"{name}.png", name)
    if form == "VOC":
        write_voc(root / "other", 0)
        (root / "other" / "Annotations").rename(root / "Annotations")
    else:
        write_yolo(root / "other")
        (root / "other" / "labels" / "train").rename(root / "labels")
        (root / "classes.txt").write_text("ant\nbee\n")
    return root


@pytest.mark.parametrize("form", ["VOC", "YOLO"])
def test_a_data_set_without_splits_is_parted(tmp_path: Path, form: str):
    train, val = check_splits(flat(tmp_path, form), ("train", "val"), None)
    assert sorted(boxes(train) + boxes(val)) == expected("train")
    assert len(train.split.images) == 2
    assert len(val.split.images) == 1


def test_names_of_all_splits_are_voc_categories(tmp_path: Path):
    root = write_voc(tmp_path, 1)
    file = root / "Annotations" / "a.xml"  # of train alone
    file.write_text(file.read_text().replace("<name>ant</name>", "<name>bee</name>"))
    train, val = check_splits(root, ("val", "train"))
    assert train.split.categories == val.split.categories == ((1, "bee"),)
    file.write_text(file.read_text().replace("<name>bee</name>", "<name>ant</name>", 1))
    val, train = check_splits(root, ("val", "train"))  # the first split has no ant
    assert [name for _, name in val.split.categories] == ["ant", "bee"]
    assert not train.lost


def test_a_listed_image_without_xml_has_no_objects(tmp_path: Path):
    root = write_voc(tmp_path, 1)
    (root / "Annotations" / "c.xml").unlink()
    assert boxes(check_split(root, "train")) == expected("train")
    assert len(check_split(root, "train").split.images) == 3
    (root / "JPEGImages" / "c.png").unlink()
    with pytest.raises(DataError, match=r"c\.xml: No such file"):
        check_split(root, "train")


def test_corners_with_fractions_count_from_zero(tmp_path: Path):
    root = write_voc(tmp_path, 0)
    for file in (root / "Annotations").glob("*.xml"):
        text = file.read_text().replace("<xmin>0<", "<xmin>1<").replace("<ymin>0<", "<ymin>1<")
        file.write_text(text.replace("</ymax>", ".0</ymax>"))
    (first, _, _) = boxes(check_split(root, "train"))
    assert first == ("a", "ant", (1, 1, 63, 47))


def test_images_and_xml_in_folders_of_their_own(tmp_path: Path):
    """`images/` and `annotations/`, without splits."""
    root = flat(tmp_path, "VOC")
    (root / "JPEGImages").rename(root / "images")
    (root / "Annotations").rename(root / "annotations")
    train, val = check_splits(root, ("train", "val"))
    assert sorted(boxes(train) + boxes(val)) == expected("train")
