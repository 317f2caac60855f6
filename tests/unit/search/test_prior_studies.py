"""Which studies a prior is read from, and what is refused in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers.tables import PROGRAMS, program
from helpers.untrained import Driver, report

from nas.errors import SpecError, StudyError
from nas.search.forecast.candidates import first_suggestions
from nas.search.prior_studies import builtin_studies, read_study
from search_spaces.layout import Layout


def prior_driver(tmp_path: Path, *names: str, **flags: object) -> Driver:
    """A search that learns from studies, of another recipe than `earlier`."""
    chosen = {"search.sampler": "multifidelity", "recipe.epochs": 3, "search.trials": 24}
    return Driver(tmp_path, study="later", **{**chosen, "search.prior": names, **flags})


@pytest.fixture
def earlier(tmp_path: Path) -> Driver:
    """Twelve trials, wide ones the best; of the last only an epoch is known."""
    driver = Driver(tmp_path, study="earlier", **{"search.trials": 13})
    for _ in range(12):
        assignment = driver.study.ask()
        value = 0.1 + 0.01 * assignment.layout.widths[0]
        for epoch in (1, 2):
            driver.study.report(assignment.number, report(value, epoch))
    driver.study.report(driver.study.ask().number, report(0.2, 1))
    return driver


def test_a_search_begins_with_what_its_prior_expects_most_of(tmp_path: Path, earlier: Driver):
    later = prior_driver(tmp_path, "earlier")
    assert [event.reason for event in later.events] == [
        "prior: layouts are expected to do as in 'earlier' (13 trainings), until results differ"
    ]
    first = [later.study.ask().layout for _ in range(4)]
    assert {layout.widths[0] for layout in first} == {24}
    # It is no result of this study, and nothing in it is taken as trained.
    assert len(later.study.study.trials) == 4
    without = Driver(
        tmp_path, study="without", **{"search.sampler": "multifidelity", "search.trials": 24}
    )
    balanced = [without.study.ask().layout for _ in range(4)]
    assert {layout.widths[0] for layout in balanced} == {16, 24}


def test_a_dry_run_foresees_the_first_layouts(tmp_path: Path, earlier: Driver):
    later = prior_driver(tmp_path, "earlier")
    foreseen = [each.layout for each in first_suggestions(later.study.budget)[0]]
    assert [later.study.ask().layout for _ in range(4)] == foreseen[:4]


def test_stopped_and_running_candidates_are_read_too(earlier: Driver):
    found = read_study(earlier.study.study)
    assert len(found.trained.layouts) == 13
    assert found.left.tolist() == [0.0] * 12 + [0.5]
    wide = np.array([layout.widths[0] == 24 for layout in found.trained.layouts[:12]])
    assert found.scores[:12][wide].min() > found.scores[:12][~wide].max()


def test_baselines_and_replicates_are_not_read(tmp_path: Path, earlier: Driver):
    study = optuna.load_study(study_name="earlier", storage=earlier.spec.storage)
    study.add_trial(
        optuna.trial.create_trial(
            value=0.9,
            user_attrs={"layout": "C3-C4-C6-C3@256", "flops": 10**9, "role": "baseline"},
        )
    )
    assert len(read_study(study).trained.layouts) == 13


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("earlyer",), r"search.prior must be one of earlier, empty, one, builtin; got 'earlyer' "),
        (("later",), "search.prior must be one of earlier, empty, one, builtin; got 'later'"),
        (("empty",), "search.prior: study 'empty' has no completed trial yet"),
        (("earlier", "one"), "'one' and this space must have a feature in common, .* got none"),
    ],
)
def test_refused_before_anything_is_made(
    tmp_path: Path, earlier: Driver, names: tuple[str, ...], said: str
):
    Driver(tmp_path, study="empty")
    Driver(tmp_path, study="one").train()
    with pytest.raises(StudyError, match=said) as refused:
        prior_driver(tmp_path, *names)
    assert "\n" not in str(refused.value)
    assert "later" not in optuna.get_all_study_names(earlier.study.storage)


def test_without_a_database(tmp_path: Path):
    with pytest.raises(StudyError, match="there is no file '.*nas.db'"):
        prior_driver(tmp_path, "earlier")
    told = prior_driver(tmp_path, "builtin").events[0].reason
    assert "as in 'builtin bccd' (240 trainings), 'builtin raccoon' (120 trainings)" in str(told)


@pytest.mark.parametrize("sampler", ["gp", "random", "grid"])
def test_other_samplers_have_no_prior(tmp_path: Path, sampler: str):
    with pytest.raises(SpecError, match=f"search: prior must be left out .* sampler '{sampler}'"):
        prior_driver(tmp_path, "builtin", **{"search.sampler": sampler})


def test_the_built_in_prior_is_made_from_the_tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(PROGRAMS)
    made = program("prior")
    paths = sorted(PROGRAMS.glob("table-*.json"))
    assert made.text(made.builtin(paths)) == made.PATH.read_text()
    bccd = builtin_studies()[0]
    table = json.loads((PROGRAMS / "table-bccd.json").read_text())
    means = {str(layout): [] for layout in bccd.trained.layouts}
    for run in table["runs"]:
        means[run["layout"]].append(run["map"][-1])
    maps = [np.mean(means[str(layout)]) for layout in bccd.trained.layouts]
    # 0.3 of a score is the mAP, 0.7 the training loss, which says much the same there.
    assert np.corrcoef(bccd.scores, maps)[0, 1] > 0.75
    assert all(isinstance(layout, Layout) for layout in bccd.trained.layouts)
