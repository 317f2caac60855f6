"""One trial: its layout as a drawing, its curves, and the files that it left, which are found and
never asked for by path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.plot_style import BLUE, GREEN, ORANGE, empty_figure, new_figure, per_cent
from dashboards.study_view import StudyView
from nas.artifacts.history import read_reports
from nas.artifacts.paths import DETECTIONS, study_folder, trial_folders
from nas.errors import UserError
from nas.reports import EpochReport
from nas.utils.formatting import percent
from nas.utils.paths import is_remote, to_path
from search_spaces.layout import Layout

PICTURES = ".png"
_WIDE, _TALL, _GAP = (
    150,
    34,
    26,
)  # of a stage's block in the drawing: width, height per doubling of the depth, gap; pixels


def folder_of(view: StudyView, number: int) -> Path | None:
    """The trial's folder on this machine, the latest where several drivers had it; None where there
    is none to be seen.

    It lies where the study says that its files are, and nowhere else: below `run.output`, under the
    study's own name.
    """
    output, uuid = view.spec.get("run", {}).get("output"), view.known.get("nas_uuid")
    if not output or not uuid:
        return None
    weights = [
        Path(row["checkpoint"])
        for row in view.rows
        if row.get("checkpoint") and not is_remote(row["checkpoint"])
    ]
    named = study_folder("/", view.name, uuid).name
    # A relative `run.output` was relative to where the search ran; weights are recorded with their
    # whole path.
    roots = [path.parent.parent for path in weights if path.parent.parent.name == named]
    try:
        root = roots[0] if roots else study_folder(output, view.name, uuid)
        folders = [] if is_remote(str(root)) or root.name != named else trial_folders(root, number)
    except (UserError, OSError):
        return None
    folders = [
        folder
        for folder in folders
        if folder.is_dir() and folder.resolve().parent == root.resolve()
    ]
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)


def files_of(folder: Path | None) -> dict[str, Path]:
    """What may be fetched, by name: regular files of the folder and of its drawn detections,
    nothing that a link leads to.
    """
    if folder is None:
        return {}
    below = folder / DETECTIONS
    found = [
        *folder.iterdir(),
        *(below.iterdir() if below.is_dir() and not below.is_symlink() else []),
    ]
    return {
        str(path.relative_to(folder)): path
        for path in sorted(found)
        if path.is_file() and not path.is_symlink()
    }


def reports_of(folder: Path | None) -> list[EpochReport]:
    """What was recorded of its epochs; nothing where that cannot be read."""
    try:
        return read_reports(folder) if folder else []
    except (OSError, ValueError, TypeError, KeyError):
        return []


def curves(reports: list[EpochReport]) -> go.Figure:
    """Loss, scores and learning rate by epoch, one above the other."""
    if not reports:
        return empty_figure("its epochs cannot be read here")
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.08)
    epochs = [report.epoch for report in reports]
    lines = [
        (1, "loss", BLUE, [report.loss for report in reports]),
        (2, "mAP, %", GREEN, [per_cent(report.metrics.map) for report in reports]),
        (2, "AP50, %", ORANGE, [per_cent(report.metrics.map_50) for report in reports]),
        (3, "learning rate", BLUE, [report.lr for report in reports]),
    ]
    for row, name, colour, values in lines:
        figure.add_scatter(
            row=row,
            col=1,
            x=epochs,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": colour},
        )
    figure.update_layout(new_figure(None, None).layout)
    for row, title in enumerate(("training loss", "validation, %", "learning rate"), start=1):
        figure.update_yaxes(title=title, row=row, col=1)
    figure.update_xaxes(title="epoch", dtick=max(1, len(epochs) // 10), row=3, col=1)
    return figure


def stages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The stages of a trial's layout as blocks to draw; nothing where it has none that can be read.

    `share` is the stage's part of the predicted memory, by what its activations take at the peak;
    None where the study has not recorded it.
    """
    try:
        layout = Layout.parse(str(row.get("layout", "")))
    except UserError:
        return []
    parts = row.get("memory_parts_gib") or {}
    total = sum(parts.values())
    deepest = max(layout.depths)
    blocks = []
    for place, stage in enumerate(layout.stages):
        part = parts.get(f"stage_{place + 1}")
        height = _TALL + round(3 * _TALL * stage.depth / deepest)
        blocks.append(
            {
                "kind": stage.kind,
                "depth": stage.depth,
                "width": stage.width,
                "stride": 2 ** (place + 2),
                "share": part / total if part is not None and total else None,
                "x": _GAP + place * (_WIDE + _GAP),
                "w": _WIDE,
                "h": height,
                "y": 4 * _TALL - height + 10,
            }
        )
    return blocks


def rest(row: dict[str, Any]) -> str:
    """Everything but the stages that memory goes to, in words, the largest first; nothing below
    half a per cent.
    """
    parts = row.get("memory_parts_gib") or {}
    total = sum(parts.values())
    others = sorted(
        ((size, name) for name, size in parts.items() if not name.startswith("stage_")),
        reverse=True,
    )
    return ", ".join(
        f"{name} {percent(size / total)} %" for size, name in others if size >= 0.005 * total > 0
    )


def attributes_of(row: dict[str, Any]) -> dict[str, str]:
    """What the study keeps of a trial, as text."""
    plain = {name: value for name, value in row.items() if not isinstance(value, (dict, list))}
    folded = {
        name: json.dumps(value) for name, value in row.items() if isinstance(value, (dict, list))
    }
    return {name: str(value) for name, value in {**plain, **folded}.items() if value is not None}


def weights_of(row: dict[str, Any]) -> str | None:
    """Where the weights are, if they were kept; weights of any but the best few are removed."""
    place = row.get("checkpoint")
    try:
        return place if place and to_path(place).exists() else None
    except (UserError, OSError):
        return None
