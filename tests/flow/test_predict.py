"""`nas predict`: the objects in images, by PyTorch and ONNX, whole and in tiles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import Json, Run, run_here
from PIL import Image
from safetensors.torch import load, save

from nas.api.evaluation import eval_loader
from nas.api.prediction import Predictor
from nas.data.validation import usable_splits
from nas.errors import SpecError
from nas.evaluation.coco import detect
from nas.evaluation.tile_merging import merged
from nas.export.bundle import read_bundle


@pytest.fixture(scope="module")
def bundle(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "one"
    sizes = ["--epochs", "2", "--image-size", "48", "--set", "detector.channels=32"]
    command = ["train", "C1-C1-C1-T1@16", "--data", digits, "--recipe", "tiny", *sizes]
    low = ["--set", "detector.score_threshold=0.01"]
    assert run_here("nas", *command, *low, "--detector", "fcos", "--out", out).code == 0
    return out


def results(found: Any) -> dict[str, list[dict[str, Any]]]:
    """COCO results by file name."""
    names = {image["id"]: Path(image["file_name"]).name for image in found["images"]}
    by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for row in found["annotations"]:
        by_name[names[row["image_id"]]].append(row)
    return by_name


def same(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], tolerance: float) -> None:
    assert len(mine) == len(theirs) > 0
    for one, other in zip(mine, theirs, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["score"] == pytest.approx(other["score"], abs=tolerance)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=100 * tolerance)


def test_the_objects_are_those_that_evaluation_scores(bundle: Path, digits: Path, nas_json: Json):
    found = results(nas_json("predict", bundle, digits / "val", "--score", 0))
    trained, detector = read_bundle(bundle)
    (checked,) = usable_splits(digits, ("val",), skip_broken=False)
    split, device = checked.split, torch.device("cpu")
    rows, _ = detect(detector, eval_loader(split, trained.recipe, device), split, device)
    labels = split.labels
    for image in split.images:
        theirs = [
            {**row, "category_id": labels[row["category_id"]]}
            for row in rows
            if row["image_id"] == image.id
        ]
        theirs.sort(key=lambda row: -row["score"])
        same(found[Path(image.file_name).name], theirs, 1e-5)


def outputs(*tensors: tuple[str, int, list[int], list[float]]) -> bytes:
    """An ONNX file that gives the same for every image."""
    onnx = pytest.importorskip("onnx")
    given = [onnx.helper.make_tensor(name, kind, dims, data) for name, kind, dims, data in tensors]
    nodes = [onnx.helper.make_node("Constant", [], [each.name], value=each) for each in given]
    infos = [onnx.helper.make_tensor_value_info(n, kind, dims) for n, kind, dims, _ in tensors]
    image = onnx.helper.make_tensor_value_info("image", 1, [1, 3, "h", "w"])
    graph = onnx.helper.make_graph(nodes, "g", [image], infos)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    made.ir_version = 10
    content: bytes = made.SerializeToString()
    return content


BOX, SCORE, LABEL = (
    ("boxes", 1, [1, 4], [1.0, 2.0, 9.0, 9.0]),
    ("scores", 1, [1], [0.5]),
    ("labels", 7, [1], [3]),
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: outputs(("map", 1, [1], [0.5])), "its outputs are map, not boxes, scores"),
        (lambda: outputs(BOX, SCORE, ("labels", 7, [1], [11])), "its labels are not 1 to 10"),
        (lambda: outputs(BOX, SCORE, ("labels", 7, [1], [-3])), "its labels are not 1 to 10"),
        (lambda: outputs(BOX, SCORE, ("labels", 7, [2], [1, 1])), "not of one number of objects"),
        (lambda: outputs(BOX, ("scores", 1, [1], [float("nan")]), LABEL), "are not finite"),
        (lambda: outputs(BOX, SCORE, LABEL, ("masks", 1, [1], [1.0])), "not a grid for each"),
    ],
)
def test_onnx_that_gives_something_else_is_a_line(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run, content: Any, words: str
):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    (other / "detector.onnx").write_bytes(content())
    code, out, said = nas("predict", other, digits / "val", "--onnx")
    assert (code, out) == (2, "")
    assert words in said
    assert len(said.splitlines()) == 1


def test_onnx_that_gives_boxes_anywhere_gives_them_within_the_image(
    bundle: Path, digits: Path, tmp_path: Path, nas_json: Json
):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    far = ("boxes", 1, [1, 4], [-1e30, -1.0, 1e30, 9.0])
    (other / "detector.onnx").write_bytes(outputs(far, SCORE, LABEL))
    found = results(nas_json("predict", other, digits / "val", "--onnx", "--draw", tmp_path))
    for (row,) in found.values():
        assert row["bbox"] == pytest.approx([0, 0, 64, 12], abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run, value: float
):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    path = other / "detector.safetensors"
    state = load(path.read_bytes())
    state["head.regression_head.bbox_reg.bias"][0] = value
    path.write_bytes(save(state))
    for words in (("predict", other, digits / "val"), ("evaluate", other, "--data", digits)):
        code, _, said = nas(*words)
        assert code == 2
        assert "is damaged: head.regression_head.bbox_reg.bias has values that are not" in said


def test_onnx_finds_the_same(bundle: Path, digits: Path, nas_json: Json):
    images = sorted((digits / "val").iterdir())[:3]
    by_torch, by_onnx = (
        results(nas_json("predict", bundle, *images, "--score", 0.05, *how))
        for how in ([], ["--onnx"])
    )
    for name, rows in by_torch.items():
        same(by_onnx[name], rows, 1e-4)


def test_files_are_written_and_broken_ones_named(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    images = tmp_path / "images" / "deep"
    images.mkdir(parents=True)
    first, second, *_ = sorted((digits / "val").iterdir())
    for source, name in ((first, "a.png"), (second, "b.png")):
        (images / name).write_bytes(source.read_bytes())
    (images / "c.png").write_bytes(b"no image")
    Image.fromarray(np.full((64, 64), 900, dtype=np.uint16)).save(images / "d.png")
    drawn, table = tmp_path / "drawn", tmp_path / "new" / "found.csv"
    flags = ["--score", 0.05, "--out", table, "--draw", drawn, "--batch", 2]
    ended = nas("predict", bundle, tmp_path / "images", *flags)
    assert ended.code == 1
    assert "c.png: is not an image" in ended.err
    assert "d.png: has values of more than 8 bits, up to 900: --white-level says" in ended.err
    assert "2 images, " in ended.out
    assert ended.out.rstrip().endswith("2 left out")
    assert {path.name for path in drawn.iterdir()} == {"a.png", "b.png"}
    with Image.open(drawn / "a.png") as picture, Image.open(first) as source:
        assert picture.size == source.size
    assert table.read_text().startswith("image,category,score,x,y,width,height\n")
    white = nas("predict", bundle, images / "d.png", "--white-level", 1023)
    assert white.code == 0
    pattern = nas("predict", bundle, f"{images}/[ab].png", "--out", tmp_path / "yolo")
    assert pattern.code == 0
    assert {path.name for path in (tmp_path / "yolo").iterdir()} == {"a.txt", "b.txt"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.png"], "there is no image, folder or pattern of images 'nowhere.png'"),
        (["."], "folder '.' has no images"),
        (["*.png"], "there is no image, folder or pattern of images '*.png'"),
    ],
)
def test_what_names_no_image(
    bundle: Path,
    tmp_path: Path,
    nas: Run,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
):
    monkeypatch.chdir(tmp_path)
    ended = nas("predict", bundle, *words)
    assert ended.code == 2
    assert said in ended.err


def test_arrays_and_pictures(bundle: Path, digits: Path):
    path = sorted((digits / "val").iterdir())[0]
    picture, predictor = Image.open(path), Predictor(bundle)
    by_path, by_picture, by_array = predictor([path, picture, np.asarray(picture)])
    assert (by_path.name, by_picture.name) == (str(path), "1")
    assert len(by_path) > 0
    for other in (by_picture, by_array):
        np.testing.assert_array_equal(other.boxes, by_path.boxes)
    with pytest.raises(SpecError, match="got ndarray, float64"):
        predictor([np.zeros((4, 4, 3))])
    with pytest.raises(SpecError, match="must have 8 bits; got mode I;16"):
        predictor([Image.fromarray(np.zeros((4, 4), dtype=np.uint16))])


def test_tiles_find_what_whole_images_show(bundle: Path, digits: Path, tmp_path: Path):
    """A scene of four images: each is a tile, and what is found there is found in the scene."""
    paths = sorted((digits / "val").iterdir())[:4]
    scene = Image.new("RGB", (128, 128))
    for number, path in enumerate(paths):
        scene.paste(Image.open(path), (64 * (number % 2), 64 * (number // 2)))
    scene.save(tmp_path / "scene.png")
    (whole,) = Predictor(bundle, tile=128)([tmp_path / "scene.png"])
    assert whole.boxes.shape[1:] == (4,)
    tiled = Predictor(bundle, tile=64)
    windows = [window for window, _ in tiled._parts(scene)]
    assert {(w.width, w.height) for w in windows} == {(64, 64)}
    (found,) = tiled([tmp_path / "scene.png"])
    assert (found.boxes >= 0).all()
    assert (found.boxes <= 128.001).all()
    crops = [part for _, part in tiled._parts(scene)]
    alone = Predictor(bundle)(crops)
    moved = [
        each.boxes + np.array([window.left, window.top] * 2)
        for window, each in zip(windows, alone, strict=True)
    ]
    everywhere = np.concatenate(moved)
    assert 0 < len(found) < len(everywhere)
    apart = np.abs(found.boxes[:, None] - everywhere[None]).max(axis=2).min(axis=1)
    assert (apart < 0.01).all()


def test_merging_by_hand():
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],  # whole
            [0, 0, 10, 6],  # a part of it, cut, surer
            [1, 1, 10, 10],  # nearly the whole, less sure
            [0, 0, 10, 10],  # of another class
            [30, 30, 40, 40],  # elsewhere, cut, and nobody has it whole
        ]
    )
    scores = torch.tensor([0.6, 0.9, 0.5, 0.4, 0.3])
    labels = torch.tensor([1, 1, 1, 2, 1])
    cut = torch.tensor([False, True, False, False, True])
    assert merged(boxes, scores, labels, cut).tolist() == [0, 3, 4]
    nothing = torch.zeros(0)
    assert merged(torch.zeros(0, 4), nothing, nothing, nothing.bool()).tolist() == []


def test_json_is_coco(bundle: Path, digits: Path, tmp_path: Path, nas_json: Json, nas: Run):
    image, out = sorted((digits / "val").iterdir())[0], tmp_path / "found.json"
    printed = nas_json("predict", bundle, image)
    assert nas("predict", bundle, image, "--out", out).code == 0
    assert json.loads(out.read_text()) == printed
