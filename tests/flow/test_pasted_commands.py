"""A study with a hostile name, in folders with hostile names: what is printed can be pasted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from helpers.commands import BIN, run_program

STUDY = "a;rm -rf b"


def pasted(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hostile_name_through_the_commands(tmp_path: Path, digits: Path):
    folder = tmp_path / "it's $HOME; a folder"
    shutil.copytree(digits, folder / "my data")
    (folder / "b").mkdir()
    searched = run_program(
        *("nas-submit", "--data", "my data", "--study", STUDY, "--local", "--no-baselines"),
        *("--storage", f"sqlite:///{folder}/nas.db", "--space", "tiny", "--detector", "fcos"),
        *("--image-size", "32", "--epochs", "1", "--trials", "1"),
        cwd=folder,
    )
    assert searched.code == 0, searched.err
    (line,) = (line for line in searched.out.splitlines() if line.startswith("Export the best: "))
    exported = pasted(line.partition(": ")[2], folder)
    assert exported.returncode == 0, exported.stderr
    assert (folder / "best" / "manifest.json").is_file()
    assert (folder / "b").is_dir()
    for command in ("status", "logs"):
        options = ("--study", STUDY, "--storage", f"sqlite:///{folder}/nas.db")
        shown = run_program("nas", command, *options, cwd=folder)
        assert shown.code == 0, shown.err


def test_a_data_set_with_faults(tmp_path: Path, digits: Path):
    data = tmp_path / "my; data"
    shutil.copytree(digits, data)
    image = sorted((data / "train").iterdir())[0]
    image.write_bytes(image.read_bytes()[:100])
    refused = run_program(
        "nas-submit", "--data", data, "--storage", f"sqlite:///{tmp_path}/nas.db", "--local"
    )
    assert refused.code == 2
    line = refused.err.partition("See: ")[2].partition(", or leave")[0]
    checked = pasted(line, tmp_path)
    assert image.name in checked.stdout + checked.stderr
