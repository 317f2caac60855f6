"""The files of a study: a folder for each trial and driver, checkpoints of running trials, weights of the best few."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from nas.candidate import CHECKPOINT, WEIGHTS
from nas.errors import StudyError


class TrialFiles:
    """Where one driver's trials of one study keep their files.

    Args:
        output: folder of all studies, `run.output`.
        study_name: for people.
        study_uuid: so that a name that is used again finds no old files.
        token: the driver's, so that a worker of a dead driver writes nowhere else.
    """

    def __init__(self, output: str, study_name: str, study_uuid: str, token: str) -> None:
        self.study_uuid = study_uuid
        self.root, self.token = Path(output).resolve() / f"{study_name}-{study_uuid[:8]}", token

    def folder(self, number: int, token: str | None = None) -> Path:
        """Of a trial, in the hands of this driver or another one."""
        return self.root / f"trial-{number:04d}-{(token or self.token)[:8]}"

    def weights(self, number: int) -> Path:
        """What a completed trial leaves."""
        return self.folder(number) / WEIGHTS

    def inherit(self, number: int, before: str) -> None:
        """Take over the checkpoint that a trial's former driver left."""
        checkpoint, mine = self.folder(number, before) / CHECKPOINT, self.folder(number)
        if before != self.token and checkpoint.exists():
            mine.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint, mine / "inherited")
            (mine / "inherited").replace(mine / CHECKPOINT)

    def drop_checkpoints(self, number: int) -> None:
        """The trial has ended."""
        for folder in self.root.glob(f"trial-{number:04d}-*"):
            (folder / CHECKPOINT).unlink(missing_ok=True)
            if folder != self.folder(number) and not any(folder.iterdir()):
                folder.rmdir()


def check_output(output: str) -> None:
    """Before there is a study, whose trials would all fail.

    Raises:
        StudyError: the folder cannot be written.
    """
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise StudyError(f"run.output {output!r} cannot be written: {error.strerror}") from None
