"""A user who stands in a data set or a bundle of others: none of its files are taken for modules or
settings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import run_program, wait_until
from helpers.studies import trials_so_far

from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.config.spec import load_spec
from nas.data.splits import Splits
from nas.data.validation import check_split
from nas.search.forecast.benchmark import few_images, time_layouts
from nas.training.candidate import Candidate
from nas.training.launch import train_on
from nas.utils.working_folder import outside_working_folder
from search_spaces.layout import Layout

MODULES = ("multiprocessing", "torch", "numpy", "ray", "yaml", "pydantic", "nas", "workers")
IMPORTED = "import multiprocessing; print(multiprocessing.__file__)"


@pytest.fixture
def hostile(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data set with files beside it that Python and Matplotlib look for where they stand."""
    folder, mark = tmp_path / "data", tmp_path / "ran"
    shutil.copytree(digits, folder)
    for name in MODULES:
        (folder / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'a').write({name!r})\nraise ImportError({name!r})\n"
        )
    (folder / "matplotlibrc").write_bytes(b"\xff")
    monkeypatch.chdir(folder)
    yield folder
    assert not mark.exists(), mark.read_text()


def candidate(folder: Path) -> Candidate:
    recipe = load_spec(None, {"data.root": ".", "recipe": "tiny", "recipe.epochs": 1}).recipe
    return Candidate(
        layout=Layout.parse("C1-C1-T1-T1@16+norm=gn"),
        detector=DetectorSpec(name="fcos", channels=32),
        recipe=recipe.model_copy(update={"image_size": 64, "images_per_gpu": 2}),
        calibration=CalibrationSpec(enabled=False),
        num_classes=10,
        seed=0,
        folder=folder,
    )


@pytest.fixture
def splits(hostile: Path) -> Splits:
    train, val = (check_split(hostile, name).split for name in ("train", "val"))
    return few_images(Splits(train, val), batch=4, steps=1, scored=2)


def test_a_search_with_ray_that_goes_on_without_a_terminal(hostile: Path, tmp_path: Path):
    url = f"sqlite:///{tmp_path}/nas.db"
    words = ["--storage", url, "--data", ".", "--study", "digits", "--output", tmp_path / "runs"]
    words += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines"]
    words += ["--epochs", "1", "--trials", "1", "--concurrent", "1", "--detach"]
    begun = run_program("nas-submit", *words)
    assert begun.code == 0, begun.err
    log = tmp_path / "runs" / "digits.log"
    wait_until(lambda: "nas-export" in log.read_text() or "nas-submit: " in log.read_text())
    assert [trial.value is not None for trial in trials_so_far(url)] == [True], log.read_text()


@pytest.mark.usefixtures("hostile")
def test_a_report_of_the_data(tmp_path: Path):
    made = run_program("nas", "check-data", ".", "--report", tmp_path / "report.html")
    assert made.code == 0, made.err
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_processes_that_train_together(tmp_path: Path, splits: Splits):
    (report,) = train_on(2, candidate(tmp_path / "run"), splits)
    assert report.epoch == 1


def test_processes_that_are_timed(tmp_path: Path, splits: Splits):
    jobs = [(candidate(tmp_path / "run"), 1, 1)]
    timings, _ = time_layouts(jobs, splits, at_once=2, threads=1, on_timing=lambda *_: None)
    assert len(timings) == 2


def test_the_block_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["modules", str(tmp_path)]))
    before = dict(os.environ)
    with outside_working_folder():
        assert Path.cwd() == Path("/")
        assert os.environ["PYTHONPATH"].split(os.pathsep) == [f"{tmp_path}/modules", str(tmp_path)]
    assert (Path.cwd(), dict(os.environ)) == (tmp_path, before)


def test_a_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    with outside_working_folder():
        pass
    assert Path.cwd() == Path("/")


@pytest.mark.usefixtures("hostile")
def test_python_imports_from_where_it_stands(tmp_path: Path):
    """What all of this is about, shown with the interpreter alone."""
    command = [sys.executable, "-c", IMPORTED]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    assert subprocess.run(command, check=False, env=environment, capture_output=True).returncode
    (tmp_path / "ran").unlink()
    with outside_working_folder():
        subprocess.run(command, check=True, capture_output=True)
