"""One candidate as a Ray Tune trainable: a step is an epoch; the process is used again for the next
candidate.
"""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Iterator
from typing import Any

from ray import tune

from nas.reports import EpochReport
from workers.backend import TrialEnd, until_end
from workers.ray_tune.messages import encode
from workers.trial_config import run_trial


class CandidateTrainable(tune.Trainable):
    """Trains one candidate after the other in a worker process of Ray. Checkpoints are the
    candidate's own, not Tune's. What ends a training is sent, not raised, so that the process stays
    for the next candidate.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first candidate of this process."""
        # with PyTorch, which the driver of this module may never need
        importlib.import_module("nas.training.candidate")
        # what has been imported stays; to search it for garbage after every candidate takes 0.2 s
        gc.freeze()
        self._begin(config)

    def reports(self, config: dict[str, Any]) -> Iterator[EpochReport]:
        """Train the candidate of a configuration, whose one key `trial` holds what
        `TrialConfigBuilder.build` made, as JSON.
        """
        return run_trial(json.loads(config["trial"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next candidate in this process; always possible."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; returns its report, or how the training ended, under `message`."""
        return {"message": encode(next(self._messages))}

    def cleanup(self) -> None:
        """Drop the candidate and what it has on the GPU."""
        from nas.training.gpu_memory import free_memory

        self._messages: Iterator[EpochReport | TrialEnd] = iter(())
        free_memory()

    def _begin(self, config: dict[str, Any]) -> None:
        self._messages = until_end(self.reports(config))
