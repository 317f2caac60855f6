from __future__ import annotations

import pytest

from nas.errors import SpecError
from nas.spec import RunSpec
from workers.resources import Share, plan


@pytest.mark.parametrize(
    ("run", "cpus", "gpus", "share"),
    [
        ({}, 2, 0, Share(2, 1, 0.0)),
        ({}, 1, 0, Share(1, 1, 0.0)),
        ({}, 64, 0, Share(4, 16, 0.0)),
        ({}, 16, 1, Share(1, 16, 1.0)),
        ({}, 32, 8, Share(8, 4, 1.0)),
        ({"gpus_per_trial": 0.5}, 16, 2, Share(4, 4, 0.5)),
        ({"gpus_per_trial": 0}, 16, 2, Share(4, 4, 0)),
        ({"concurrent": 2}, 16, 8, Share(2, 8, 1.0)),
        ({"concurrent": 3, "cpus_per_trial": 2}, 16, 0, Share(3, 2, 0.0)),
    ],
)
def test_shares(run: dict, cpus: int, gpus: float, share: Share):
    assert plan(RunSpec(**run), cpus=cpus, gpus=gpus) == share


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"gpus_per_trial": 1}, "at most the 0 GPUs there are; got 1"),
        ({"concurrent": 3}, "at most the 2 cores there are; got 3 x 1"),
        ({"cpus_per_trial": 4}, "at most the 2 cores"),
    ],
)
def test_more_than_there_is_is_refused(run: dict, words: str):
    with pytest.raises(SpecError, match=words):
        plan(RunSpec(**run), cpus=2, gpus=0)


def test_more_gpu_trials_than_gpus_is_refused():
    with pytest.raises(SpecError, match="run.concurrent must be at most 2"):
        plan(RunSpec(concurrent=3), cpus=8, gpus=2)
