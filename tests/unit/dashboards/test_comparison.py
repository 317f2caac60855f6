"""Studies side by side: in which keys they differ, and the best so far of each."""

from __future__ import annotations

from helpers.studies import SPEC, frozen, study_of
from optuna.trial import TrialState

from dashboards.comparison import best_so_far, compare, differences
from dashboards.study_view import StudyView


def test_only_what_differs_is_named_whatever_belongs_to_each():
    other = {
        **SPEC,
        "study": "others",
        "recipe": {**SPEC["recipe"], "epochs": 8},
        "search": {**SPEC["search"], "objectives": ["map", "memory"]},
    }
    del other["budget"]
    assert differences([SPEC, other]) == [
        ("budget.memory", ["1GiB", "-"]),
        ("budget.mode", ["cap", "-"]),
        ("recipe.epochs", ["4", "8"]),
        ("search.objectives", ["['map']", "['map', 'memory']"]),
    ]
    assert differences([SPEC, SPEC]) == []


def test_the_best_so_far_never_falls_and_counts_completed_candidates():
    trials = [
        frozen(0, score=0.2),
        frozen(1, TrialState.PRUNED, score=0.9),
        frozen(2, score=0.1),
        frozen(3, score=0.9, role="baseline"),
        frozen(4, score=0.3),
    ]
    (line,) = best_so_far([StudyView.read(study_of(trials))]).data
    assert list(line.x) == [1, 2, 3]
    assert [round(value, 6) for value in line.y] == [20, 20, 30]
    assert not best_so_far([StudyView.read(study_of([]))]).data


def test_each_study_shows_its_best_five():
    studies = [study_of([frozen(n, score=0.1 + n / 100) for n in range(7)], name) for name in "ab"]
    shown = compare([StudyView.read(study) for study in studies])
    assert [study.name for study in shown.studies] == ["a", "b"]
    assert [row.number for row in shown.studies[0].board] == [6, 5, 4, 3, 2]
