"""The driver: check the data, open the study, hold its lease, let a backend run it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

from optuna.storages import RDBStorage

from nas.config.spec import SearchSpec
from nas.data.splits import Splits, adapt_to_data
from nas.errors import MissingDependency, StudyError
from nas.reports import DatasetSummary
from nas.search.budget import Budget
from nas.search.forecast.forecast import note_forecast
from nas.search.search import Search
from nas.study.event_log import EventLog, summary
from nas.study.events import Event
from nas.study.storage import check_storage
from nas.utils.progress import CountProgress
from workers.local import run_local
from workers.ray_tune.session import ray_session
from workers.resources import TrialResources
from workers.trial_config import TrialConfigBuilder


@dataclass(frozen=True)
class Watcher:
    """Who is told what happens: images checked, the study opened, everything that happens to its
    trials.
    """

    on_image: CountProgress | None = None
    on_open: Callable[[Search, DatasetSummary], None] = lambda study, facts: None
    on_event: Callable[[Event], None] = lambda event: None


def run_search(spec: SearchSpec, watcher: Watcher, *, local: bool) -> Search:
    """Run a search to its end, or continue one.

    Args:
        spec: the request.
        watcher: is told what happens.
        local: train in this process, without Ray.

    Raises:
        UserError: what was asked for cannot be done; nothing has been trained and no study been
            made.
        KeyboardInterrupt: stopped by the user; the same call continues.
    """
    check_backend(spec, local=local)
    return run_checked(*adapt_to_data(spec, watcher.on_image), watcher, local=local)


def check_backend(spec: SearchSpec, *, local: bool) -> None:
    """Find out before the data are read whether the database can be used, and Ray where it is
    wanted.

    Raises:
        UserError: one cannot.
    """
    check_storage(spec.storage)
    if not local and find_spec("ray") is None:
        raise MissingDependency("ray[tune] (or use --local)", "ray")


def run_checked(
    spec: SearchSpec, splits: Splits, facts: DatasetSummary, watcher: Watcher, *, local: bool
) -> Search:
    """The same on data that `nas.data.splits.adapt_to_data` has checked, with its results."""
    with nullcontext() if local else ray_session(spec, Budget(spec, facts).limit_bytes) as share:
        study = Search(spec, facts, watcher.on_event)
        assert isinstance(study.storage, RDBStorage)  # a request names a database
        note_forecast(study.study, spec, facts, local)
        journal = EventLog(study.storage.engine, study.files.study_uuid)

        def on_event(event: Event) -> None:
            watcher.on_event(event)
            journal.write(summary(event))

        study.on_event = on_event
        with study.lease(), journal.running(), _noted(study, journal):
            watcher.on_open(study, facts)
            jobs = TrialConfigBuilder.prepare(study, splits)
            if share:
                run_with_ray(study, jobs, share)
            else:
                run_local(study, jobs)
            if study.halted:
                raise StudyError(
                    f"{study.halted}. Nothing is lost: once that is mended, the same command goes "
                    "on"
                )
    return study


@contextmanager
def _noted(study: Search, journal: EventLog) -> Iterator[None]:
    """The log says when a driver came and why it left."""
    journal.write(f"search begins with {study.ended} of {study.spec.search.trials} trials")
    try:
        yield
    except KeyboardInterrupt:
        journal.write("search stopped")
        raise
    except Exception as error:
        journal.write(f"search failed: {error}")
        raise
    journal.write(
        f"search ended with {study.ended} trials"
        + (f": {study.stop_reason}" if study.stop_reason else "")
    )


def run_with_ray(study: Search, jobs: TrialConfigBuilder, share: TrialResources) -> None:
    """Drive a study to its end with Ray Tune, which executes what the study decides."""
    from ray import tune

    from workers.ray_tune.scheduler import StudyScheduler
    from workers.ray_tune.searcher import StudySearcher
    from workers.ray_tune.trainable import CandidateTrainable

    searcher = StudySearcher(study, jobs, share.concurrent)
    with tempfile.TemporaryDirectory(prefix="scratch-nas-") as scratch:
        tune.Tuner(
            tune.with_resources(CandidateTrainable, {"cpu": share.cpus, "gpu": share.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=StudyScheduler(study, searcher, share.gpus),
                num_samples=-1,  # until the searcher says that it is finished
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="tune",
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=False
                ),  # candidates write their own
            ),
        ).fit()
