"""Studies made of tables, as priors of searches on other tables, and what an answer is worth."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import optuna
import pytest
from helpers.tables import PROGRAMS, plain, program, quality, run, table_of
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nas.search.prior_studies import read_study
from search_spaces.layout import Layout


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch: pytest.MonkeyPatch):
    """Python puts a script's folder in front of the path."""
    monkeypatch.syspath_prepend(PROGRAMS)


def curves(
    tabular: ModuleType, shuffled: int | None, forty: int | None = None
) -> dict[str, tuple[float, ...]]:
    """Scores by layout of the study that a table is made into."""
    storage = InMemoryStorage()
    tabular.add_study(storage, table_of(), shuffled, forty)
    study = optuna.load_study(study_name=tabular.EARLIER, storage=storage)
    assert len(read_study(study).trained.layouts) == len(study.trials)
    return {
        trial.user_attrs["layout"]: tuple(trial.intermediate_values.values())
        for trial in study.get_trials()
    }


def test_a_table_becomes_a_study_and_is_dealt_out_anew_by_a_seed():
    tabular = program("__main__")
    table, as_it_is = table_of(), curves(tabular, None)
    assert as_it_is == {layout: runs[0].map for layout, runs in table.by_layout.items()}
    dealt = curves(tabular, 1)
    assert dealt != as_it_is
    assert sorted(dealt.values()) == sorted(as_it_is.values())
    assert dealt == curves(tabular, 1) != curves(tabular, 2)
    some = curves(tabular, None, 1)
    assert len(some) == 40
    assert some.items() <= as_it_is.items()
    assert some.keys() != curves(tabular, None, 2).keys()


def test_the_prior_of_the_table_itself_finds_its_best_at_once():
    tabular = program("__main__")
    table = table_of(lambda layout: [dataclasses.replace(plain(layout)[0], seed=s) for s in (0, 1)])
    scale = tabular.Scale.of(table)
    after = [tabular.regrets(table, scale, table, arm, 0) for arm in ("other", "random")]
    assert after[0][-1] == 0
    assert after[0][-1] <= after[1][-1]


def test_an_answer_is_worth_the_mean_of_the_trainings_that_were_not_seen():
    answer = program("answer")
    known = table_of()
    layout = next(iter(known.by_layout))
    runs = [run(layout, (score,) * 4, seed=seed) for seed, score in enumerate((0.1, 0.2, 0.6))]
    table = dataclasses.replace(known, runs=tuple(runs))
    trial = optuna.trial.create_trial(value=0.2, user_attrs={"layout": layout})
    assert answer.held_out(table, trial, seed=1) == pytest.approx(0.35)


def test_the_model_chooses_among_the_best_five_by_score():
    answer, known = program("answer"), table_of()
    names = [name for name in known.by_layout if "C" in name][:12]
    runs = [run(name, (quality(Layout.parse(name)),) * 4, seed=s) for name in names for s in (0, 1)]
    table = dataclasses.replace(known, runs=tuple(runs))
    trials = [
        optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            value=quality(Layout.parse(name)),
            user_attrs={"layout": name, "flops": 10 + place},
            intermediate_values={4: quality(Layout.parse(name))},
        )
        for place, name in enumerate(names)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    found = answer.judged(table, trials, seed=0)
    assert found["complete"] == 12
    assert found["score"] == max(trial.value for trial in trials)
    assert found["score_errors"] == pytest.approx([0.0] * 12)
    assert found["expected"] >= sorted(trial.value for trial in trials)[-5]
    assert answer.judged(table, trials[:2], seed=0) is None


def test_rules_are_judged_by_ratios_of_means():
    """Two searches: 1 + 3 of 2 + 6 points is a half, whose interval is none at all."""
    tabular = program("__main__")
    found = {"random": [[2.0] * 3, [6.0] * 3], "none": [[1.0] * 3, [3.0] * 3]}
    assert list(tabular.judged(found)) == [
        "none at 3.0% is 0.50 (0.50 to 0.50) of random; at most 0.7: met",
        "none at 6.0% is 0.50 (0.50 to 0.50) of random; at most 0.35: missed",
        "none at 12.5% is 0.50 (0.50 to 0.50) of random; at most 0.5: met",
    ]
    assert "none | 2.00 ± 1.00 (0.50)" in tabular.line("none", found)
