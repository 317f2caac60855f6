"""`nas proxy-check` with real trainings: interrupted, gone on with, extended, shown."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from helpers.commands import Run

import workers.local
from nas.study.storage import open_storage

SMALL = """
stages:
  - {kinds: [C, T], depths: [1, 2]}
  - {kinds: [C], depths: [1, 2]}
  - {kinds: [C], depths: [1, 2]}
  - {kinds: [C], depths: [1]}
channels: [16]
"""


@pytest.fixture
def words(tmp_path: Path, digits: Path) -> list[object]:
    space = tmp_path / "small.yaml"
    space.write_text(SMALL)
    return [
        "proxy-check",
        "--data",
        digits,
        "--local",
        "--space",
        space,
        "--recipe",
        "tiny",
        "--detector",
        "fcos",
        "--image-size",
        48,
        "--set",
        "detector.channels=64",
        "--epochs",
        1,
        "--times",
        2,
        "--storage",
        f"sqlite:///{tmp_path}/nas.db",
        "--output",
        tmp_path / "runs",
    ]


def states(tmp_path: Path, name: str) -> list[tuple[str, str]]:
    study = optuna.load_study(
        study_name=name, storage=open_storage(f"sqlite:///{tmp_path}/nas.db", create=False)
    )
    return [(trial.user_attrs["layout"], trial.state.name) for trial in study.trials]


def test_from_start_to_end(
    tmp_path: Path, words: list[object], nas: Run, monkeypatch: pytest.MonkeyPatch
):
    began: list[str] = []
    run_trial = workers.local.run_trial

    def interrupted(job):
        began.append(job["folder"])
        if len(began) == 4:
            raise KeyboardInterrupt
        return run_trial(job)

    monkeypatch.setattr(workers.local, "run_trial", interrupted)
    code, _, said = nas(*words, "--layouts", 2)
    assert code == 130
    assert "The same command goes on" in said
    proxy, full = states(tmp_path, "digits.proxy"), states(tmp_path, "digits.full")
    assert [state for _, state in proxy] == ["COMPLETE"] * 2
    assert [state for _, state in full] == ["COMPLETE", "RUNNING"]

    code, out, said = nas(*words, "--layouts", 2, "--json")
    assert code == 0, said
    assert len(began) == 5  # the interrupted training again, and no other
    assert states(tmp_path, "digits.proxy") == proxy
    assert states(tmp_path, "digits.full") == [(layout, "COMPLETE") for layout, _ in proxy]
    check = json.loads(out)
    assert [pair["layout"] for pair in check["pairs"]] == [layout for layout, _ in proxy]
    assert (check["proxy"]["epochs"], check["full"]["epochs"]) == (1, 2)
    assert min(check["proxy_s"], check["full_s"]) > 0
    assert check["verdict"] == "cannot be told"
    assert check["stored"] == ["digits.proxy", "digits.full"]

    code, out, said = nas(*words, "--layouts", 3)
    assert code == 0, said
    assert len(began) == 5 + 2
    assert states(tmp_path, "digits.proxy")[:2] == proxy
    assert "3 layouts of digits by both recipes" in out
    assert "Kendall's tau" in out
    assert "Kept with the studies digits.proxy, digits.full." in out


def test_what_cannot_be_is_one_line(tmp_path: Path, words: list[object], nas: Run):
    for more, message in (
        (["--full", "paper"], "--times and --full exclude each other"),
        (["--set", "run.cluster=http://head:8265"], "proxy-check runs here"),
        (["--budget", "1MiB"], "no layout of space 'small' fits into"),
        (["--layouts", 1], "Invalid value for '--layouts'"),
    ):
        code, _, said = nas(*words, *more)
        assert code == 2, said
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "nas.db").exists()
