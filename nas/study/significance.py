"""How sure a search's result is: another seed gives another score, and the best of many scores is
likely to be a lucky one.

A candidate's score is therefore the mean of its replicates, which did not choose it; one that has
none is known by the score that chose it, and no interval is given. Baselines were not chosen: all
their trainings count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from scipy.stats import t, ttest_ind

from nas.reports import BaselineRow, LeaderboardRow
from nas.study.leaderboard import feasible, ranked, repetitions, trial_row
from search_spaces.layout import Layout

LEVEL = 0.95


def board_rows(trials: Sequence[FrozenTrial], front: Collection[int] = ()) -> list[LeaderboardRow]:
    """The leaderboard of a study, the best candidate first, in the order of `ranked`.

    A row is within noise where its mAP, the mean of its replicates if it has any, is below that of
    the first row by less than the 97.5 % quantile of Student's t times the standard error of the
    difference, which follows from the deviation between seeds (`seed_deviation`).

    Args:
        trials: of one study, all roles and states.
        front: numbers of the trials on the Pareto front; empty with one objective.
    """
    again = repetitions(trials)
    rows = [
        _board_row(trial, again.get(str(trial.user_attrs.get("layout_id")), []), front)
        for trial in ranked(trials)
    ]
    noise = seed_deviation(trials)
    if noise is None:
        return rows
    return [
        replace(row, within_noise=rank == 0 or _is_within_noise(*noise, rows[0], row))
        for rank, row in enumerate(rows)
    ]


def _board_row(
    trial: FrozenTrial, replicates: Sequence[float], front: Collection[int]
) -> LeaderboardRow:
    return LeaderboardRow(
        **vars(trial_row(trial)),
        replicates=len(replicates),
        map_again=statistics.fmean(replicates) if replicates else None,
        within_noise=None,
        pareto=trial.number in front if front else None,
    )


def seed_deviation(trials: Sequence[FrozenTrial]) -> tuple[float, int] | None:
    """Standard deviation of mAP between trainings of one layout with several seeds, pooled over the
    layouts.

    The scores that chose a candidate are left out.

    Returns:
        The deviation, a fraction 0 to 1, and its degrees of freedom; None where no layout has two
        scores.
    """
    groups = [values for values in _unchosen(trials).values() if len(values) > 1]
    degrees = sum(len(values) - 1 for values in groups)
    if not degrees:
        return None
    return math.sqrt(
        sum((len(values) - 1) * statistics.variance(values) for values in groups) / degrees
    ), degrees


def against_baselines(
    study_attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]
) -> list[BaselineRow]:
    """Every baseline of a search beside its best candidate.

    Args:
        study_attributes: of the study; `nas_baselines` lists the baselines.
        trials: of the study, all roles and states.
    """
    best = next(iter(ranked(trials)), None)
    ours = best and (
        repetitions(trials).get(str(best.user_attrs.get("layout_id"))) or [best.values[0]]
    )
    rows = []
    for baseline in study_attributes.get("nas_baselines", []):
        layout_id = Layout.parse(baseline["layout"]).layout_id
        runs = [trial for trial in trials if trial.user_attrs.get("layout_id") == layout_id]
        rows.append(_baseline_row(baseline, ours or [], runs, is_best=best in runs))
    return rows


def _baseline_row(
    baseline: Mapping[str, Any],
    ours: Sequence[float],
    runs: Sequence[FrozenTrial],
    *,
    is_best: bool,
) -> BaselineRow:
    """One baseline with its `runs`, beside the scores of the best candidate; `is_best` where that
    is one of the runs.
    """
    theirs = [
        trial.values[0] for trial in runs if trial.state == TrialState.COMPLETE and feasible(trial)
    ]
    compared = bool(theirs and ours) and not is_best
    low, high = difference_interval(ours, theirs) if compared else (None, None)
    return BaselineRow(
        name=baseline["name"],
        layout=baseline["layout"],
        memory_predicted_gib=baseline["memory_predicted_gib"],
        trainings=len(theirs),
        map=statistics.fmean(theirs) if theirs else None,
        deviation=statistics.stdev(theirs) if len(theirs) > 1 else None,
        difference=statistics.fmean(ours) - statistics.fmean(theirs) if compared else None,
        difference_low=low,
        difference_high=high,
        verdict=_verdict(low, high) if compared else _why_not_compared(theirs, runs, is_best),
    )


def _verdict(low: float | None, high: float | None) -> str:
    """What an interval of the difference says of the best candidate."""
    if low is None or high is None:
        return "no interval"
    return "better" if low > 0 else "worse" if high < 0 else "within noise"


def _why_not_compared(theirs: Sequence[float], runs: Sequence[FrozenTrial], is_best: bool) -> str:
    if theirs:
        return "the best itself" if is_best else "no candidate yet"
    reasons = [trial_row(trial).reason for trial in runs]
    return next((reason for reason in reasons if reason), "not trained yet")


def difference_interval(
    ours: Sequence[float], theirs: Sequence[float]
) -> tuple[float, float] | tuple[None, None]:
    """Confidence interval at `LEVEL` of the difference of two means, mean of `ours` minus mean of
    `theirs`, without assuming equal variances (Welch's t-test).

    Returns:
        Its lower and upper end; None twice where one of the two has fewer than two values.
    """
    if min(len(ours), len(theirs)) < 2:
        return None, None
    if statistics.pvariance(ours) == statistics.pvariance(theirs) == 0:
        return (statistics.fmean(ours) - statistics.fmean(theirs),) * 2
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(LEVEL)
    return float(interval.low), float(interval.high)


def _unchosen(trials: Sequence[FrozenTrial]) -> dict[str, list[float]]:
    """Scores by layout id that chose nothing: of a candidate those of its replicates, of any other
    layout all.
    """
    candidates = {str(trial.user_attrs.get("layout_id")) for trial in ranked(trials)}
    scores = repetitions(trials)
    for trial in trials:
        layout_id = str(trial.user_attrs.get("layout_id"))
        is_first = (
            layout_id in scores
            and layout_id not in candidates
            and not trial.user_attrs.get("replicate")
        )
        if is_first and trial.state == TrialState.COMPLETE and feasible(trial):
            scores[layout_id] = [trial.values[0], *scores[layout_id]]
    return scores


def _is_within_noise(
    deviation: float, degrees: int, best: LeaderboardRow, row: LeaderboardRow
) -> bool:
    counts = [max(1, each.replicates) for each in (best, row)]
    quantile = float(t.ppf((1 + LEVEL) / 2, degrees))
    margin = quantile * deviation * math.sqrt(sum(1 / count for count in counts))
    return _score(best) - _score(row) < margin


def _score(row: LeaderboardRow) -> float:
    """mAP that did not choose the candidate, where there is one."""
    score = row.value if row.map_again is None else row.map_again
    assert score is not None
    return score
