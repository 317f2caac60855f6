"""Names of the files and folders that a training leaves.

```
RUN.OUTPUT/STUDY-UUID/            a study
    database.txt                  the database that it is in
    trial-NUMBER-TOKEN/           a trial in the hands of one driver
        reports.jsonl             its epochs as JSON lines
        curves.csv                its epochs as a table
        log.jsonl                 its training steps
        checkpoint.pt             what it goes on from; gone when it ends
        detector.safetensors      weights of a completed trial
        last.safetensors          those of its last epoch, with `recipe.keep: best_and_last`
        detections/               drawn images of the validation split
```
"""

from __future__ import annotations

from pathlib import Path

from nas.utils.paths import to_path

REPORTS = "reports.jsonl"
CURVES = "curves.csv"
CHECKPOINT = "checkpoint.pt"
WEIGHTS = "detector.safetensors"
LAST_WEIGHTS = "last.safetensors"
LOG = "log.jsonl"
CALIBRATION = "calibration.csv"
PLOT = "curves.png"
EVENTS = "events.out.tfevents.curves"
DETECTIONS = "detections"
OWNER = "database.txt"


def study_folder(output: str, study_name: str, study_uuid: str) -> Path:
    """Folder of the files of a study.

    Args:
        output: folder or URL of all studies, `run.output`.
        study_name: for people.
        study_uuid: its first eight digits keep studies apart that have the same name in turn.
    """
    return to_path(output) / f"{study_name}-{study_uuid[:8]}"


def trial_folder(study: Path, number: int, token: str) -> Path:
    """Folder of a trial in a study's folder while the driver with this token has it."""
    return study / f"trial-{number:04d}-{token[:8]}"


def trial_folders(study: Path, number: int) -> list[Path]:
    """Folders of one trial that exist in a study's folder: one for each driver that had it."""
    return sorted(study.glob(f"trial-{number:04d}-*"))


def study_folder_of(weights: Path) -> Path:
    """Folder of the study that the weights of a trial belong to, from their whole path."""
    return weights.parent.parent
