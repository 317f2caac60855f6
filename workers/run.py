"""The driver: check the data, open the study, hold its lease, let a backend run it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

from nas.budget import Budget
from nas.data.check import Progress
from nas.data.prepare import DataFacts, read_data
from nas.errors import MissingDependency
from nas.spec import SearchSpec
from nas.storage import check_storage
from nas.study import Event, SearchStudy
from workers.job import JobMaker
from workers.local import run_local
from workers.resources import Share, plan, smallest_card_bytes

_OBJECT_STORE_BYTES = 128 * 2**20  # reports and jobs are all that passes through it
_RAY_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # results go to the study
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the driver; the study stays as it is
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is ever restored from Tune's own state
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # the searcher limits how many run, also while their processes start
}


@dataclass(frozen=True)
class Watcher:
    """Who is told what happens: images checked, the study opened, everything that happens to its trials."""

    on_image: Progress | None = None
    on_open: Callable[[SearchStudy, DataFacts], None] = lambda study, facts: None
    on_event: Callable[[Event], None] = lambda event: None


def run_search(spec: SearchSpec, watcher: Watcher, *, local: bool) -> SearchStudy:
    """Run a search to its end, or continue one.

    Args:
        spec: the request.
        watcher: is told what happens.
        local: train in this process, without Ray.

    Raises:
        UserError: what was asked for cannot be done; nothing has been trained and no study been made.
        KeyboardInterrupt: stopped by the user; the same call continues.
    """
    check_storage(spec.storage)
    if not local:
        _require_ray()
    train, val, facts = read_data(spec.data, spec.recipe, watcher.on_image)
    with nullcontext() if local else ray_on_this_machine(spec, facts) as share:
        study = SearchStudy(spec, facts, watcher.on_event)
        with study.lease():
            watcher.on_open(study, facts)
            jobs = JobMaker.prepare(study, train, val)
            if share:
                run_with_ray(study, jobs, share)
            else:
                run_local(study, jobs)
    return study


def run_with_ray(study: SearchStudy, jobs: JobMaker, share: Share) -> None:
    """Drive a study to its end with Ray Tune, which executes what the study decides."""
    from ray import tune

    from workers.scheduler import StudyScheduler
    from workers.searcher import StudySearcher
    from workers.trainable import CandidateTrainable

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
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # candidates write their own
            ),
        ).fit()


@contextmanager
def ray_on_this_machine(spec: SearchSpec, facts: DataFacts) -> Iterator[Share]:
    """Ray with the cores and GPUs of this machine, and the share of one candidate.

    Raises:
        SpecError: the request asks for more than there is.
    """
    os.environ.pop("NAS_STORAGE", None)  # has been read; workers, whose environment Ray keeps, need no database
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE_BYTES,
    )  # fmt: skip
    try:
        available = ray.cluster_resources()
        gpus = available.get("GPU", 0)
        yield plan(
            spec.run, cpus=int(available.get("CPU", 1)), gpus=gpus, card_bytes=smallest_card_bytes() if gpus else None,
            budget_bytes=Budget(spec, facts).limit_bytes,
        )  # fmt: skip
    finally:
        ray.shutdown()


def _require_ray() -> None:
    if find_spec("ray") is None:
        raise MissingDependency("ray[tune] (or use --local)", "ray")
