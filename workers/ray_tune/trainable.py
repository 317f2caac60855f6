"""One candidate as a Ray Tune trainable: a step is an epoch; the process is used again for the next
candidate.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray import tune

from nas.errors import DataError, OutOfMemory, OutputError
from nas.reports import EpochReport
from nas.training.gpu_memory import free_memory
from workers.trial_config import run_job


class CandidateTrainable(tune.Trainable):
    """Reports travel as one JSON string, because Tune takes nested results apart. Checkpoints are
    the candidate's own.
    """

    def setup(self, config: dict[str, Any]) -> None:
        # what has been imported stays; to search it for garbage after every candidate takes 0.2 s
        gc.freeze()
        self._reports = self.reports(config)

    def reports(self, config: dict[str, Any]) -> Iterator[EpochReport]:
        """Of a candidate."""
        return run_job(json.loads(config["job"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._reports = self.reports(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = {"report": asdict(next(self._reports))}
        except OutOfMemory as error:
            message = {"reason": str(error), "peak_bytes": error.peak_bytes}
        except (OutputError, DataError) as error:
            message = {"reason": str(error), "halts": True}
        except Exception as error:  # sent, not raised: the process stays for the next candidate
            message = {"reason": f"{type(error).__name__}: {error}"}
        return {"message": json.dumps(message)}

    def cleanup(self) -> None:
        self._reports = iter(())
        free_memory()
