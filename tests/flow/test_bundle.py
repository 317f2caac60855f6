"""The winner goes home: exported, loaded in a fresh interpreter without us, scored again, trained
again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers.commands import Json, Run, run_here
from helpers.studies import trained_search
from safetensors.torch import load_file, save_file

from nas.artifacts.paths import LAST_WEIGHTS, WEIGHTS
from nas.errors import UserError
from nas.evaluation.coco import coco_metrics
from nas.export.backbone_source import backbone_source
from nas.export.bundle import (
    FILES,
    ONNX_FILES,
    read_bundle,
    read_description,
    write_bundle,
)
from nas.export.verify import verify
from nas.models.backbones import build_backbone
from nas.models.detectors import Detector
from nas.search.search import Search
from nas.study.leaderboard import leaderboard
from search_spaces.layout import Layout


@pytest.fixture(scope="module")
def study(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A finished search of two candidates."""
    return trained_search(
        tmp_path_factory.mktemp("search"), digits, **{"search.try": ["C1-C1-T2-T1@16"]}
    )


@pytest.fixture(scope="module")
def bundle(study: Search, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "best"
    command = ("nas-export", "--storage", study.spec.storage, "--out", out, "--no-onnx")
    assert run_here(*command).code == 0
    return out


def test_a_bundle_has_all_its_files(bundle: Path, study: Search):
    assert {entry.name for entry in bundle.iterdir()} == set(FILES)
    best = leaderboard(study.study)[0]
    said = yaml.safe_load((bundle / "backbone.yaml").read_text())
    assert Layout.from_dict(said["layout"]) == Layout.parse(best.user_attrs["layout"])
    assert said["figures"]["map"] == best.value
    assert said["origin"]["trial"] == best.number
    assert said["origin"]["data_fingerprint"] == study.facts.fingerprint
    assert said["origin"]["wall_s"] > 0
    assert set(said["origin"]["hardware"]) == {"device", "cpu", "threads"}
    assert read_description(bundle).request == study.study.user_attrs["nas_spec"]
    card = (bundle / "README.md").read_text()
    assert best.user_attrs["layout"] in card
    assert "{" not in re.sub(r"```.*?```", "", card, flags=re.DOTALL)


def test_onnx_files_are_there_unless_refused(
    study: Search, tmp_path: Path, nas: Run, monkeypatch: pytest.MonkeyPatch
):
    """Without the minute that writing them takes: what they hold is compared elsewhere."""

    def write(folder: Path, detector: Detector) -> list[str]:
        for name in ONNX_FILES:
            (folder / name).write_bytes(b"graph")
        return []

    monkeypatch.setattr("nas.export.bundle.write_onnx", write)
    for refused in ([], ["--no-onnx"]):
        out = tmp_path / f"bundle{len(refused)}"
        exported = nas("export", "--storage", study.spec.storage, "--out", out, *refused)
        assert exported.code == 0
        names = {entry.name for entry in out.iterdir()}
        assert names == ({*FILES} if refused else {*FILES, *ONNX_FILES})


@pytest.mark.long
def test_the_winners_onnx_files_give_its_outputs(study: Search, tmp_path: Path, nas: Run):
    command = ("--storage", study.spec.storage, "--out", tmp_path / "bundle")
    assert nas("export", *command).code == 0
    assert {entry.name for entry in (tmp_path / "bundle").iterdir()} == {*FILES, *ONNX_FILES}
    checks = nas("verify", tmp_path / "bundle", "--json").json["checks"]
    assert all(check["passed"] for check in checks)


def test_backbone_py_loads_without_us_and_gives_the_same_maps(bundle: Path, tmp_path: Path):
    script = f"""
import sys
sys.path.insert(0, {str(bundle)!r})
import torch
from backbone import load_backbone
images = torch.rand(2, 3, 70, 101, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    maps = load_backbone({str(bundle / "backbone.safetensors")!r}).eval()(images)
torch.save(maps, {str(tmp_path / "maps.pt")!r})
packages = ("nas", "search_spaces", "workers", "dashboards")
ours = [name for name in sys.modules if name.split(".")[0] in packages]
assert not ours, ours
"""
    subprocess.run([sys.executable, "-I", "-c", script], check=True, cwd=tmp_path)
    trained, detector = read_bundle(bundle)
    images = torch.rand(2, 3, 70, 101, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = detector.backbone.backbone(images)
    for mine, yours in zip(torch.load(tmp_path / "maps.pt"), expected, strict=True):
        assert torch.equal(mine, yours)
    assert [x.shape[1] for x in expected] == list(trained.layout.widths)


@pytest.mark.parametrize(
    "text", ["C2-T1-T3-C1@16", "T2-T2-T6-T2+window=8", "C1-C1-C1-C1@20,16,40,24+norm=gn+stem=patch"]
)
def test_written_source_is_the_same_network_for_every_layout(text: str):
    layout, scope = Layout.parse(text), {"__name__": "backbone"}
    exec(compile(backbone_source(layout), "backbone.py", "exec"), scope)
    theirs, ours = scope["build_backbone"]().eval(), build_backbone(layout).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert all(torch.equal(x, y) for x, y in zip(theirs(images), ours(images), strict=True))


def test_weights_in_both_files_agree(bundle: Path):
    detector, backbone = (
        load_file(bundle / "detector.safetensors"),
        load_file(bundle / "backbone.safetensors"),
    )
    assert backbone
    assert all(
        torch.equal(detector[f"backbone.backbone.{name}"], tensor)
        for name, tensor in backbone.items()
    )


def test_evaluation_of_the_bundle_repeats_the_score(
    bundle: Path, study: Search, digits: Path, nas_json: Json
):
    metrics = nas_json("evaluate", bundle, "--data", digits)
    best = leaderboard(study.study)[0]
    assert metrics["map"] == pytest.approx(best.value, abs=1e-4)
    assert metrics["map_50"] == pytest.approx(best.user_attrs["map_50"], abs=1e-4)
    assert metrics["map_per_class"] == pytest.approx(best.user_attrs["map_per_class"], abs=1e-4)
    assert metrics["images"] == 8


def test_what_is_found_is_written_and_what_is_wrong_is_sorted(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run, nas_json: Json
):
    out = tmp_path / "new" / "found.json"
    flags = ["--out", out, "--confusion", "--errors", "--score", 0.05]
    said = nas_json("evaluate", bundle, "--data", digits, *flags)
    truth = digits / "instances_val.json"
    assert coco_metrics(truth, json.loads(out.read_text())).map == pytest.approx(said["map"])
    matrix, objects = said["confusion"], json.loads(truth.read_text())["annotations"]
    assert matrix["classes"] == [*"0123456789", "background"]
    assert sum(sum(row) for row in matrix["counts"][:-1]) == len(objects)
    assert said["errors"]["ap"] == pytest.approx(said["map_50"])
    code, table, _ = nas("evaluate", bundle, "--data", digits, "--confusion", "--errors")
    assert code == 0
    assert "Found as, from IoU 0.5 and score 0.3" in table
    assert "localisation" in table


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "found.csv"], "--out must be a file that ends in .json; got 'found.csv'"),
        (["--iou", "50"], "--iou must be above 0.1 and at most 1; got 50"),
        (["--score", "-1"], "--score must be 0 to 1; got -1"),
    ],
)
def test_what_cannot_be_written_or_counted(
    bundle: Path, digits: Path, nas: Run, flags: list[str], said: str
):
    ended = nas("evaluate", bundle, "--data", digits, *flags)
    assert (ended.code, ended.err) == (2, f"nas: {said}\n")


def test_other_categories_are_refused(bundle: Path, bccd: Path, nas: Run):
    refused = nas("evaluate", bundle, "--data", bccd)
    assert refused.code == 2
    assert "must have the bundle's categories" in refused.err


def test_a_bundle_is_replaced_and_nothing_else_is(
    bundle: Path, study: Search, tmp_path: Path, nas_json: Json
):
    out = tmp_path / "best"
    for _ in range(2):
        said = nas_json("export", "--storage", study.spec.storage, "--out", out, "--no-onnx")
        assert said["layout"] == read_description(bundle).layout.__str__()
    assert {entry.name for entry in tmp_path.iterdir()} == {"best"}


def test_the_other_trial_can_be_exported(study: Search, tmp_path: Path, nas_json: Json):
    second = leaderboard(study.study)[1]
    assert (
        nas_json(
            "export",
            "--storage",
            study.spec.storage,
            "--out",
            tmp_path / "b",
            "--trial",
            str(second.number),
            "--no-onnx",
        )["number"]
        == second.number
    )
    assert str(read_description(tmp_path / "b").layout) == second.user_attrs["layout"]


def test_weights_of_the_last_epoch_come_along_where_they_were_kept(bundle: Path, tmp_path: Path):
    weights, last = tmp_path / WEIGHTS, tmp_path / LAST_WEIGHTS
    shutil.copy(bundle / WEIGHTS, weights)
    state = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    save_file(state, last)
    out, said = tmp_path / "both", read_description(bundle)
    write_bundle(out, said, weights, onnx=False)
    assert {entry.name for entry in out.iterdir()} == {*FILES, LAST_WEIGHTS}
    written = load_file(out / LAST_WEIGHTS)
    assert all(torch.equal(written[name], state[name]) for name in state)
    assert LAST_WEIGHTS in [check.name for check in verify(out)[2]]
    last.unlink()
    write_bundle(out, said, weights, onnx=False)  # over a bundle that has them
    assert {entry.name for entry in out.iterdir()} == set(FILES)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "detector.yaml").unlink(), "cannot be read"),
        (lambda folder: (folder / "detector.yaml").write_text("a: ["), "is not YAML"),
        (
            lambda folder: (folder / "detector.yaml").write_text("format: 3"),
            "has format 3; this version reads 1 and 2",
        ),
        (lambda folder: (folder / "detector.yaml").write_text("format: 1"), "is damaged"),
        (
            lambda folder: (folder / "detector.safetensors").write_bytes(b"x" * 100),
            "cannot be read",
        ),
        (
            lambda folder: (folder / "backbone.safetensors").rename(
                folder / "detector.safetensors"
            ),
            "is damaged",
        ),
    ],
)
def test_damaged_bundles_say_so(
    bundle: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    damage(copy)
    with pytest.raises(UserError, match=words):
        read_bundle(copy)


def test_train_goes_on_from_a_layout_and_from_a_bundle(
    bundle: Path, digits: Path, tmp_path: Path, nas_json: Json
):
    from_layout = nas_json(
        "train",
        "C1-C1-T1-T1@16",
        "--data",
        digits,
        "--recipe",
        "tiny",
        "--detector",
        "faster_rcnn",
        "--epochs",
        "1",
        "--image-size",
        "48",
        "--set",
        "detector.channels=32",
        "--set",
        "detector.hidden=64",
        "--no-onnx",
        "--out",
        tmp_path / "one",
    )
    assert from_layout["layout"] == "C1-C1-T1-T1@16"
    assert nas_json("evaluate", tmp_path / "one", "--data", digits)["map"] == pytest.approx(
        from_layout["map"], abs=1e-4
    )
    again = nas_json(
        "train", bundle, "--data", digits, "--out", tmp_path / "two", "--epochs", "1", "--no-onnx"
    )
    trained = read_description(tmp_path / "two")
    assert trained.layout == read_description(bundle).layout
    assert (trained.recipe.epochs, trained.recipe.image_size) == (1, 64)
    assert again["epochs"] == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "one",
        "one.curves",
        "two",
        "two.curves",
    }


def test_list_status_and_profile(study: Search, nas_json: Json):
    (row,) = nas_json("list", "--storage", study.spec.storage)
    assert (row["study"], row["complete"], row["running"], row["space"]) == ("digits", 2, 0, "tiny")
    status = nas_json("status", "--storage", study.spec.storage)
    assert [trial["state"] for trial in status["trials"]] == ["COMPLETE", "COMPLETE"]
    assert status["nas_data"]["fingerprint"] == study.facts.fingerprint
    swin, hybrid = nas_json(
        "profile",
        "T2-T2-T6-T2",
        "C2-C2-T12-T4",
        "--detector",
        "fcos",
        "--image-size",
        "224",
        "--images",
        "1",
    )
    assert (swin["params"], hybrid["params"]) == (35734548, 59509898)
    assert swin["memory_predicted_gib"] == pytest.approx(
        sum(swin["memory_by_part_gib"].values()), abs=1e-3
    )


def test_a_searchs_candidate_is_reproduced_to_the_digit(bundle: Path, digits: Path, nas_json: Json):
    again = nas_json("reproduce", bundle, "--data", digits)
    assert again["map"] == again["map_before"]
    assert again["differing"] == []
