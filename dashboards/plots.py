"""The plots of a study in the order of its page: each made from one reading of the study, by a
function that changes nothing.

Scores are in per cent, for people. A figure that has nothing to show says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import plotly.graph_objects as go

from dashboards.score_plots import epochs, importances, memory_and_map, pareto, patterns
from dashboards.study_view import StudyView
from dashboards.training_plots import calibration, hours, predicted_and_measured


class Plot(NamedTuple):
    """A plot of a page.

    Attributes:
        name: identifies it in the page.
        title: what it shows.
        caption: what to look for.
        draw: makes the figure from one reading of a study.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[StudyView], go.Figure]


PLOTS = (
    Plot(
        "memory",
        "mAP against memory",
        "Memory of training, measured, else predicted. Left of the dashed line fits into the "
        "budget; crosses were "
        "measured to need more. Diamonds are published backbones at the memory of the search.",
        memory_and_map,
    ),
    Plot(
        "pareto",
        "Pareto front",
        "Candidates that no other beats in both mAP and memory, or latency where the search looks "
        "at it.",
        pareto,
    ),
    Plot(
        "epochs",
        "mAP by epoch",
        "Every candidate; a triangle marks where one was stopped early.",
        epochs,
    ),
    Plot(
        "patterns",
        "Patterns",
        "Which stages are convolutional (C), which transformer (T), and what that scored.",
        patterns,
    ),
    Plot(
        "importances",
        "Parameter importances",
        "What decides whether a candidate is among the best, by Optuna's PED-ANOVA.",
        importances,
    ),
    Plot(
        "calibration",
        "Gradient calibration",
        "C is the mean square of a layer's gradient, its spread the standard deviation over the "
        "layers: with a small one "
        "all layers start to learn at one pace.",
        calibration,
    ),
    Plot(
        "measured",
        "Predicted and measured memory",
        "On the line the prediction was exact.",
        predicted_and_measured,
    ),
    Plot(
        "hours",
        "Where the time went",
        "By how the trainings ended, baselines and replicates included.",
        hours,
    ),
)
