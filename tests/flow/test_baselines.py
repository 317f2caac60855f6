"""A search with baselines and replicates, from the command line to the pages that show it."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from helpers.commands import Outcome, Run, run_here
from optuna_dashboard._importance import get_param_importance_from_trials_cache
from optuna_dashboard._inmemory_cache import InMemoryCache

from dashboards.optuna_dashboard import candidates_only
from nas.study.storage import open_storage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="module")
def words(folder: Path, digits: Path) -> list[str]:
    return [
        "submit",
        "--data",
        str(digits),
        "--space",
        "tiny",
        "--detector",
        "fcos",
        "--image-size",
        "32",
        "--epochs",
        "1",
        "--local",
        "--storage",
        f"sqlite:///{folder}/nas.db",
        "--output",
        str(folder / "runs"),
        "--replicates",
        "2",
        "--set",
        "detector.channels=32",
        "--set",
        "run.keep_best=1",
    ]


@pytest.fixture(scope="module")
def searched(words: list[str]) -> Outcome:
    """Two candidates, both trained again, and three baselines, each trained twice."""
    return run_here("nas", *words, "--trials", "2")


@pytest.fixture
def storage(folder: Path, searched: Outcome) -> str:
    return f"sqlite:///{folder}/nas.db"


def test_what_a_search_prints(nas: Run, searched: Outcome, storage: str):
    code, out, said = searched
    assert code == 0
    assert "The best candidate against published backbones at the same memory" in out
    for name in ("Swin-T", "ResNet-50", "C2-C2-T12-T4"):
        assert name in out
    assert "(baseline)" in said
    assert "(baseline, seed 2)" in said
    listed = json.loads(nas("list", "--storage", storage, "--json")[1])[0]
    assert (listed["complete"], listed["baselines"], listed["replicates"]) == (2, 6, 2)
    found = json.loads(nas("status", "--storage", storage, "--json")[1])
    assert [row["trainings"] for row in found["baselines"]] == [2, 2, 2]
    assert "baseline, seed 2" in nas("status", "--storage", storage)[1]


def test_the_same_command_trains_nothing_twice_and_says_the_same(
    nas: Run, words: list[str], storage: str
):
    before = json.loads(nas("status", "--storage", storage, "--json")[1])
    code, out, _ = nas(*words, "--trials", "2", "--json")
    after = json.loads(nas("status", "--storage", storage, "--json")[1])
    assert code == 0
    assert after["trials"] == before["trials"]
    assert json.loads(out)["baselines"] == before["baselines"]
    assert [row["replicates"] for row in json.loads(out)["leaderboard"]] == [1, 1]


def test_the_first_of_the_leaderboard_is_exported_though_one_was_to_be_kept(
    nas: Run, words: list[str], folder: Path, storage: str
):
    """Two were trained again: either may be the best by that, so the weights of both are there."""
    board = json.loads(nas(*words, "--trials", "2", "--json")[1])["leaderboard"]
    assert board[0]["map_again"] >= board[1]["map_again"]
    for place, row in enumerate(board):
        chosen = [] if place == 0 else ["--trial", row["number"]]
        code, out, _ = nas(
            "export",
            "--storage",
            storage,
            "--out",
            folder / f"best{place}",
            "--no-onnx",
            "--json",
            *chosen,
        )
        assert (code, json.loads(out)["layout"]) == (0, row["layout"])
        card = (folder / f"best{place}" / "README.md").read_text()
        assert "mean with other seeds, trainings: 1" in card
        assert ("against ResNet-50" in card) == (place == 0)


def test_pages_and_report_show_them(nas: Run, folder: Path, storage: str):
    assert nas("report", "--storage", storage, "--out", folder / "report.html")[0] == 0
    html = (folder / "report.html").read_text()
    assert "Published backbones at the same memory" in html
    assert "6 baselines, 2 replicates" in html
    assert "baseline, seed 2" in html


def test_optuna_dashboard_is_given_candidates_alone(storage: str):
    """Beside trials without parameters it would call all parameters equally important."""
    opened = open_storage(storage, create=False)
    study_id = opened.get_study_id_from_name("digits")
    shown = candidates_only(opened)
    trials = shown.get_all_trials(study_id)
    assert [trial.user_attrs["role"] for trial in trials] == ["candidate", "candidate"]
    assert len(optuna.load_study(study_name="digits", storage=opened).trials) == 10
    found = get_param_importance_from_trials_cache(InMemoryCache(), shown, study_id, 0, trials)
    assert {row["name"] for row in found} <= set(trials[0].params)


def test_without_baselines_there_is_no_table(nas: Run, words: list[str], tmp_path: Path):
    code, out, _ = nas(
        *words, "--trials", "1", "--storage", f"sqlite:///{tmp_path}/nas.db", "--no-baselines"
    )
    assert code == 0
    assert "published backbones" not in out
