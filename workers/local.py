"""The backend without Ray: candidates one after the other, in this process."""

from __future__ import annotations

from nas.errors import DataError, OutOfMemory, OutputError, StudyError
from nas.search.search import Search
from nas.training.gpu_memory import free_memory
from nas.utils.device import default_device
from workers.trial_config import TrialConfigBuilder, run_job


def run_local(study: Search, jobs: TrialConfigBuilder) -> None:
    """Drive a study to its end. An interrupt leaves the running trial to the next driver, with its
    last checkpoint.
    """
    gpus = float(default_device() == "cuda")
    while not study.finished:
        assignment = study.ask()
        if assignment is None:
            continue
        try:
            for report in run_job(jobs.job(assignment)):
                if not study.report(assignment.number, report, gpus=gpus):
                    break
        except OutOfMemory as error:
            study.infeasible(assignment.number, str(error), error.peak_bytes)
        except (OutputError, DataError) as error:
            study.suspend(assignment.number, str(error))
        except StudyError:
            raise
        except Exception as error:  # a candidate's own fault must not end the search
            study.fail(assignment.number, f"{type(error).__name__}: {error}")
        free_memory()
