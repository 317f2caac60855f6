"""Searches as a user runs them, in full: on digits with `make search`, on real photographs with
`nas-submit`.
"""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest
from helpers.commands import BIN, Json, Run, run_here, run_program

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
def test_make_search(tmp_path: Path, nas_json: Json):
    """With this environment in place of a new one: the installation is not what is tested here."""
    venv = BIN.parent
    (venv / "installed-all").touch()
    command = ["make", "search", f"DEMO={tmp_path / 'demo'}", f"VENV={venv}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    status = nas_json("status", "--storage", f"sqlite:///{tmp_path}/demo/nas.db")
    complete = [trial for trial in status["trials"] if trial["state"] == "COMPLETE"]
    assert len(complete) >= 6
    assert len({trial["layout_id"] for trial in complete}) == len(complete)
    assert any(trial["layout"].startswith("C") and "T" in trial["layout"] for trial in complete)
    assert complete[0]["layout"] == "C1-C1-T2-T1@16"
    assert max(trial["map_50"] for trial in complete) > 0.30
    assert (tmp_path / "demo" / "best" / "backbone.safetensors").is_file()


@pytest.mark.long
def test_blood_cells(tmp_path: Path, bccd: Path, nas: Run, nas_json: Json):
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = ["nas-submit", "--data", bccd, "--space", "tiny", "--detector", "fcos"]
    command += ["--image-size", "160", "--no-baselines", "--trials", "6", "--storage", storage]
    found = run_program(*command, "--output", tmp_path / "runs", "--json").json
    best = found["leaderboard"][0]
    assert len(found["leaderboard"]) == 6
    assert best["map"] > 0.33
    assert best["map_50"] > 0.55
    assert nas("export", "--storage", storage, "--out", tmp_path / "best").code == 0
    again = nas_json("evaluate", tmp_path / "best", "--data", bccd)
    assert again["map"] == pytest.approx(best["map"], abs=1e-4)


SMALL = [
    "--set=detector.channels=32",
    "--set=detector.hidden=64",
    "--set=detector.regions=64",
    "--set=detector.proposals=50",
]


def train(detector: str, folder: Path, data: Path, epochs: int, image_size: int = 160) -> dict:
    """The figures of a training, and the losses and mAP50 after each epoch."""
    tiny = ["--recipe", "tiny", "--image-size", str(image_size), "--epochs", str(epochs), *SMALL]
    small = ["C1-C1-T2-T1@16", "--data", data, "--detector", detector, *tiny]
    figures = run_here("nas", "train", *small, "--out", folder / "bundle", "--json").json
    with (folder / "bundle.curves" / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    return figures | {
        key: [float(epoch[name]) for epoch in curves]
        for key, name in (("losses", "loss"), ("maps_50", "map_50"))
    }


@pytest.mark.long
def test_cascade_on_blood_cells(tmp_path: Path, bccd: Path):
    figures = train(
        "cascade_mask_rcnn", tmp_path, bccd, epochs=3
    )  # within three minutes on one core
    assert figures["map_50"] > 0.5
    assert "map_segm" not in figures  # boxes alone: the cells have no masks


@pytest.mark.long
def test_sparse_rcnn_on_blood_cells(tmp_path: Path, bccd: Path):
    figures = train(
        "sparse_rcnn", tmp_path, bccd, epochs=15, image_size=128
    )  # within three minutes on one core
    assert figures["maps_50"][0] < 0.1  # after 52 steps
    assert figures["map_50"] > 0.3
    assert figures["losses"][-1] < 0.5 * figures["losses"][0]


@pytest.mark.long
@pytest.mark.parametrize("detector", ["cascade_mask_rcnn", "sparse_rcnn"])
def test_one_epoch_of_photographs(tmp_path: Path, coco_mini: Path, detector: str):
    figures = train(detector, tmp_path, coco_mini, epochs=1)
    assert ("map_segm" in figures) == (detector == "cascade_mask_rcnn")
    (loss,) = figures["losses"]
    assert 0 < loss < 100
    assert len(list((tmp_path / "bundle.curves" / "detections").iterdir())) == 8
