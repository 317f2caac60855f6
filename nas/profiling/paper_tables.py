"""The paper's tables beside what this package counts and predicts for the same layouts.

Counts are of one image of 800 x 1280 pixels, the input that reproduces the printed figures; memory
is of the paper's training: 4 images a GPU, padded to 800 x 1344, fp32, AdamW. The tables print
neither; both were worked out from their figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from nas.config.choices import DetectorName
from nas.config.sections import DetectorSpec
from nas.errors import SpecError
from nas.profiling.flops import count_cost
from nas.profiling.memory import Training, predict_memory
from nas.utils.formatting import gib
from nas.utils.progress import CountProgress
from search_spaces.layout import Layout
from search_spaces.yaml_text import parse_yaml

SWIN_T = "T2-T2-T6-T2"
TABLES = (1, 2, 3, 4, 5)
MEMORY_TABLE = 2
MEMORY_NOTE = (
    "The printed memory is 1.23 to 1.34 times whatever could be rebuilt of the paper's training. "
    "Tried: mmdetection's attention with its scores kept, gradients copied for several GPUs, all "
    "anchors matched with all boxes at once. Not in the paper, and alone worth 1.34 in "
    "mmdetection's own table of Swin: batches of images of both orientations. budget.like and "
    "budget.mode: equalize give layouts of equal memory whatever the unit."
)
CLASSES = 80
COUNTED_SIZE = (800, 1280)  # height, width
TRAINED_SHAPE = (4, 3, 800, 1344)


def paper_rows(
    tables: tuple[int, ...] = TABLES,
    on_row: CountProgress = lambda what, done, total: None,
    measured: Mapping[tuple[str, str], float] | None = None,
) -> list[dict[str, Any]]:
    """The rows of the paper's tables, as plain JSON.

    `printed` holds the paper's figures in its own units, but for `map`, a fraction; `counted` ours,
    None where the detector is not there yet (`missing`); `deviation` is printed minus counted, in
    the units of the paper. `on_row` is told after each. `measured` are GiB by detector and layout
    (`measured_memory`).
    """
    text = (resources.files("nas.profiling") / "paper_tables.yaml").read_text()
    known = {number: table for number, table in parse_yaml(text).items() if number in tables}
    chosen = [
        (number, table["title"], row) for number, table in known.items() for row in table["rows"]
    ]
    rows = []
    for number, title, row in chosen:
        beside = _beside(row)
        if beside["counted"] and row.get("roi_op", "align") == "align":
            beside["counted"]["memory_measured_gib"] = (measured or {}).get(
                (row["detector"], row["layout"])
            )
        rows.append({"table": number, "title": title, **beside})
        on_row("the rows", len(rows), len(chosen))
    return rows


def measured_memory(path: Path) -> dict[tuple[str, str], float]:
    """Read what `benchmarks/memory.py` measured on a GPU of the paper's training.

    Returns:
        GiB by detector and layout.

    Raises:
        SpecError: the file cannot be read, or is something else.
    """
    asked = {"batch_shape": list(TRAINED_SHAPE), "precision": "fp32", "checkpointing": "none"}
    try:
        rows = json.loads(path.read_text())["rows"]
        return {
            (row["detector"], row["layout"]): gib(row["measured_bytes"])
            for row in rows
            if asked.items() <= row.items()
        }
    except OSError as error:
        raise SpecError(f"--measured {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SpecError(
            f"--measured {str(path)!r} is not what benchmarks/memory.py writes"
        ) from None


def _beside(row: dict[str, Any]) -> dict[str, Any]:
    printed = {name: row[name] for name in ("params_m", "flops_g", "memory_g") if name in row}
    known = row["detector"] in get_args(DetectorName)
    counted = _count(row) if known else None
    ours = (
        {"params_m": counted["params"] / 1e6, "flops_g": counted["paper_flops"] / 1e9}
        if counted
        else {}
    )
    return {
        "detector": row["detector"],
        "roi_op": row.get("roi_op"),
        "layout": row["layout"],
        "trained": row["trained"],
        "printed": {"map": row["map"] / 100, **printed} if "map" in row else printed,
        "counted": counted,
        "deviation": {
            name: round(printed[name] - value, 4) for name, value in ours.items() if name in printed
        },
        "missing": not known,
        "note": row.get("note"),
    }


def _count(row: dict[str, Any]) -> dict[str, Any]:
    layout = Layout.parse(row["layout"])
    detector = DetectorSpec(name=row["detector"], roi_op=row.get("roi_op", "align"))
    cost = count_cost(layout, detector, CLASSES, COUNTED_SIZE)
    memory, reference = (
        predict_memory(which, detector, CLASSES, Training(TRAINED_SHAPE))
        for which in (layout, Layout.parse(SWIN_T))
    )
    return {
        "params": cost.params,
        "flops": cost.flops,
        "paper_flops": cost.paper_flops,
        "memory_predicted_gib": gib(memory.peak_bytes),
        "memory_of_swin_t": round(memory.peak_bytes / reference.peak_bytes, 4),
    }
