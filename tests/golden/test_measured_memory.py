"""Memory as it was measured, kept in benchmarks/results: today's prediction must still agree with
it.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from nas.config.sections import DetectorSpec
from nas.profiling.memory import Training, predict_memory
from search_spaces.layout import Layout

RESULTS = sorted(
    (Path(__file__).parent.parent.parent / "benchmarks" / "results").glob("memory-*.json")
)
MEDIAN_ERROR, WORST_ERROR = {"cpu": 0.002, "cuda": 0.03}, {"cpu": 0.01, "cuda": 0.08}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_prediction_agrees_with_what_was_measured(path: Path):
    content = json.loads(path.read_text())
    kind = "cpu" if content["device"] == "cpu" else "cuda"
    errors = []
    for row in content["rows"]:
        training = Training(
            tuple(row["batch_shape"]),
            row["boxes_per_image"],
            row["precision"],
            checkpointing=row["checkpointing"],
            cuda=kind == "cuda",
        )
        predicted = predict_memory(
            Layout.parse(row["layout"]), DetectorSpec(name=row["detector"]), 80, training
        )
        errors.append(abs(predicted.peak_bytes / row["measured_bytes"] - 1))
    assert len(errors) >= (20 if kind == "cpu" else 40)
    assert statistics.median(errors) <= MEDIAN_ERROR[kind]
    assert max(errors) <= WORST_ERROR[kind]


def test_there_is_something_to_compare_with():
    assert RESULTS
