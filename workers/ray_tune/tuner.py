"""The backend on Ray Tune, which executes what the study decides."""

from __future__ import annotations

import tempfile

from ray import tune

from nas.search.search import Search
from workers.ray_tune.scheduler import StudyScheduler
from workers.ray_tune.searcher import StudySearcher
from workers.ray_tune.trainable import CandidateTrainable
from workers.resources import TrialResources
from workers.trial_config import TrialConfigBuilder


def run_with_ray(search: Search, configs: TrialConfigBuilder, resources: TrialResources) -> None:
    """Drive a search to its end; see `workers.backend` for what an interrupt leaves.

    Args:
        search: open, with its lease held.
        configs: makes the configuration of each trial.
        resources: how many trials run at once, and what each of them gets.
    """
    searcher = StudySearcher(search, configs, resources.concurrent)
    with tempfile.TemporaryDirectory(prefix="scratch-nas-") as scratch:
        tune.Tuner(
            tune.with_resources(CandidateTrainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=StudyScheduler(search, searcher, resources.gpus),
                num_samples=-1,  # until the searcher says that it is finished
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="tune",
                verbose=0,
                # candidates write their own
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
