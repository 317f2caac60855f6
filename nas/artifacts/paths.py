"""Names of the files and folders that a training leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.utils.paths import to_path

if TYPE_CHECKING:
    pass


def study_folder(output: str, study_name: str, study_uuid: str) -> Path:
    """Where the files of a study are, below `run.output`."""
    return to_path(output) / f"{study_name}-{study_uuid[:8]}"


def trial_folders(study: Path, number: int) -> list[Path]:
    """Those of one trial that are there: one for each driver that had it in hands."""
    return sorted(study.glob(f"trial-{number:04d}-*"))


REPORTS, CURVES = "reports.jsonl", "curves.csv"


CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "detector.safetensors", "log.jsonl"


CALIBRATION, PLOT, EVENTS, DETECTIONS = (
    "calibration.csv",
    "curves.png",
    "events.out.tfevents.curves",
    "detections",
)
