"""What a machine of a cluster says of itself, without a cluster."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

pytest.importorskip("ray")
from nas.config.sections import DataSpec
from nas.errors import SpecError, StudyError
from workers.ray_tune.nodes import probe_node
from workers.ray_tune.session import check_address, package_folders, temp_folder


def test_a_machine_that_sees_everything(digits: Path, tmp_path: Path):
    (tmp_path / "name").touch()
    said = probe_node(DataSpec(root=str(digits)), str(tmp_path), "name")
    assert said["sizes"] == [
        (digits / f"instances_{split}.json").stat().st_size for split in ("train", "val")
    ]
    assert said["sees_output"]
    assert (tmp_path / said["wrote"]).exists()
    assert said["wrote"].startswith("name-")


def test_a_machine_with_another_output_folder(digits: Path, tmp_path: Path):
    assert not probe_node(DataSpec(root=str(digits)), str(tmp_path), "name")["sees_output"]


def test_a_machine_without_the_data(tmp_path: Path):
    said = probe_node(DataSpec(root=str(tmp_path / "gone")), str(tmp_path), "name")
    assert said["refused"] == f"data set folder '{tmp_path}/gone' does not exist"


def test_a_machine_without_the_weights(digits: Path, tmp_path: Path):
    said = probe_node(DataSpec(root=str(digits)), str(tmp_path), "name", str(tmp_path / "gone.pt"))
    assert said["refused"] == f"recipe.weights '{tmp_path}/gone.pt': there is no such file"


def test_a_machine_that_cannot_write(digits: Path, tmp_path: Path):
    said = probe_node(DataSpec(root=str(digits)), str(tmp_path / "gone"), "name")
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


def test_rays_folder_is_this_users_alone_and_has_a_short_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    name, made = f"nas-ray-{os.getuid()}", list[Path]()

    def own_folder(path: Path) -> Path:
        made.append(path)
        return path

    monkeypatch.setattr("workers.ray_tune.session.own_folder", own_folder)
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/scratch/" + "x" * 8)
    assert temp_folder() == f"/scratch/xxxxxxxx/{name}/ray"
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/scratch/" + "ä" * 36)
    assert temp_folder() == f"/tmp/{name}/ray"
    assert made == [Path("/scratch/xxxxxxxx") / name, Path("/tmp") / name]
    monkeypatch.setattr("os.access", lambda *args: False)
    with pytest.raises(StudyError, match="too long for Ray's sockets: at most"):
        temp_folder()


def test_nobody_at_rays_address_is_found_soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.ray_tune.session.ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_address(f"127.0.0.1:{port}")
        check_address(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "nowhere.invalid:6379"):
        with pytest.raises(StudyError, match="RAY_ADDRESS '.*no Ray cluster answers there"):
            check_address(address)
    for address in ("auto", "local"):
        check_address(address)
    with pytest.raises(SpecError, match="Jobs API goes to --cluster"):
        check_address("http://head:8265")
