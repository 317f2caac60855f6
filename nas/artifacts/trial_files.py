"""The files of a study: a folder for each trial and driver, checkpoints of running trials, weights
of the best few.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from nas.artifacts.paths import (
    CHECKPOINT,
    DETECTIONS,
    LAST_WEIGHTS,
    OWNER,
    REPORTS,
    WEIGHTS,
    study_folder,
    trial_folder,
    trial_folders,
)
from nas.errors import StudyError
from nas.utils.files import atomic_write, ensure_writable, remove_written
from nas.utils.paths import to_path


class TrialFiles:
    """Where one driver's trials of one study keep their files.

    Args:
        output: folder of all studies, `run.output`.
        study_name: for people.
        study_uuid: so that a name that is used again finds no old files.
        token: the driver's, so that a worker of a dead driver writes nowhere else.
        database: name of the database that the study is in. The first one to be named here owns the
            files; of a copy of it, only what its own driver has made is removed.

    Raises:
        StudyError: the folder cannot be written.
    """

    def __init__(
        self, output: str, study_name: str, study_uuid: str, token: str, database: str = ""
    ) -> None:
        self.study_uuid = study_uuid
        self.root, self.token = study_folder(output, study_name, study_uuid), token
        self._is_original = bool(database) and self._first(database) == database

    def folder(self, number: int, token: str | None = None) -> Path:
        """Folder of a trial, in the hands of this driver or of the one with a token."""
        return trial_folder(self.root, number, token or self.token)

    def weights(self, number: int) -> Path:
        """Path of the weights that a completed trial leaves."""
        return self.folder(number) / WEIGHTS

    def _first(self, database: str) -> str:
        owner = self.root / OWNER
        ensure_writable(self.root, f"run.output {str(self.root.parent)!r}", StudyError)
        if not owner.exists():
            atomic_write(owner, lambda file: file.write(database.encode()))
        return owner.read_text()

    def inherit(self, number: int, before: str) -> None:
        """Copy the checkpoint that a trial's former driver left, and what was recorded of its
        epochs, into the trial's folder; nothing where there is no checkpoint.

        Args:
            number: of the trial.
            before: token of the former driver.
        """
        theirs, mine = self.folder(number, before), self.folder(number)
        if before == self.token or not (theirs / CHECKPOINT).exists():
            return
        mine.mkdir(parents=True, exist_ok=True)
        # Whoever finds the checkpoint finds its epochs and the weights of the best one.
        for name in (WEIGHTS, REPORTS, CHECKPOINT):
            if (theirs / name).exists():
                _copy(theirs / name, mine / name)

    def drop_checkpoints(self, number: int) -> None:
        """Remove the checkpoints of a trial that has ended, and the folders of its former drivers
        where these are empty then.
        """
        for folder in self._own(number):
            remove_written(folder / CHECKPOINT)
            if folder != self.folder(number):
                for weights in (WEIGHTS, LAST_WEIGHTS):
                    remove_written(folder / weights)
                with suppress(OSError):  # not empty, or gone with its last file
                    folder.rmdir()

    def drop_result(self, number: int) -> None:
        """Remove the weights of a trial, those of its last epoch too, and the detections drawn with
        them; its reports and curves stay. What the study says of paths does not count.
        """
        for folder in self._own(number):
            _drop_result(folder)

    def _own(self, number: int) -> list[Path]:
        """Folders of a trial that are this study's to clear up."""
        return trial_folders(self.root, number) if self._is_original else [self.folder(number)]


def _drop_result(folder: Path) -> None:
    for path in (folder / WEIGHTS, folder / LAST_WEIGHTS):
        remove_written(path)
    drawn = folder / DETECTIONS
    for picture in list(drawn.iterdir()) if drawn.is_dir() else []:
        picture.unlink(missing_ok=True)
    with suppress(OSError):  # not there
        drawn.rmdir()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as content:
        atomic_write(target, lambda file: shutil.copyfileobj(content, file))


def check_output(output: str) -> None:
    """Find out, before there is a study whose trials would all fail, whether files can be written.

    Args:
        output: folder or URL of all studies, `run.output`; made where it does not exist.

    Raises:
        StudyError: it cannot be written.
    """
    ensure_writable(to_path(output), f"run.output {output!r}", StudyError)
