"""The exception tree.

Everything under `UserError` is one line on the terminal and exit code 2.

UserError                    (search_spaces)
|-- LayoutError, SpaceError  (search_spaces)
|-- SpecError                a search request that cannot be run
|-- DataError                a data set that cannot be read or trained on
|-- StudyError               a study or database that cannot be opened, continued or found
|-- OutputError              a disk that takes nothing more; the same command goes on later
|-- BundleError              an export that cannot be made or read
`-- MissingDependency        an optional package that the command needs
CandidateError               what ends one candidate, never the search
|-- NonFiniteLoss            the loss or the gradient is not a number
|-- OutOfMemory              the candidate itself needed more than its share of the card
|-- OutOfTime                the time of its search is over; its checkpoint goes on
`-- ProcessDied              a process that it needs was ended; it may go on in another one
"""

from __future__ import annotations

from importlib.util import find_spec

from search_spaces.errors import LayoutError, SpaceError, UserError, one_of, quoted

__all__ = [
    "BundleError",
    "CandidateError",
    "DataError",
    "LayoutError",
    "MissingDependency",
    "NonFiniteLoss",
    "OutOfMemory",
    "OutOfTime",
    "OutputError",
    "ProcessDied",
    "SpaceError",
    "SpecError",
    "StudyError",
    "UserError",
    "need",
    "one_of",
    "quoted",
]


class SpecError(UserError):
    """A search request that cannot be run."""


class DataError(UserError):
    """A data set that cannot be read or trained on."""


class StudyError(UserError):
    """A study or database that cannot be opened, continued or found."""


class OutputError(UserError):
    """A disk that is full or away: the command ends, and goes on when it is started again."""


class BundleError(UserError):
    """An export that cannot be made or read."""


class MissingDependency(UserError):
    """An optional package that the command needs."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}: pip install 'scratch-nas[{extra}]'")


def need(extra: str, *packages: str) -> None:
    """Check that packages of an extra are installed, without importing them.

    Args:
        extra: the extra of scratch-nas that installs them: `onnx`.
        packages: names that they are imported by.

    Raises:
        MissingDependency: one of them is not installed.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependency(package.replace("_", "-"), extra)


class CandidateError(RuntimeError):
    """A failure that ends one candidate, never the search."""


class NonFiniteLoss(CandidateError):
    """The loss or the gradient is not a number; raised before the weights are touched."""


class OutOfTime(CandidateError):
    """The time of a search is over in the middle of a training, which goes on from its checkpoint
    where there is more time.
    """


class ProcessDied(CandidateError):
    """A process that a training needs was ended: it may go on from its checkpoint in another."""


class OutOfMemory(CandidateError):
    """The candidate itself needed more than its share of the GPU's memory.

    Args:
        message: what the allocator said.
        peak_bytes: most bytes that were allocated until it failed.
    """

    def __init__(self, message: str, peak_bytes: int) -> None:
        super().__init__(message)
        self.peak_bytes = peak_bytes

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[str, int]]:
        return type(self), (str(self), self.peak_bytes)
