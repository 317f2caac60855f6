"""A study and a bundle that version 0.1 made: listed, shown, gone on with, reported, verified,
evaluated and trained on by this one.

`tests/fixtures/before_0_1` is what commit 79f53f2 left, on one thread of a CPU, after
`make_digits("digits", train=40, val=12, size=96, seed=0)`, the command `SEARCH` with four trials,
and `nas export --study fixture --no-onnx`, all in a folder `/data`. Nobody changes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Json, Run

from nas.data.digits import make_digits
from nas.export.bundle import read_description
from nas.export.manifest import check_manifest

MADE = Path(__file__).parent.parent / "fixtures" / "before_0_1"
STORAGE = ["--storage", "sqlite:///study.db"]
SEARCH = [
    *["submit", "--data", "digits", "--study", "fixture", "--space", "space.yaml", "--local"],
    *["--detector", "fcos", "--recipe", "tiny", "--image-size", "96", "--epochs", "6"],
    *["--batch", "4", "--no-baselines", "--set", "detector.channels=64", "--set", "recipe.flip=0"],
    *["--set", "recipe.warmup_steps=5", "--set", "recipe.lr=3e-3", *STORAGE, "--output", "runs"],
    "--trials",
]
# The defaults of that version that have changed since.
THEN = ["--set", "recipe.init=he", "--set", "calibration.definition=paper"]
BEST = ("T1-C1-C1-C1@8", 0.028362639553877904)  # layout and mAP


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set that was trained on."""
    root = tmp_path_factory.mktemp("before") / "digits"
    make_digits(root, train=40, val=12, size=96, seed=0)
    return root


@pytest.fixture
def home(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a copy of what was left there, beside the data."""
    shutil.copytree(MADE, tmp_path, dirs_exist_ok=True)
    shutil.copytree(images, tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorded(database: Path) -> list[dict[str, Any]]:
    """What the tables hold of each trial, read without any code of ours or Optuna's."""
    connection = sqlite3.connect(database)
    trials = connection.execute("SELECT trial_id, number, state FROM trials ORDER BY number")
    rows = []
    for key, number, state in trials.fetchall():
        named = "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?"
        attributes = {
            name: json.loads(value) for name, value in connection.execute(named, (key,)).fetchall()
        }
        rows.append({**attributes, "number": number, "state": state})
    connection.close()
    return rows


def test_its_study_is_listed(home: Path, nas_json: Json):
    (row,) = nas_json("list", *STORAGE)
    assert (row["study"], row["space"], row["complete"], row["running"]) == (
        "fixture",
        "narrow",
        4,
        0,
    )


def test_its_trials_are_shown_with_their_figures(home: Path, nas: Run, nas_json: Json):
    before = recorded(home / "study.db")
    shown = nas_json("status", *STORAGE)["trials"]
    assert len(before) == 4
    for row, trial in zip(shown, before, strict=True):
        same = ("number", "state", "layout", "layout_id", "map", "map_50", "params", "flops")
        same += ("epochs", "memory_predicted_gib", "seed", "role")
        assert {name: row[name] for name in same} == {name: trial[name] for name in same}
    best = max(shown, key=lambda row: row["map"])
    assert (best["layout"], best["map"]) == BEST
    code, table, _ = nas("status", *STORAGE)
    assert code == 0
    assert all(trial["layout"] in table for trial in before)


def test_the_same_command_says_which_defaults_are_others_now(home: Path, nas: Run):
    before = recorded(home / "study.db")
    code, _, said = nas(*SEARCH, 5)
    assert code == 2
    assert (
        "study 'fixture' was made from another request: recipe.init was 'he', now 'swin'; "
        "calibration.definition was 'paper', now 'outputs'. Repeat that request"
    ) in said
    assert recorded(home / "study.db") == before


def test_the_same_command_with_its_defaults_goes_on_with_it(home: Path, nas: Run):
    before = recorded(home / "study.db")
    code, out, said = nas(*SEARCH, 5, *THEN)
    assert code == 0, said
    after = recorded(home / "study.db")
    assert after[:4] == before
    assert [(trial["number"], trial["state"]) for trial in after[4:]] == [(4, "COMPLETE")]
    assert after[4]["layout"] not in {trial["layout"] for trial in before}
    assert BEST[0] in out
    assert not [line for line in said.splitlines() if "was" in line and "now" in line]
    code, _, said = nas(*SEARCH, 5, *THEN)  # and has nothing left to do
    assert code == 0, said
    assert recorded(home / "study.db") == after


def test_its_study_is_reported(home: Path, nas: Run):
    layouts = [trial["layout"] for trial in recorded(home / "study.db")]
    code, out, said = nas("report", *STORAGE, "--out", "report.html")
    assert code == 0, said
    assert out.startswith("report.html: fixture, ")
    html = (home / "report.html").read_text()
    assert "<h1>fixture</h1>" in html
    assert all(layout in html for layout in layouts)


def test_its_bundle_is_verified_and_scores_what_it_says(home: Path, nas_json: Json):
    checks = nas_json("verify", "bundle", "--data", "digits", "--run-code")["checks"]
    assert {check["name"] for check in checks if not check["passed"]} == {
        "backbone.onnx",
        "detector.onnx",
        # Written otherwise then; the code is run because that is asked for.
        *("backbone.py", "mmdet_backbone.py", "mmdet_config.py", "backbone.yaml", "README.md"),
        # Not there then.
        "mmdet_detector.py",
    }
    assert {check["name"] for check in checks if check["passed"]} > {"backbone.py"}
    assert "mAP" in {check["name"] for check in checks}
    scored = nas_json("evaluate", "bundle", "--data", "digits")
    assert scored["map"] == pytest.approx(BEST[1], abs=1e-6)
    assert read_description(Path("bundle")).figures["map"] == BEST[1]


def test_its_bundle_is_trained_on(home: Path, nas_json: Json):
    words = ("train", "bundle", "--data", "digits", "--epochs", 1, "--no-onnx", "--out", "again")
    assert nas_json(*words)["layout"] == BEST[0]
    before, again = read_description(Path("bundle")), read_description(Path("again"))
    assert again.detector == before.detector
    assert again.recipe.lr == before.recipe.lr == 0.003


def test_it_is_byte_for_byte_what_was_made():
    """A formatter, or line ends that Git converts, would show here."""
    assert len(check_manifest(MADE / "bundle")) == 8
    study = hashlib.sha256((MADE / "study.db").read_bytes()).hexdigest()
    assert study == "cde8bc08331f84a4e9adaf6ebc922996d2ff74ce874df47cf35cdb86b0e0a4d1"
