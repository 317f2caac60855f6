"""What a machine of a cluster says of itself, without a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("ray")
from workers.ray_tune.nodes import probe_node
from workers.ray_tune.session import package_folders


def test_a_machine_that_sees_everything(digits: Path, tmp_path: Path):
    (tmp_path / "name").touch()
    said = probe_node(str(digits), ("train", "val"), str(tmp_path), "name")
    assert said["sizes"] == [
        (digits / f"instances_{split}.json").stat().st_size for split in ("train", "val")
    ]
    assert said["sees_output"]
    assert (tmp_path / said["wrote"]).exists()
    assert said["wrote"].startswith("name-")


def test_a_machine_with_another_output_folder(digits: Path, tmp_path: Path):
    assert not probe_node(str(digits), ("train",), str(tmp_path), "name")["sees_output"]


def test_a_machine_without_the_data(tmp_path: Path):
    said = probe_node(str(tmp_path / "gone"), ("train",), str(tmp_path), "name")
    assert said["refused"] == f"data set folder '{tmp_path}/gone' does not exist"


def test_a_machine_without_the_weights(digits: Path, tmp_path: Path):
    said = probe_node(str(digits), ("train",), str(tmp_path), "name", str(tmp_path / "gone.pt"))
    assert said["refused"] == f"recipe.weights '{tmp_path}/gone.pt': there is no such file"


def test_a_machine_that_cannot_write(digits: Path, tmp_path: Path):
    said = probe_node(str(digits), ("train",), str(tmp_path / "gone"), "name")
    assert (
        said["refused"]
        == f"run.output '{tmp_path}/gone' cannot be written: No such file or directory"
    )


def test_what_travels_is_all_of_ours(tmp_path: Path):
    for folder in package_folders():
        shutil.copytree(folder, tmp_path / folder.name)
    assert (tmp_path / "nas" / "config" / "recipes" / "proxy.yaml").is_file()
    assert (tmp_path / "search_spaces" / "presets" / "paper.yaml").is_file()
    assert (tmp_path / "workers" / "ray_tune" / "trainable.py").is_file()
