"""Predictions of memory, corrected by what completed trials of the search were measured to need."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from nas.search.budget import Budget
from nas.search.layout_filter import LayoutFilter
from nas.study.trials import TrialTable
from nas.utils.formatting import GIB
from search_spaces.layout import Layout


def correct_predictions(table: TrialTable, budget: Budget, layout_filter: LayoutFilter) -> None:
    """Fit the correction to all trials measured on the kind of card that completed a trial last,
    put it into the study's attributes and forget what was decided by earlier predictions.

    Nothing changes while no trial has completed on a GPU.

    Args:
        table: the trials, as last read.
        budget: its predictions are corrected; its limit stays.
        layout_filter: its decisions follow from the predictions.
    """
    measured = [
        trial
        for trial in table.trained
        if trial.state == TrialState.COMPLETE and trial.user_attrs.get("memory_peak_gib")
    ]
    if not measured:
        return
    device = max(measured, key=_completed_at).user_attrs["device"]
    pairs = [
        (Layout.parse(attributes["layout"]), round(attributes["memory_peak_gib"] * GIB))
        for attributes in (trial.user_attrs for trial in measured)
        if attributes["device"] == device
    ]
    correction = budget.fit_correction(device, pairs)
    table.study.set_user_attr("nas_memory_correction", asdict(correction))
    layout_filter.clear_cache()


def _completed_at(trial: FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_complete
    return trial.datetime_complete, trial.number
