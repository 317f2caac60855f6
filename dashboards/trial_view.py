"""One trial: its layout as a drawing, its curves, and the files that it left, which are found and
never asked for by path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.plot_style import BLUE, GREEN, ORANGE, empty_figure, new_figure
from dashboards.study_view import StudyView
from nas.artifacts.history import read_reports
from nas.artifacts.paths import DETECTIONS, WEIGHTS, study_folder, study_folder_of, trial_folders
from nas.errors import UserError
from nas.reports import EpochReport, TrialRow
from nas.reports.metrics import METRIC
from nas.utils.formatting import in_percent, percent
from nas.utils.paths import is_remote
from search_spaces.layout import Layout

PICTURES = ".png"
# The drawing of a stage, in pixels: width of its block, least height, gap between blocks.
_WIDE, _TALL, _GAP = 150, 34, 26


@dataclass(frozen=True)
class StageBlock:
    """One stage of a layout as a block of a drawing.

    Args:
        kind: `C` (convolution) or `T` (transformer).
        depth: number of its blocks.
        width: channels.
        stride: pixels of the image for one of its feature map.
        share: part of the predicted memory that its activations take at the peak, 0 to 1; None
            where the study has not recorded it.
        x, y, w, h: place of the block in the drawing, pixels from the upper left corner.
    """

    kind: str
    depth: int
    width: int
    stride: int
    share: float | None
    x: int
    y: int
    w: int
    h: int


def folder_of(view: StudyView, number: int) -> Path | None:
    """Folder of a trial on this machine; where several drivers had it that of its weights, else the
    latest. (What a driver removes from its predecessor's makes that one the latest.)

    It lies where the study says that its files are, and nowhere else: below `run.output`, under the
    name of the study. A relative `run.output` was relative to where the search ran; weights are
    recorded with their whole path and lead there.

    Returns:
        The folder; None where there is none to be seen.
    """
    output = view.spec.get("run", {}).get("output")
    uuid = view.attributes.get("nas_uuid")
    if not output or not uuid:
        return None
    name = study_folder("/", view.name, uuid).name
    of_weights = [
        study_folder_of(Path(row.checkpoint))
        for row in view.rows
        if row.checkpoint and not is_remote(row.checkpoint)
    ]
    roots = [folder for folder in of_weights if folder.name == name]
    try:
        root = roots[0] if roots else study_folder(output, view.name, uuid)
        folders = [] if is_remote(str(root)) or root.name != name else trial_folders(root, number)
    except (UserError, OSError):
        return None
    inside = [
        folder
        for folder in folders
        if folder.is_dir() and folder.resolve().parent == root.resolve()
    ]
    completed = {
        Path(row.checkpoint or "").parent.name for row in view.rows if row.number == number
    }
    return max(
        inside,
        key=lambda folder: (folder.name in completed, folder.stat().st_mtime),
        default=None,
    )


def files_of(folder: Path | None) -> dict[str, Path]:
    """What may be fetched of a trial's folder: regular files of the folder and of its drawn
    detections, nothing that a link leads to.

    Returns:
        Paths by name relative to the folder; empty without a folder.
    """
    if folder is None:
        return {}
    below = folder / DETECTIONS
    entries = [
        *folder.iterdir(),
        *(below.iterdir() if below.is_dir() and not below.is_symlink() else []),
    ]
    return {
        str(path.relative_to(folder)): path
        for path in sorted(entries)
        if path.is_file() and not path.is_symlink()
    }


def reports_of(folder: Path | None) -> list[EpochReport]:
    """The recorded epochs of a trial's folder; empty where they cannot be read."""
    try:
        return read_reports(folder) if folder else []
    except (OSError, ValueError, TypeError, KeyError):
        return []


def curves(reports: list[EpochReport]) -> go.Figure:
    """Loss, scores and learning rate of a training by epoch, one plot above the other."""
    if not reports:
        return empty_figure("its epochs cannot be read here")
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.08)
    epochs, metrics = [report.epoch for report in reports], [report.metrics for report in reports]
    lines = [
        (1, "training loss", BLUE, [report.loss for report in reports]),
        (1, "validation loss", ORANGE, [report.val_loss for report in reports]),
        (2, f"{METRIC['map'].label}, %", GREEN, [in_percent(each.map) for each in metrics]),
        (
            2,
            f"{METRIC['map_50'].label}, %",
            ORANGE,
            [in_percent(r.metrics.map_50) for r in reports],
        ),
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
    for row, title in enumerate(("loss", "validation, %", "learning rate"), start=1):
        figure.update_yaxes(title=title, row=row, col=1)
    figure.update_xaxes(title="epoch", dtick=max(1, len(epochs) // 10), row=3, col=1)
    return figure


def stage_blocks(layout: str | None, memory_parts_gib: Mapping[str, float]) -> list[StageBlock]:
    """The stages of a layout as blocks to draw, the deepest one the highest.

    Args:
        layout: in text form.
        memory_parts_gib: what its predicted memory consists of, by part; empty where the study has
            not recorded it.

    Returns:
        Four blocks; none where the layout cannot be read.
    """
    try:
        parsed = Layout.parse(layout or "")
    except UserError:
        return []
    total = sum(memory_parts_gib.values())
    deepest = max(parsed.depths)
    blocks = []
    for index, stage in enumerate(parsed.stages):
        part = memory_parts_gib.get(f"stage_{index + 1}")
        height = _TALL + round(3 * _TALL * stage.depth / deepest)
        blocks.append(
            StageBlock(
                kind=stage.kind,
                depth=stage.depth,
                width=stage.width,
                stride=2 ** (index + 2),
                share=part / total if part is not None and total else None,
                x=_GAP + index * (_WIDE + _GAP),
                y=4 * _TALL - height + 10,
                w=_WIDE,
                h=height,
            )
        )
    return blocks


def memory_of_other_parts(memory_parts_gib: Mapping[str, float]) -> str:
    """Where memory goes beside the four stages, in words: parts and per cent of the whole, the
    largest first; parts below half a per cent are left out.
    """
    total = sum(memory_parts_gib.values())
    others = sorted(
        ((size, name) for name, size in memory_parts_gib.items() if not name.startswith("stage_")),
        reverse=True,
    )
    return ", ".join(
        f"{name} {percent(size / total)} %" for size, name in others if size >= 0.005 * total > 0
    )


def attributes_of(row: TrialRow) -> dict[str, str]:
    """All that the study keeps of a trial, as text by name; lists and mappings, which come last, as
    JSON.
    """
    kept = {name: value for name, value in row.to_dict().items() if value is not None}
    plain = {n: str(value) for n, value in kept.items() if not isinstance(value, (dict, list))}
    nested = {n: json.dumps(value) for n, value in kept.items() if isinstance(value, (dict, list))}
    return plain | nested


def weights_of(row: TrialRow, folder: Path | None) -> str | None:
    """Path or URL of the weights of a trial, as the study has it; None where they are not in its
    folder any more: those of all but the best few trials are removed. Behind a URL nobody looks.

    Args:
        row: the trial.
        folder: that of the trial, see `folder_of`.
    """
    if row.checkpoint and is_remote(row.checkpoint):
        return row.checkpoint
    return row.checkpoint if folder and (folder / WEIGHTS).is_file() else None
