"""The backend without Ray: candidates one after the other, in this process."""

from __future__ import annotations

from nas.search.search import Search
from nas.utils.device import gpu_count
from workers.backend import tell, until_end
from workers.trial_config import TrialConfigBuilder, run_trial


def run_local(search: Search, configs: TrialConfigBuilder) -> None:
    """Drive a search to its end; see `workers.backend` for what an interrupt leaves.

    Args:
        search: open, with its lease held.
        configs: makes the configuration of each trial.
    """
    gpus = float(min(gpu_count(), 1))
    while not search.finished:
        assignment = search.ask()
        if assignment is None:
            continue
        for message in until_end(run_trial(configs.build(assignment))):
            if not tell(search, assignment.number, message, gpus=gpus):
                break
        from nas.training.gpu_memory import free_memory  # has PyTorch, as the training has

        free_memory()
