"""Forecasts that this machine keeps, so that a search of the same request can put its own into its
study.
"""

from __future__ import annotations

import os
from typing import Any

import optuna

from nas.config.spec import SearchSpec
from nas.reports import DatasetSummary
from nas.reports.forecast import SearchForecast
from nas.utils.device import default_device, device_name, processor
from nas.utils.disk_cache import DiskCache

# A forecast is void when the code changes that was measured, or that reckons with it.
FORECASTS = DiskCache(
    "forecasts",
    (
        "nas.reports",
        "nas.search",
        "nas.profiling",
        "nas.training",
        "nas.evaluation",
        "nas.models",
        "nas.data",
        "search_spaces",
    ),
)


def remember(
    spec: SearchSpec, facts: DatasetSummary, local: bool, predicted: SearchForecast
) -> None:
    """Keep a forecast on this machine, for a search of the same request.

    Args:
        spec: the request.
        facts: its data set.
        local: the search runs without Ray.
        predicted: what `forecast` returned; its details are not kept.
    """
    FORECASTS.put(_key(spec, facts, local), predicted.summary_dict())


def recall(spec: SearchSpec, facts: DatasetSummary, local: bool) -> dict[str, Any] | None:
    """The latest forecast for the same request on this machine, as `SearchForecast.summary_dict`
    made it; None where there was none.

    Args:
        spec: the request.
        facts: its data set.
        local: the search runs without Ray.
    """
    return FORECASTS.get(_key(spec, facts, local))


def note_forecast(
    study: optuna.Study, spec: SearchSpec, facts: DatasetSummary, local: bool
) -> None:
    """Write what was predicted for a request, if anything was, into the attributes of its study.

    Args:
        study: of the search.
        spec: the request.
        facts: its data set.
        local: the search runs without Ray.
    """
    if predicted := recall(spec, facts, local):
        study.set_user_attr("nas_cost_predicted", predicted)


def _key(spec: SearchSpec, facts: DatasetSummary, local: bool) -> dict[str, Any]:
    asked = spec.model_dump(
        mode="json",
        exclude={"study": True, "storage": True, "data": True, "run": {"output", "cluster"}},
    )
    return {"request": asked, "data": facts.fingerprint, "local": local, "hardware": machine()}


def machine() -> dict[str, Any]:
    """What forecasts on this machine hold for: `device` (`cpu` or the name of the GPU), `cpu` (name
    of the processor) and `cores`.
    """
    return {"device": _device(), "cpu": processor(), "cores": os.cpu_count()}


def _device() -> str:
    if default_device() == "cpu":
        return "cpu"
    import torch

    return device_name(torch.device("cuda"))
