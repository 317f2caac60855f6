"""Trials that no search has completed are no bundles, whatever a database says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.studies import frozen, study_of

from nas.errors import BundleError
from nas.export.from_study import write_trial
from nas.study.leaderboard import find_trial


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"seed": 0}, "checkpoint"),
        ({"seed": "0", "checkpoint": "weights"}, "seed"),
        ({"layout": 5}, "layout, checkpoint, seed"),
    ],
    ids=str,
)
def test_what_a_trial_lacks_is_said(tmp_path: Path, changes: dict, missing: str):
    study = study_of([frozen(0, **changes)])
    with pytest.raises(BundleError, match=rf"trial 0 of study 'cells' has no {missing}: no search"):
        write_trial(tmp_path / "out", study, find_trial(study, 0))
    assert not (tmp_path / "out").exists()
