"""Rows that Optuna does not write: one line about their study, and nothing of any other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from helpers.bounds import command_end, refused_in_one_line
from helpers.browsing import Browser
from helpers.commands import Run
from helpers.untrained import Driver

from dashboards.pages import pages_app
from nas.errors import StudyError
from nas.study.leaderboard import load_study
from nas.study.optuna_internals import study_ids
from nas.study.storage import open_storage
from nas.study.trials import TrialTable
from nas.utils.paths import cache_folder

TRIALS = {
    "a state": "UPDATE trials SET state = 'x' WHERE study_id = 1",
    "a time": "UPDATE trials SET datetime_start = 'NAN' WHERE study_id = 1",
    "a number": "UPDATE trials SET number = 'x' WHERE study_id = 1",
    "no value": "DELETE FROM trial_values",
    "a value": "UPDATE trial_values SET value = 'x'",
    "a score": "UPDATE trial_intermediate_values SET intermediate_value_type = 'x'",
    "a step": "UPDATE trial_intermediate_values SET step = 'x' WHERE step = 1",
    "JSON": "UPDATE trial_user_attributes SET value_json = '{'",
    "deep JSON": f"UPDATE trial_user_attributes SET value_json = '{'[' * 3000}'",
    "parameters": "UPDATE trial_params SET distribution_json = '5'",
    "constraints": """UPDATE trial_system_attributes SET value_json = '"x"'""",
}
STUDIES = {
    "a direction": "UPDATE study_directions SET direction = 'x' WHERE study_id = 1",
    "no direction": "DELETE FROM study_directions WHERE study_id = 1",
    "JSON of the study": "UPDATE study_user_attributes SET value_json = '{' WHERE study_id = 1",
}
SCORES = ("a score", "a step")  # which these pages do not read for a table
EVERY = [pytest.param(statement, id=name) for name, statement in (TRIALS | STUDIES).items()]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Two studies, the first with a trial that is complete."""
    driver = Driver(tmp_path, study="first")
    driver.train()
    storage = driver.study.storage
    optuna.create_study(study_name="second", storage=storage).ask()
    storage.remove_session()
    storage.engine.dispose()
    return driver.spec.storage


def change(url: str, statement: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()


@pytest.mark.parametrize("statement", EVERY)
def test_one_study_is_refused_in_a_line_and_the_others_are_listed(
    url: str, statement: str, nas: Run, nas_json
):
    change(url, statement)
    code, out, said = nas("status", "--study", "first", "--storage", url)
    assert (code, out) == (2, "")
    (line,) = said.splitlines()
    assert "'first' cannot be read: the database holds what Optuna does not write" in line
    first, second = nas_json("list", "--storage", url)
    assert first["unreadable"] in line
    assert (second["study"], second["running"], second["unreadable"]) == ("second", 1, None)
    assert first["unreadable"] in nas("list", "--storage", url).out


@pytest.mark.parametrize("statement", [each for each in EVERY if each.id not in SCORES])
def test_its_page_says_so_and_the_first_page_has_the_others(url: str, statement: str):
    change(url, statement)
    storage = open_storage(url, create=False, read_only=True)
    app = pages_app(storage, "")
    app.catchall = False
    browser = Browser(app)
    assert "cannot be shown" in browser.get("/").text
    assert "second" in browser.get("/").text
    for path in ("/studies/1", "/studies/1/trials/0", "/studies/1/trials/0/files/x"):
        assert browser.get(path).status == 422
    assert browser.get("/studies/2").status == 200
    storage.engine.dispose()


def test_attributes_without_a_name_are_left_out(url: str, nas: Run, nas_json):
    for table in ("study", "trial"):
        change(
            url,
            f"UPDATE {table}_user_attributes SET key = x'ff' WHERE key IN ('map', 'nas_versions')",
        )
    (trial,) = nas_json("status", "--study", "first", "--storage", url)["trials"]
    assert "map" not in trial
    assert trial["epochs"] == 2
    assert nas("status", "--study", "first", "--storage", url).code == 0


def test_a_plot_that_cannot_be_drawn_is_a_line_of_the_report(url: str, tmp_path: Path, nas: Run):
    odd = """'{"spread_after": "x"}' WHERE key = 'calibration'"""
    change(url, f"UPDATE trial_user_attributes SET value_json = {odd}")
    code, out, said = nas("report", "--study", "first", "--storage", url, "--out", tmp_path / "r")
    assert (code, out) == (2, "")
    assert len(said.splitlines()) == 1
    assert "'first' cannot be read" in said


def test_halves_of_characters_are_shown_as_marks(url: str, tmp_path: Path, nas: Run):
    """JSON can write them, no page can."""
    half = r'''"\ud800"'''
    change(url, f"UPDATE trial_user_attributes SET value_json = '{half}' WHERE key = 'device'")
    change(
        url,
        "UPDATE study_user_attributes SET value_json = replace(value_json, '\"cells\"', "
        f"'{half}') WHERE key = 'nas_spec'",
    )
    storage = open_storage(url, create=False)
    app = pages_app(storage, "")
    app.catchall = False
    browser = Browser(app)
    for path in ("/", "/studies/1", "/studies/1/trials/0", "/compare?study=1&study=2"):
        assert browser.get(path).status == 200
    assert "\ufffd" in browser.get("/studies/1").text
    storage.engine.dispose()
    words = ("--study", "first", "--storage", url)
    assert nas("report", *words, "--out", tmp_path / "r.html").code == 0
    assert nas("status", *words).code == 0
    code, _, said = nas("resume", *words, "--local")
    assert code == 2
    assert "data.root must be a path or a URL" in said


def test_a_driver_says_so(url: str):
    change(url, TRIALS["parameters"])
    storage = open_storage(url, create=False)
    assert study_ids(storage) == {"first": 1, "second": 2}
    study = load_study(storage, "first")
    with pytest.raises(StudyError, match="'first' cannot be read"):
        TrialTable(study, storage)


def attribute(key: str, value: str) -> str:
    return f"UPDATE trial_user_attributes SET value_json = '{value}' WHERE key = '{key}'"


@pytest.mark.parametrize(
    "statement",
    [
        attribute("layout_id", "[1]"),
        attribute("layout", "5"),
        attribute("layout", '"X9"'),
        attribute("memory_peak_gib", '"x"'),
        attribute("device", "5"),
        attribute("role", "[1]"),
        attribute("losses", "[1]"),
        attribute("map", '"x"'),
        attribute("replicate", '"x"'),
        "DELETE FROM trial_user_attributes WHERE key = 'layout'",
        "UPDATE trial_values SET value = NULL, value_type = 'NAN'",
        "UPDATE trial_intermediate_values SET step = step * 100000000",
        "UPDATE trial_params SET param_value = 99",
    ],
)
@pytest.mark.parametrize("how", ["its own", "warm_start", "prior"])
def test_a_search_beside_odd_rows_works_or_is_refused_in_a_line(
    tmp_path: Path, statement: str, how: str
):
    """In its own study, and in one that it learns from."""
    driver = Driver(tmp_path, study="first")
    driver.train()
    driver.study.storage.remove_session()
    driver.study.storage.engine.dispose()
    change(driver.spec.storage, statement)
    more: dict[str, object] = {} if how == "its own" else {f"search.{how}": ["first"]}
    if how == "prior":
        more["search.sampler"] = "multifidelity"

    def search() -> None:
        second = Driver(tmp_path, study="first" if how == "its own" else "second", **more)
        second.train()
        assert not second.study.running

    refused_in_one_line(command_end(search, tmp_path.parent, cache_folder()))
