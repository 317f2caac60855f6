"""Figures of a study: what is on them, from nothing to hundreds of trials."""

from __future__ import annotations

import json

import optuna
import pytest
from helpers.studies import SPEC, frozen, study_of
from optuna.trial import TrialState

from dashboards import score_plots, training_plots
from dashboards.context import figure_json
from dashboards.plots import PLOTS
from dashboards.study_view import StudyView, pattern
from dashboards.summary import summary_paragraphs


def view(*trials, **known) -> StudyView:
    return StudyView.read(study_of(list(trials), **known))


def said(figure) -> str:
    """The text of a figure that shows nothing."""
    assert not figure.data
    return figure.layout.annotations[0].text.replace("<br>", " ")


def trace(figure, name: str):
    (found,) = [
        trace for trace in figure.data if trace.name == name and trace.showlegend is not False
    ]
    return found


def many(count: int) -> list:
    states = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [frozen(number, states[number % 4], score=(number % 17) / 20) for number in range(count)]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_every_plot_takes_any_number_of_trials(plot, count: int):
    figure = plot.draw(view(*many(count)))
    assert figure.data or figure.layout.annotations, "an empty figure says why"
    assert json.loads(figure_json(figure))["layout"]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]], ids=len)
def test_every_plot_takes_a_study_that_is_no_search(plot, directions: list[str]):
    study = optuna.create_study(directions=directions)
    for number in range(6):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, [number] * len(directions))
    study.ask()
    assert plot.draw(StudyView.read(study)).to_json()


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_figures_do_not_change_the_study(plot):
    seen = view(*many(8))
    before = repr(seen.trials), repr(seen.attributes)
    plot.draw(seen)
    after = StudyView.read(seen.study)
    assert (repr(after.trials), repr(after.attributes)) == before


def test_memory_is_measured_else_predicted_and_scores_are_per_cent():
    trials = (
        frozen(0, score=0.2, memory_predicted_gib=0.5),
        frozen(1, score=0.4, memory_peak_gib=0.75),
    )
    figure = score_plots.memory_and_map(view(*trials))
    points = trace(figure, "complete")
    assert (points.x, points.y) == ((0.5, 0.75), (20.0, 40.0))
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (1.0, 1.0)
    assert figure.layout.annotations[0].text == "budget 1 GiB"


def test_infeasible_candidates_stand_out():
    over = frozen(
        1, TrialState.PRUNED, infeasible_reason="needs 1.2 GiB", memory_peak_gib=1.2, map=None
    )
    points = trace(score_plots.memory_and_map(view(frozen(0), over)), "infeasible")
    assert (points.x, points.y, points.marker.symbol) == ((1.2,), (0.0,), "x")
    assert "needs 1.2 GiB" in points.hovertext[0]


@pytest.mark.parametrize(("budget", "kind"), [(0.5, "linear"), (16.0, "log")])
def test_a_roomy_budget_does_not_squeeze_the_candidates(budget: float, kind: str):
    figure = score_plots.memory_and_map(
        view(frozen(0, memory_predicted_gib=0.1), nas_budget_gib=budget)
    )
    assert figure.layout.xaxis.type == kind
    assert figure.layout.annotations[0].x == pytest.approx(
        budget if kind == "linear" else 1.20412
    )  # log10 of 16


def test_the_front_is_what_nothing_beats():
    """By the definition: a slow comparison of all pairs."""
    scores = [0.3, 0.1, 0.35, 0.35, 0.2, 0.5]
    sizes = [0.2, 0.3, 0.5, 0.4, 0.1, 0.9]
    pairs = enumerate(zip(scores, sizes, strict=True))
    trials = [
        frozen(number, score=score, memory_predicted_gib=size) for number, (score, size) in pairs
    ]
    front = trace(score_plots.pareto(view(*trials)), "Pareto front")
    points = list(zip(sizes, scores, strict=True))
    beaten = [any(m <= x and s >= y and (m, s) != (x, y) for m, s in points) for x, y in points]
    expected = sorted((x, 100 * y) for (x, y), lost in zip(points, beaten, strict=True) if not lost)
    assert (*front.x, *front.y) == pytest.approx(
        [value for axis in zip(*expected, strict=True) for value in axis]
    )
    assert len(expected) == 4


def test_the_front_leaves_out_what_does_not_fit():
    over = frozen(
        1, score=0.9, infeasible_reason="needs more"
    )  # complete and infeasible: measured above the budget
    figure = score_plots.pareto(view(frozen(0, score=0.1), over))
    assert trace(figure, "Pareto front").y == (10.0,)


def test_courses_have_gaps_between_them_and_marks_where_they_were_stopped():
    figure = score_plots.epochs(
        view(frozen(0, score=0.4), frozen(1, score=0.2), frozen(2, TrialState.PRUNED, score=0.2))
    )
    complete = trace(figure, "complete")
    assert complete.x == (1, 2, 3, 4, None, 1, 2, 3, 4, None)
    assert complete.y == pytest.approx((10, 20, 30, 40, None, 5, 10, 15, 20, None), nan_ok=True)
    (mark,) = [each for each in figure.data if each.mode == "markers"]
    assert (mark.x, mark.y, mark.marker.symbol) == ((2,), (10.0,), "triangle-down")
    assert trace(figure, "best: trial 0").y == pytest.approx((10, 20, 30, 40))


def test_patterns_come_best_first():
    figure = score_plots.patterns(
        view(*(frozen(number, score=(number + 1) / 10) for number in range(5)))
    )
    assert [box.x[0] for box in figure.data] == ["C-T-T-T", "C-C-C-C", "T-T-T-T", "C-C-T-T"]
    assert figure.data[-1].y == pytest.approx((20.0, 10.0))


@pytest.mark.parametrize(
    ("layout", "kinds"),
    [("C2-C2-T12-T4", "C-C-T-T"), ("T1-C1-T1-C10@16,20,24,28+norm=gn", "T-C-T-C"), (None, None)],
)
def test_patterns_are_those_of_the_layout(layout: str | None, kinds: str | None):
    assert pattern(layout) == kinds


def test_importances_need_trials_that_differ():
    assert said(score_plots.importances(view(*(frozen(n) for n in range(3))))).startswith(
        "3 completed candidates are too few"
    )
    trials = [frozen(number, score=0.1 * (number % 4)) for number in range(20)]
    bars = score_plots.importances(view(*trials)).data[0]
    assert (
        bars.y[-1] == "depth"
    )  # the score follows it, the other parameter has nothing to do with it
    assert sum(bars.x) == pytest.approx(1)


def test_calibration_is_shown_before_and_after():
    figure = training_plots.calibration(view(frozen(0), frozen(1), frozen(2, calibration=None)))
    assert trace(figure, "before").y == (3.0, 3.0)
    assert trace(figure, "after").y == (1.0, 1.1)
    assert figure.data[0].x == (0, 0, 0, 1, 1, 1)
    assert (
        said(training_plots.calibration(view(frozen(0, calibration=None))))
        == "no candidate's gradients were calibrated"
    )


def test_calibrated_outputs_have_no_gradients_to_show():
    outputs = {"definition": "outputs", "class_biases": [-4.0]}
    figure = training_plots.calibration(view(frozen(0, calibration=outputs), frozen(1)))
    assert trace(figure, "before").x == (1,)
    assert said(training_plots.calibration(view(frozen(0, calibration=outputs))))


@pytest.mark.parametrize(
    ("calibration", "weights", "words"),
    [
        ({"enabled": True, "definition": "outputs"}, None, "outputs calibrated."),
        ({"enabled": True, "definition": "paper"}, None, "gradients calibrated."),
        ({"enabled": True}, None, "gradients calibrated."),
        ({"enabled": False, "definition": "outputs"}, None, "without calibration."),
        ({"enabled": True, "definition": "outputs"}, "w.pt", "without calibration."),
    ],
)
def test_the_summary_says_what_was_calibrated(calibration: dict, weights: str | None, words: str):
    spec = {**SPEC, "calibration": calibration, "recipe": {**SPEC["recipe"], "weights": weights}}
    text = {part.title: part.text for part in summary_paragraphs(view(nas_spec=spec))}
    assert text["Training"].endswith(f"; {words}")


def test_without_a_gpu_nothing_was_measured():
    assert "on a GPU only" in said(training_plots.predicted_and_measured(view(frozen(0))))
    figure = training_plots.predicted_and_measured(
        view(frozen(0, memory_predicted_gib=0.5, memory_peak_gib=0.6))
    )
    points = trace(figure, "complete")
    assert (points.x, points.y) == ((0.5,), (0.6,))


@pytest.mark.parametrize(
    ("gpu_s", "title", "hours"),
    [(7200.0, "GPU-hours", 2.0), (90.0, "GPU-minutes", 1.5), (0.0, "minutes of training", 1.0)],
)
def test_hours_are_those_of_gpus_where_there_are_some(gpu_s: float, title: str, hours: float):
    figure = training_plots.hours(
        view(frozen(0, gpu_s=gpu_s), frozen(1, TrialState.PRUNED, gpu_s=gpu_s / 2))
    )
    assert figure.layout.xaxis.title.text.startswith(title)
    assert figure.data[0].x == pytest.approx((hours,))
    assert [bar.name for bar in figure.data] == ["complete", "pruned"]


def test_texts_of_a_study_are_no_markup():
    bad = "<img src=x onerror=alert(1)>"
    failed = frozen(0, TrialState.PRUNED, infeasible_reason=bad, layout=bad)
    text = figure_json(score_plots.memory_and_map(view(failed)))
    assert "<" not in text
    assert "&lt;img" in json.loads(text)["data"][0]["hovertext"][0]
