"""Trials a page at a time; plots of many trials draw some of them."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest
from helpers.studies import frozen, study_of
from optuna.trial import TrialState

from dashboards.context import THINNED, study_context
from dashboards.study_view import MOST_CURVES, MOST_DRAWN, StudyView
from dashboards.templating import page
from dashboards.trial_list import PAGE_ROWS, TrialList

MANY = 1200


@pytest.fixture(scope="module")
def view() -> StudyView:
    trials = [
        frozen(
            n,
            TrialState.PRUNED if n % 3 == 2 else TrialState.COMPLETE,
            score=((n * 7919) % MANY) / MANY,
        )
        for n in range(MANY)
    ]
    return StudyView.read(study_of(trials))


def numbers(found: TrialList) -> list[int]:
    return [row.number for row in found.rows]


def test_pages_one_after_the_other_are_all_trials(view: StudyView):
    pages = [TrialList.asked(view.rows, {"page": str(p)}) for p in range(1, 13)]
    assert [number for found in pages for number in numbers(found)] == list(range(MANY))
    assert {found.pages for found in pages} == {12}
    assert numbers(TrialList.asked(view.rows, {})) == list(range(PAGE_ROWS))


@pytest.mark.parametrize("asked", ["0", "-1", "x", "9" * 30, "", "13"])
def test_a_page_that_is_none_is_the_nearest(view: StudyView, asked: str):
    found = TrialList.asked(view.rows, {"page": asked})
    assert found.page == (12 if asked == "13" else 1)


def test_states_and_orders(view: StudyView):
    pruned = TrialList.asked(view.rows, {"state": "pruned", "order": "map"})
    assert pruned.total == MANY // 3
    scores = [row.map for row in pruned.rows]
    assert scores == sorted(scores, reverse=True)
    assert {row.state for row in pruned.rows} == {"PRUNED"}
    assert numbers(TrialList.asked(view.rows, {"order": "latest"}))[0] == MANY - 1
    unknown = TrialList.asked(view.rows, {"state": "gone", "order": "gone"})
    assert (unknown.state, unknown.order, unknown.total) == ("", "number", MANY)


def test_links_keep_what_is_asked_and_begin_at_the_first_page(view: StudyView):
    found = TrialList.asked(view.rows, {"state": "pruned", "order": "map", "page": "2"})
    query = dict(parse_qsl(found.link(order="memory").removeprefix("?").partition("#")[0]))
    assert query == {"page": "1", "state": "pruned", "order": "memory"}
    again = TrialList.asked(view.rows, dict(parse_qsl(found.link(page=3)[1:].partition("#")[0])))
    assert (again.page, again.state, again.order) == (3, "pruned", "map")


def test_plots_draw_the_best_and_a_sample(view: StudyView):
    assert len(view.drawn) == MOST_DRAWN
    assert len(view.drawn_curves) == MOST_CURVES
    best = sorted(view.rows, key=lambda row: -(row.map or 0))[: MOST_CURVES // 10]
    assert {row.number for row in best} <= {row.number for row in view.drawn_curves}
    gaps = [b.number - a.number for a, b in zip(view.drawn, view.drawn[1:], strict=False)]
    assert max(gaps) <= 5


def test_a_page_of_many_trials_is_small_and_a_report_whole(view: StudyView):
    shown, whole = study_context(view, {}), study_context(view)
    assert THINNED in shown.plots[0].caption
    html = page("study.html", "", shown=shown)
    assert len(html) < 1_000_000
    assert "page 1 of 12" in html
    assert "The first 100 of 800." in html
    assert len(whole.cells) == MANY
    drawn = sum(len(trace.get("x") or []) for trace in json.loads(shown.plots[0].json)["data"])
    assert drawn <= MOST_DRAWN + 2


def test_few_trials_are_all_drawn():
    few = StudyView.read(study_of([frozen(n, score=n / 10) for n in range(3)]))
    shown = study_context(few, {})
    assert THINNED not in shown.plots[0].caption
    assert few.drawn == few.drawn_curves == few.rows
