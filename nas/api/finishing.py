"""A search to its end, and then its winner: trained in full, exported, or left as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nas.api.callbacks import TrainingCallback, TrainingCallbackList
from nas.api.mlflow_callback import tracking
from nas.artifacts.paths import study_folder
from nas.config.spec import SearchSpec
from nas.search.callbacks import CallbackList, SearchCallback
from nas.search.search import Search
from nas.study.leaderboard import leaderboard
from nas.utils.paths import is_remote
from workers.driver import run_search


@dataclass(frozen=True)
class Finished:
    """A search that has ended, and the bundle of its winner.

    Args:
        search: the search.
        bundle: folder; None where none was asked for.
        layout: of the bundle.
        map: its mAP on the validation split, a fraction.
        notes: sentences on how it came about.
    """

    search: Search
    bundle: Path | None = None
    layout: str = ""
    map: float | None = None
    notes: tuple[str, ...] = ()


def bundle_folder(search: Search) -> Path:
    """Name the folder of the winner's bundle, beside that of the study's files; below this folder
    where those are behind a URL.
    """
    output, study = search.spec.run.output, search.study
    where = "." if is_remote(output) else output
    folder = study_folder(where, study.study_name, study.user_attrs["nas_uuid"])
    return folder.with_name(folder.name + "-best")


def search_and_finish(
    spec: SearchSpec,
    callbacks: Sequence[SearchCallback] = (),
    training: Callable[[], TrainingCallback] = TrainingCallback,
    *,
    local: bool,
    began_at: float | None = None,
) -> Finished:
    """Run or continue a search to its end, and do with its winner what the request says.

    Args:
        spec, callbacks, local, began_at: as `workers.driver.run_search` takes them.
        training: makes the callback of the winner's full training, when that begins.

    Raises:
        Exception: as `run_search` and `nas.api.training.train_bundle`.
    """
    with tracking(spec.run.mlflow) as trackers:
        told = (*callbacks, *trackers)
        search = run_search(spec, told, local=local, began_at=began_at)
        finished = _finished(
            search,
            lambda: TrainingCallbackList((training(), *(each.training() for each in trackers))),
        )
        CallbackList(told).on_end(finished.bundle)
    return finished


def _finished(search: Search, training: Callable[[], TrainingCallback]) -> Finished:
    """Do with the winner of a search what the request says."""
    finish = search.spec.search.finish
    # where no candidate has completed, the time that is left can still train one
    from_nothing = finish == "train" and search.plan
    if finish == "none" or not (leaderboard(search.study) or from_nothing):
        return Finished(search)
    from nas.api.winner import Winner  # with PyTorch, which a search may begin without

    out = bundle_folder(search)
    try:
        with FileLock(out.with_name(out.name + ".lock")).acquire(timeout=0):
            return Winner(search, out).finish(training)
    except Timeout:
        return Finished(search, notes=(f"another process writes {str(out)!r}",))
