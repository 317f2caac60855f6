"""The course of one training run for people: a table, TensorBoard scalars and a picture, all made
from the recorded epochs.

curves.csv                    a row an epoch
curves.png                    loss, mAP, learning rate, calibration
events.out.tfevents.curves    the same for TensorBoard
calibration.csv               before and after, where there was one
detections/                   drawn images of the validation split (`nas.evaluation.visualization`)

They lie beside the bundle, not in it: they are there from the first epoch on, also of a run that
never ends, and a bundle stays what loads elsewhere.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.artifacts.drawing import new_figure, png_of
from nas.artifacts.history import write_csv
from nas.artifacts.paths import CALIBRATION, CURVES, DETECTIONS, EVENTS, PLOT
from nas.reports import EpochReport
from nas.reports.metrics import METRIC, METRICS
from nas.utils.files import atomic_write, os_errors_as_output_error
from nas.utils.folders import remove_claimed
from nas.utils.formatting import in_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUP, _SIDES = "mean_log_c ", ("before", "after")


class Change(NamedTuple):
    """A quantity before and after calibration."""

    quantity: str
    before: float
    after: float


def write_curves(folder: Path, reports: Sequence[EpochReport], title: str) -> None:
    """Write table, picture, TensorBoard events and calibration of a training anew.

    Args:
        folder: exists.
        reports: all epochs so far.
        title: of the picture.

    Raises:
        OutputError: the folder cannot be written.
    """
    changes = calibration_changes(reports[-1].calibration if reports else None)
    write_csv(folder / CURVES, reports)
    if changes:
        _write_calibration(folder / CALIBRATION, changes)
    _write_events(folder / EVENTS, reports, changes)
    _write_plot(folder / PLOT, reports, changes, title)


def clear_curves(folder: Path) -> None:
    """Remove the curves and drawings that an earlier training left in a folder, and nothing else.

    Raises:
        OutputError: the folder cannot be written.
    """
    with os_errors_as_output_error(folder):
        for name in (CURVES, CALIBRATION, PLOT, EVENTS):
            (folder / name).unlink(missing_ok=True)
        remove_claimed(folder, DETECTIONS)


def calibration_changes(calibration: dict[str, Any] | None) -> list[Change]:
    """The quantities that gradient calibration changed, from a `CalibrationReport` as plain JSON;
    empty for None.

    `spread_log_c` is the standard deviation of log C over the layers, `ratio_c` largest over
    smallest C, `mean_log_c NAME` the mean of log C over a group of layers, `loss` that of the
    calibration batch.
    """
    if calibration is None or "spread_before" not in calibration:  # it set outputs, not weights
        return []
    names = {"spread_log_c": "spread", "ratio_c": "ratio", "loss": "loss"}
    changes = [
        Change(shown, calibration[f"{name}_before"], calibration[f"{name}_after"])
        for shown, name in names.items()
    ]
    before, after = calibration["group_means_before"], calibration["group_means_after"]
    return changes + [
        Change(_GROUP + group, before[group], after[group]) for group in before if group in after
    ]


def _write_calibration(path: Path, changes: Sequence[Change]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Change._fields, *changes])
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def _write_events(path: Path, reports: Sequence[EpochReport], changes: Sequence[Change]) -> None:
    """One event an epoch, its step; calibration is at step 0. Wall times count back from now: the
    last epoch has just ended.
    """
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    began = time.time() - (reports[-1].elapsed_s if reports else 0)
    events = [Event(wall_time=began, file_version="brain.Event:2")]
    for step, elapsed_s, scalars in _points(reports, changes):
        values = [
            Summary.Value(tag=tag.replace(" ", "_"), simple_value=value)
            for tag, value in scalars.items()
        ]
        events.append(Event(wall_time=began + elapsed_s, step=step, summary=Summary(value=values)))
    with os_errors_as_output_error(path):
        # In place, not moved there: an open TensorBoard goes on where it was, for what it has read
        # keeps its length.
        writer = RecordWriter(str(path))
        for event in events:
            writer.write(event.SerializeToString())
        writer.close()


def _points(
    reports: Sequence[EpochReport], changes: Sequence[Change]
) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Step, seconds since the beginning, scalars by tag."""
    if changes:
        sides = [
            {f"calibration/{change.quantity}/{side}": getattr(change, side) for change in changes}
            for side in _SIDES
        ]
        yield 0, 0.0, sides[0] | sides[1]
    for report in reports:
        yield report.epoch, report.elapsed_s, _scalars(report)


def _scalars(report: EpochReport) -> dict[str, float]:
    figures = {f"val/{m.name}": getattr(report.metrics, m.name) for m in METRICS}
    figures["val/loss"] = report.val_loss
    return {
        "train/loss": report.loss,
        "train/lr": report.lr,
        **{tag: v for tag, v in figures.items() if v is not None},
    }


def _write_plot(
    path: Path, reports: Sequence[EpochReport], changes: Sequence[Change], title: str
) -> None:
    figure = new_figure()
    figure.suptitle(title)
    loss, scores, rate, last = figure.subplots(2, 2).flat
    losses: dict[str, list[float | None]] = {
        "training": [report.loss for report in reports],
        "validation": [report.val_loss for report in reports],
    }
    _draw_lines(loss, reports, "loss", losses)
    if reports:
        loss.legend()
    shown = ["map", "map_50"]
    if any(report.metrics.map_segm is not None for report in reports):
        shown.append("map_segm")
    lines = {
        METRIC[name].label: [in_percent(getattr(report.metrics, name)) for report in reports]
        for name in shown
    }
    _draw_lines(scores, reports, "validation, %", lines)
    scores.legend()
    _draw_lines(rate, reports, "learning rate", {"lr": [report.lr for report in reports]})
    _draw_calibration(last, changes)
    picture = png_of(figure)
    atomic_write(path, lambda file: file.write(picture))


def _draw_lines(
    axes: Axes,
    reports: Sequence[EpochReport],
    title: str,
    lines: dict[str, list[float | None]],
) -> None:
    """A line over the epochs for each label; None is a gap."""
    from matplotlib.ticker import MaxNLocator

    epochs = [report.epoch for report in reports]
    for label, values in lines.items():
        points = [math.nan if value is None else value for value in values]
        axes.plot(epochs, points, marker=".", label=label)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _draw_calibration(axes: Axes, changes: Sequence[Change]) -> None:
    """A line from before to after for each group of layers; without calibration it is said so."""
    groups = [change for change in changes if change.quantity.startswith(_GROUP)]
    spread = next(
        (
            f"spread {c.before:.2f} to {c.after:.2f}"
            for c in changes
            if c.quantity == "spread_log_c"
        ),
        "none",
    )
    axes.set_title(f"gradient calibration: {spread}")
    if not groups:
        axes.set_axis_off()
        return
    places = range(len(groups))
    axes.hlines(
        places,
        [group.before for group in groups],
        [group.after for group in groups],
        color="0.7",
        zorder=0,
    )
    for side, colour in zip(_SIDES, ("C1", "C0"), strict=True):
        axes.scatter([getattr(group, side) for group in groups], places, color=colour, label=side)
    axes.set_yticks(places, [group.quantity.removeprefix(_GROUP) for group in groups])
    axes.set_xlabel("mean of log C, C the mean square of a layer's gradient")
    axes.legend()
