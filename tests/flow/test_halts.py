"""A disk that is full or an image that breaks in the middle of a search: it stops with one line,
and goes on afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import Background, Outcome, run_here, run_program
from optuna.trial import TrialState

from nas.study.leaderboard import load_study
from nas.study.storage import open_storage

DISK_MB = 64


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], check=False
        ).returncode
    ):
        pytest.skip("needs root, to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.long)])
def test_a_full_disk_loses_nothing(small_disk: Path, tmp_path: Path, digits: Path, backend: str):
    if backend == "ray":
        pytest.importorskip("ray")
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = ["--data", digits, "--storage", storage, "--output", small_disk / "runs"]
    command += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines"]
    command += ["--epochs", "2", "--trials", "3", "--sampler", "random"]
    command += ["--local"] if backend == "local" else ["--concurrent", "2"]

    def submit() -> Outcome:
        run = run_here if backend == "local" else run_program
        return run("nas-submit", *command)

    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(b"x" * (DISK_MB * 2**20 - 400_000))  # less is left than a checkpoint takes
    full = submit()
    assert full.code == 2, full.out + full.err
    last = full.err.strip().splitlines()[-1]
    assert last.startswith("nas-submit: ")
    assert (
        "checkpoint.pt' cannot be written: No space left on device. Nothing is lost: once that is "
        "mended, the same" in last
    )
    assert "Traceback" not in full.err
    trials = load_study(open_storage(storage, create=False), "digits").trials
    assert {trial.state for trial in trials} == {TrialState.RUNNING}
    assert not list(small_disk.rglob("*.partial"))

    filler.unlink()
    done = submit()
    assert done.code == 0, done.err
    trials = load_study(open_storage(storage, create=False), "digits").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert all(set(trial.intermediate_values) == {1, 2} for trial in trials)
    epochs = [
        json.loads(line)["epoch"]
        for path in small_disk.rglob("log.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(epochs) <= 3 * 2 + 2  # the epochs whose checkpoints had no room


@pytest.mark.parametrize("loader_workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_an_image_that_breaks_in_the_middle(tmp_path: Path, digits: Path, loader_workers: int):
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = ["nas-submit", "--data", data, "--storage", storage, "--output", tmp_path / "runs"]
    command += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines"]
    command += ["--epochs", "6", "--trials", "2", "--sampler", "random", "--local"]
    command += ["--set", f"recipe.loader_workers={loader_workers}"]
    image = sorted((data / "train").iterdir())[0]
    sound = image.read_bytes()
    with Background(tmp_path / "log", *command) as search:
        search.wait_until(lambda: "epoch 2/6" in search.printed())
        image.write_bytes(sound[:100])
        assert search.wait() == 2
    last = search.printed().splitlines()[-1]
    assert last.startswith(
        f"nas-submit: image '{image}' was sound when the data set was checked, and is not now: "
    )
    assert "the same command goes on" in last
    trials = load_study(open_storage(storage, create=False), "data").trials
    assert trials[-1].state == TrialState.RUNNING
    assert TrialState.FAIL not in {trial.state for trial in trials}
    refused = run_here(*command)  # still broken: said at the start
    assert refused.code == 2
    assert image.name in refused.err
    image.write_bytes(sound)
    done = run_here(*command)
    assert done.code == 0, done.err
    trials = load_study(open_storage(storage, create=False), "data").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert all(set(trial.intermediate_values) == set(range(1, 7)) for trial in trials)
