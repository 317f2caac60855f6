"""A search to its end, and then its winner: trained in full, exported, or left as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from filelock import FileLock, Timeout

from nas.api.callbacks import TrainingCallback
from nas.api.winner import Finished, Winner, bundle_folder
from nas.config.spec import SearchSpec
from nas.search.callbacks import SearchCallback
from nas.study.leaderboard import leaderboard
from workers.driver import run_search


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
    search = run_search(spec, callbacks, local=local, began_at=began_at)
    finish = search.spec.search.finish
    if finish == "none" or (finish == "export" and not leaderboard(search.study)):
        return Finished(search)
    if not search.plan and not leaderboard(search.study):
        return Finished(search)
    out = bundle_folder(search)
    try:
        with FileLock(out.with_name(out.name + ".lock")).acquire(timeout=0):
            return Winner(search, out).finish(training)
    except Timeout:
        return Finished(search, notes=(f"another process writes {str(out)!r}",))
