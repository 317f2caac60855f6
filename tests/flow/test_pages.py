"""Our pages and the report: what they say, which files they give, and that texts of a study stay
texts.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from helpers.browsing import Browser
from helpers.commands import Run
from helpers.studies import KNOWN, SPEC, frozen, study_of
from optuna.trial import TrialState

from dashboards.comparison import compare
from dashboards.context import study_context
from dashboards.pages import StudyCard, pages_app, trial_context
from dashboards.static_report import report_html
from dashboards.study_view import StudyView
from dashboards.summary import export_command, summary, summary_paragraphs
from dashboards.templating import page
from dashboards.trial_view import files_of, folder_of, memory_of_other_parts, stage_blocks
from nas.search.multifidelity.expected import expected_board
from nas.study.lease import Lease
from nas.study.lock import lock_of
from nas.study.storage import open_storage
from nas.utils.formatting import expected_text

BAD = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def home(tmp_path: Path) -> tuple[Browser, Path]:
    """Pages of a study with a trial whose folder is there, and that folder."""
    output = tmp_path / "runs"
    folder = output / "cells-0123abcd" / "trial-0000-feed"
    (folder / "detections").mkdir(parents=True)
    (folder / "curves.csv").write_text("epoch,loss\n")
    (folder / "detections" / "000001-a b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "secret").write_text("password")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "detections" / "out").symlink_to(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)
    study = optuna.create_study(study_name="cells", storage=storage, direction="maximize")
    for key, value in {**KNOWN, "nas_spec": {**SPEC, "run": {"output": str(output)}}}.items():
        study.set_user_attr(key, value)
    for trial in (
        frozen(0),
        frozen(1, TrialState.PRUNED),
        frozen(2, TrialState.FAIL, fail_reason="broke"),
    ):
        study.add_trial(trial)
    return Browser(pages_app(storage, "")), folder


def test_the_pages_show_the_study(home: tuple[Browser, Path]):
    browser, _ = home
    start = browser.get("/").text
    assert (
        "1 complete, 1 fail, 1 pruned; the best is C1-C1-T2-T1@16 of trial 0 with mAP 25.0 % in "
        "0.100 GiB" in start
    )
    study = browser.get("/studies/1").text
    tags = Tags(study)
    assert len([figure for figure in tags.of("figure") if figure.get("class") == "plot"]) == 8
    assert {"/studies/1/trials/0", "/studies/1/trials/2", "/dashboard/studies/1"} <= {
        a["href"] for a in tags.of("a")
    }
    assert (
        "Four stages: C with 1 blocks of width 16, C with 1 blocks" in study
    )  # the best layout, drawn
    assert "The prediction refused 7 suggestions." in study
    assert "broke" in study


def test_studies_side_by_side(home: tuple[Browser, Path], tmp_path: Path):
    browser, _ = home
    assert not Tags(browser.get("/").text).of("input")  # there is one study only
    storage = open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)
    other = optuna.create_study(study_name="others", storage=storage, direction="maximize")
    spec = {**SPEC, "study": "others", "detector": {"name": "atss"}}
    for key, value in {**KNOWN, "nas_spec": spec}.items():
        other.set_user_attr(key, value)
    boxes = [box for box in Tags(browser.get("/").text).of("input") if box["name"] == "study"]
    assert {box["value"] for box in boxes} == {"1", "2"}
    html = browser.get("/compare?study=2&study=1").text
    assert html.index(">others</a>") < html.index(">cells</a>")
    row = html[html.index("detector.name") :]
    assert row.index("atss") < row.index("fcos") < row.index("</tr>")
    for query in (
        "",
        "?study=1",
        "?study=1&study=1",
        "?study=1&study=x",
        "?study=1&study=" + "9" * 99,
    ):
        assert browser.get(f"/compare{query}").status == 400, query
    assert browser.get("/compare?study=1&study=3").status == 404


def test_a_study_that_runs_is_followed(home: tuple[Browser, Path], tmp_path: Path):
    browser, _ = home
    assert "data-running" not in browser.get("/").text + browser.get("/studies/1").text
    storage = open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)
    optuna.load_study(study_name="cells", storage=storage).add_trial(frozen(3, TrialState.RUNNING))
    assert "data-running" not in browser.get("/studies/1").text  # nobody trains it
    assert "WAITING" in browser.get("/studies/1/trials/3").text
    lease = Lease(lock_of(storage, "cells"), "cells", KNOWN["nas_uuid"])
    with lease.held():
        lease.take(3)
        assert "data-running" in browser.get("/").text
        assert "data-running" in browser.get("/studies/1").text
    assert "data-running" not in browser.get("/").text


def test_the_leaderboard_tells_what_is_expected():
    """Of four candidates or more, as `nas status` does."""
    few = study_context(StudyView.read(study_of([frozen(n) for n in range(3)])))
    assert not few.expected
    trials = [frozen(n, score=0.2 + n / 100) for n in range(5)]
    study = study_of(trials)
    shown = study_context(StudyView.read(study))
    assert [row.expected for row in shown.board] == [
        expected_text(row.map_expected, row.map_low, row.map_high)
        for row in expected_board(study.get_trials(), 4)
    ]
    assert "±" in shown.board[0].expected
    assert ">expected</th>" in page("study.html", "", shown=shown)


def test_a_trial_has_its_artifacts(home: tuple[Browser, Path]):
    browser, folder = home
    html = browser.get("/studies/1/trials/0").text
    tags = Tags(html)
    assert len([box for box in tags.of("rect") if "stage" in box["class"]]) == 4
    (picture,) = [image["src"] for image in tags.of("img")]
    assert picture == "/studies/1/trials/0/files/detections/000001-a%20b.png"
    answer = browser.get("/studies/1/trials/0/files/detections/000001-a b.png")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    saved = browser.get("/studies/1/trials/0/files/curves.csv")
    assert saved.body == (folder / "curves.csv").read_bytes()
    assert saved.headers["Content-Disposition"] == 'attachment; filename="curves.csv"'
    assert "No weights are kept" in html
    assert "Its folder is not on this machine" in browser.get("/studies/1/trials/1").text


@pytest.mark.parametrize(
    "path",
    [
        "/studies/2",
        "/studies/1/trials/9",
        "/studies/1/trials/0/files/nothing",
        "/assets/nothing.js",
    ],
)
def test_what_is_not_there_is_404(home: tuple[Browser, Path], path: str):
    assert home[0].get(path).status == 404


ESCAPES = (
    "../../../secret",
    "detections/../../../../secret",
    "/etc/passwd",
    "link",
    "detections/out/secret",
    "..",
    ".",
    "detections",
    "%2e%2e/%2e%2e/secret",
    "..\\..\\secret",
    "detections/000001-a b.png/../../curves.csv",
    "curves.csv\0.png",
)


@pytest.mark.parametrize("name", ESCAPES)
def test_no_file_outside_the_trial_is_given(home: tuple[Browser, Path], name: str):
    answer = home[0].get(f"/studies/1/trials/0/files/{name}")
    assert answer.status == 404
    assert b"password" not in answer.body


@pytest.mark.parametrize("name", ["../../etc", "..", "x/../../y"])
def test_a_study_cannot_name_a_folder_elsewhere(tmp_path: Path, name: str):
    (tmp_path / "runs").mkdir()
    outside = tmp_path / f"{Path(name).name}-0123abcd" / "trial-0000-x"
    outside.mkdir(parents=True)
    view = StudyView.read(
        study_of(
            [frozen(0)], name=name, nas_spec={**SPEC, "run": {"output": str(tmp_path / "runs")}}
        )
    )
    assert folder_of(view, 0) is None


def test_a_link_in_place_of_a_folder_leads_nowhere(tmp_path: Path):
    root = tmp_path / "runs" / "cells-0123abcd"
    root.mkdir(parents=True)
    (root / "trial-0000-x").symlink_to("/etc")
    view = StudyView.read(
        study_of([frozen(0)], nas_spec={**SPEC, "run": {"output": str(tmp_path / "runs")}})
    )
    assert folder_of(view, 0) is None
    assert files_of(None) == {}


def test_a_relative_output_is_found_by_the_weights(tmp_path: Path):
    folder = tmp_path / "cells-0123abcd" / "trial-0001-x"
    folder.mkdir(parents=True)
    weights = str(tmp_path / "cells-0123abcd" / "trial-0000-x" / "detector.safetensors")
    view = StudyView.read(
        study_of(
            [frozen(0, checkpoint=weights), frozen(1)], nas_spec={**SPEC, "run": {"output": "runs"}}
        )
    )
    assert folder_of(view, 1) == folder


def test_of_two_drivers_folders_that_of_the_weights_is_shown(tmp_path: Path):
    """The second driver removes the checkpoint of the first one last of all."""
    first, second = (tmp_path / "cells-0123abcd" / f"trial-0000-{token}" for token in "xy")
    for place in (second, first):
        place.mkdir(parents=True)
    os.utime(second, (1, 1))
    trial = frozen(0, checkpoint=str(second / "detector.safetensors"))
    spec = {**SPEC, "run": {"output": str(tmp_path)}}
    assert folder_of(StudyView.read(study_of([trial], nas_spec=spec)), 0) == second
    unfinished = StudyView.read(study_of([frozen(0)], nas_spec=spec))
    assert folder_of(unfinished, 0) == first


def test_stages_are_drawn_with_their_share_of_memory():
    parts = {
        "parameters": 1.0,
        "stem": 0.5,
        "stage_1": 1.0,
        "stage_2": 0.5,
        "stage_3": 0.75,
        "stage_4": 0.25,
    }
    drawn = stage_blocks("C1-C2-T4-T1@16", parts)
    assert [(each.kind, each.depth, each.width, each.stride) for each in drawn] == [
        ("C", 1, 16, 4),
        ("C", 2, 32, 8),
        ("T", 4, 64, 16),
        ("T", 1, 128, 32),
    ]
    assert [each.share for each in drawn] == [0.25, 0.125, 0.1875, 0.0625]
    assert memory_of_other_parts(parts) == "parameters 25.0 %, stem 12.5 %"
    assert memory_of_other_parts({}) == ""
    heights = [each.h for each in drawn]
    assert heights[2] > heights[1] > heights[0] == heights[3]
    assert stage_blocks("nonsense", {}) == stage_blocks(None, {}) == []


def test_the_note_is_words():
    view = StudyView.read(
        study_of([frozen(0), frozen(1, role="taken over"), frozen(2, TrialState.RUNNING)])
    )
    text = {paragraph.title: paragraph.text for paragraph in summary_paragraphs(view)}
    assert text["Data"] == "cells: 8 images with 9 boxes to train on, 3 with 4 to score, 1 class."
    assert text["So far"].startswith(
        "1 complete, 1 running, 1 taken over from earlier studies; the best is"
    )
    assert text["Budget"].startswith(
        "1 GiB of training memory per GPU: what needs more is not trained."
    )
    assert export_command(view) == "nas-export --study cells --storage sqlite:///nas.db --out best"
    assert export_command(StudyView.read(study_of([], name="two words"))) is None
    foreign = StudyView.read(optuna.create_study())
    assert summary(foreign) == "no search of scratch-nas; no trials yet"
    assert [paragraph.title for paragraph in summary_paragraphs(foreign)] == ["Study", "So far"]


# --------------------------------------------------------------------------------------------------


def hostile() -> optuna.Study:
    """Everything that a study can say is markup."""
    spec = {**SPEC, "study": BAD, "data": {"root": BAD}, "space": {"name": BAD}, "storage": BAD}
    data = {**KNOWN["nas_data"], "categories": [BAD], "fingerprint": BAD}
    trials = [
        frozen(0, layout=BAD, device=BAD, checkpoint=BAD, role=BAD),
        frozen(1, TrialState.FAIL, fail_reason=BAD),
    ]
    trials += [frozen(2, TrialState.PRUNED, infeasible_reason=BAD, map_per_class={BAD: 0.1})]
    return study_of(
        trials, name=BAD, nas_spec=spec, nas_data=data, nas_versions={BAD: BAD}, nas_git_commit=BAD
    )


def harmless(html: str) -> None:
    tags = Tags(html)
    assert not tags.of("img")
    assert all(not name.startswith("on") for _, attributes in tags.found for name in attributes)
    ours = ("plotly", "drawAll")
    for match in re.finditer(r"<script(?P<kind>[^>]*)>(?P<body>.*?)</script>", html, re.DOTALL):
        harmless_data = "application/json" in match["kind"] and "<" not in match["body"]
        assert (
            harmless_data or "src=" in match["kind"] or any(word in match["body"] for word in ours)
        )
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_markup_in_a_study_is_shown_not_run():
    view = StudyView.read(hostile())
    harmless(page("studies.html", "", studies=[StudyCard(1, view.name, summary(view))]))
    harmless(page("study.html", "", shown=study_context(view)))
    harmless(page("compare.html", "", shown=compare([view, view])))
    for number in range(3):
        harmless(page("trial.html", "", shown=trial_context(view, 1, number)))
    harmless(page("login.html", "", next=BAD, said=""))
    harmless(report_html(view.study))


# --------------------------------------------------------------------------------------------------


def test_a_report_is_one_file_that_asks_for_nothing():
    html = report_html(study_of([frozen(number, score=number / 10) for number in range(6)]))
    tags = Tags(html)
    for tag, attributes in tags.found:
        assert "src" not in attributes, tag
        assert attributes.get("href") in (None, "data:,"), tag
        assert "action" not in attributes, tag
    assert html.count("* plotly.js v") == 1
    (policy,) = [
        meta["content"]
        for meta in tags.of("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert len([figure for figure in tags.of("figure") if figure["class"] == "plot"]) == 8
    assert "prefers-color-scheme: dark" in html
    assert "C1-C1-T2-T1@16" in html


@pytest.mark.parametrize("count", [0, 1, 200])
def test_a_report_of_any_size(count: int):
    html = report_html(
        study_of([frozen(number, score=(number % 9) / 10) for number in range(count)])
    )
    assert f"<summary>{count} trials</summary>" in html
    assert len(html) < 8_000_000


def test_the_command_writes_it(home: tuple[Browser, Path], tmp_path: Path, nas: Run):
    out, storage = tmp_path / "report.html", f"sqlite:///{tmp_path}/nas.db"
    code, said, err = nas("report", "--storage", storage, "--study", "cells", "--out", out)
    assert (code, err) == (0, "")
    assert said.startswith(f"{out}: cells, ")
    assert "<h1>cells</h1>" in out.read_text()
