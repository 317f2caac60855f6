"""What a search optimizes: directions of the objectives, and their values for a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nas.reports.trials import measured_or_predicted_gib

MAXIMIZED = ("map", "fps")  # all others, memory, flops, params and latency, are minimized


def directions(objectives: Sequence[str]) -> list[Literal["maximize", "minimize"]]:
    """Directions of objectives, in their order, as Optuna names them."""
    return ["maximize" if name in MAXIMIZED else "minimize" for name in objectives]


def objective_values(objectives: Sequence[str], attributes: Mapping[str, Any]) -> list[float]:
    """Values of a completed trial.

    Args:
        objectives: names as in `search.objectives`.
        attributes: user attributes of the trial, see `nas.study.schema`.

    Returns:
        One value for each objective. `map` is a fraction, 0 where nothing could be scored; `memory`
        is in GiB, measured where there is a GPU and predicted elsewhere; `latency` is in
        milliseconds.
    """
    memory_gib = measured_or_predicted_gib(attributes)
    values = {**attributes, "map": attributes["map"] or 0.0, "memory": memory_gib}
    values["latency"] = attributes.get("latency_ms")
    return [float(values[name]) for name in objectives]
