"""How sure a search's result is: another seed gives another score, and the best of many scores is
likely to be a lucky one.

A candidate's score is therefore the mean of its replicates, which did not choose it; one that has
none is known by the score that chose it, and no interval is given. Baselines were not chosen: all
their trainings count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from scipy.stats import t, ttest_ind

from nas.study.leaderboard import feasible, ranked, repetitions, trial_row
from search_spaces.layout import Layout

LEVEL = 0.95


def board_rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """The leaderboard as plain JSON: rows of `nas.study.leaderboard.trial_row` and of each

    `replicates`, how many there are; `map_again`, their mean, None without any; `within_noise`,
    whether it may be as good as the first row: the difference is below the 97.5 % quantile of
    Student's t times its standard error. None where no layout was trained with several seeds.
    """
    again, board = repetitions(trials), ranked(trials)
    noise = seed_deviation(trials)
    known = [(trial, again.get(str(trial.user_attrs.get("layout_id")), [])) for trial in board]
    rows = [
        trial_row(trial)
        | {"replicates": len(values), "map_again": statistics.fmean(values) if values else None}
        for trial, values in known
    ]
    for row in rows:
        row["within_noise"] = noise and _shown(rows[0]) - _shown(row) < _margin(
            *noise, rows[0], row
        )
    return rows


def seed_deviation(trials: Sequence[FrozenTrial]) -> tuple[float, int] | None:
    """Standard deviation between trainings of one layout, pooled over the layouts, and its degrees
    of freedom; None where none has two. The scores that chose a candidate are left out.
    """
    groups = [values for values in _unchosen(trials).values() if len(values) > 1]
    degrees = sum(len(values) - 1 for values in groups)
    if not degrees:
        return None
    return math.sqrt(
        sum((len(values) - 1) * statistics.variance(values) for values in groups) / degrees
    ), degrees


def against_baselines(
    known: Mapping[str, Any], trials: Sequence[FrozenTrial]
) -> list[dict[str, Any]]:
    """Every baseline beside the best candidate.

    Args:
        known: attributes of the study.
        trials: of the study.

    Returns:
        Plain JSON: what `nas_baselines` has, `map` and `deviation` of the baseline's `trainings`,
        `difference` of the best candidate's mAP to it and its 95 % interval by Welch's t-test,
        `difference_low` and `difference_high`; `verdict`: `better`, `worse`, `within noise`, `no
        interval` where one of the two has fewer than two scores, `the best itself`, or why it was
        not trained.
    """
    best = next(iter(ranked(trials)), None)
    ours = best and (
        repetitions(trials).get(str(best.user_attrs.get("layout_id"))) or [best.values[0]]
    )
    found = []
    for baseline in known.get("nas_baselines", []):
        layout_id = Layout.parse(baseline["layout"]).layout_id
        runs = [trial for trial in trials if trial.user_attrs.get("layout_id") == layout_id]
        found.append(baseline | _beside(ours or [], runs, itself=best in runs))
    return found


def _beside(ours: Sequence[float], runs: Sequence[FrozenTrial], *, itself: bool) -> dict[str, Any]:
    """One baseline with its `runs`, beside the best candidate's scores; `itself` if that is one of
    them.
    """
    theirs = [
        trial.values[0] for trial in runs if trial.state == TrialState.COMPLETE and feasible(trial)
    ]
    row = {
        "trainings": len(theirs),
        "map": statistics.fmean(theirs) if theirs else None,
        "deviation": statistics.stdev(theirs) if len(theirs) > 1 else None,
        "difference": None,
        "difference_low": None,
        "difference_high": None,
    }
    if not theirs:
        return row | {"verdict": _why_not(runs)}
    if itself or not ours:
        return row | {"verdict": "the best itself" if itself else "no candidate yet"}
    row["difference"] = statistics.fmean(ours) - statistics.fmean(theirs)
    if min(len(ours), len(theirs)) < 2:
        return row | {"verdict": "no interval"}
    low, high = difference_interval(ours, theirs)
    verdict = "better" if low > 0 else "worse" if high < 0 else "within noise"
    return row | {"difference_low": low, "difference_high": high, "verdict": verdict}


def difference_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Of the difference of two means, at `LEVEL`, the variances unequal (Welch); at least two
    values each.
    """
    if statistics.pvariance(ours) == statistics.pvariance(theirs) == 0:
        return (statistics.fmean(ours) - statistics.fmean(theirs),) * 2
    found = ttest_ind(ours, theirs, equal_var=False).confidence_interval(LEVEL)
    return float(found.low), float(found.high)


def _unchosen(trials: Sequence[FrozenTrial]) -> dict[str, list[float]]:
    """Scores by layout: of what was not trained as a candidate all, of candidates those of other
    seeds.
    """
    candidates = {str(trial.user_attrs.get("layout_id")) for trial in ranked(trials)}
    found = repetitions(trials)
    for trial in trials:
        layout_id = str(trial.user_attrs.get("layout_id"))
        first = (
            layout_id in found
            and layout_id not in candidates
            and not trial.user_attrs.get("replicate")
        )
        if first and trial.state == TrialState.COMPLETE and feasible(trial):
            found[layout_id] = [trial.values[0], *found[layout_id]]
    return found


def _shown(row: Mapping[str, Any]) -> float:
    return float(row["value"] if row["map_again"] is None else row["map_again"])


def _margin(
    deviation: float, degrees: int, best: Mapping[str, Any], row: Mapping[str, Any]
) -> float:
    if best is row:
        return math.inf
    counts = [max(1, each["replicates"]) for each in (best, row)]
    return (
        float(t.ppf((1 + LEVEL) / 2, degrees))
        * deviation
        * math.sqrt(sum(1 / count for count in counts))
    )


def _why_not(runs: Sequence[FrozenTrial]) -> str:
    said = [
        trial.user_attrs.get("infeasible_reason") or trial.user_attrs.get("fail_reason")
        for trial in runs
    ]
    return next((reason for reason in said if reason), "not trained yet")
