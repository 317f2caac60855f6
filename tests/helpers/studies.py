"""Studies as searches leave them: in memory without any training, and searched in earnest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.config.spec import load_spec
from nas.search.search import Search
from nas.study.leaderboard import load_study
from nas.study.storage import open_storage
from workers.driver import run_search

LAYOUTS = ("C1-C1-T2-T1@16", "C2-C1-T3-T2@16", "T1-T1-T2-T1@24", "C1-C1-C1-C1@16", "C1-T2-T1-T1@24")
SPEC = {
    "study": "cells",
    "storage": "sqlite:///nas.db",
    "data": {"root": "/data/cells"},
    "space": {"name": "tiny"},
    "detector": {"name": "fcos"},
    "recipe": {
        "name": "tiny",
        "epochs": 4,
        "image_size": 96,
        "batch": 4,
        "optimizer": "adamw",
        "lr": 0.002,
        "precision": "fp32",
    },
    "budget": {"memory": "1GiB", "mode": "cap"},
    "calibration": {"enabled": True},
    "run": {"output": "/nowhere"},
    "search": {
        "trials": 40,
        "objectives": ["map"],
        "sampler": "tpe",
        "pruner": "median",
        "seed": 0,
    },
}
KNOWN = {
    "nas_uuid": "0123abcd-0000",
    "nas_spec": SPEC,
    "nas_budget_gib": 1.0,
    "nas_git_commit": "c0ffee",
    "nas_versions": {"torch": "2"},
    "nas_data": {
        "fingerprint": "f00d",
        "train_images": 8,
        "train_boxes": 9,
        "val_images": 3,
        "val_boxes": 4,
        "categories": ["a"],
    },
    "nas_refusals": {"over_budget": 7, "unequal": 0, "repeated": 2},
}


def frozen(
    number: int, state: TrialState = TrialState.COMPLETE, *, score: float = 0.25, **changes: Any
) -> FrozenTrial:
    """One trial; `changes` are of its attributes, None leaves one out."""
    layout = LAYOUTS[number % len(LAYOUTS)]
    known = {
        "layout": layout,
        "layout_id": f"{number:012d}",
        "role": "candidate",
        "memory_predicted_gib": 0.1 + 0.05 * number,
        "memory_peak_gib": None,
        "map": score,
        "map_50": score,
        "epochs": 4,
        "train_s": 60.0,
        "gpu_s": 0.0,
        "device": "cpu",
        "params": 1_000_000,
        "flops": 2_000_000_000,
        "calibration": {"spread_before": 3.0, "spread_after": 1.0 + number / 10},
    }
    known = {name: value for name, value in {**known, **changes}.items() if value is not None}
    ended = state == TrialState.COMPLETE
    return create_trial(
        state=state,
        value=score if ended else None,
        params={"depth": number % 4, "pattern": layout[0]},
        distributions={
            "depth": IntDistribution(0, 3),
            "pattern": CategoricalDistribution(("C", "T")),
        },
        user_attrs=known,
        intermediate_values={epoch: score * epoch / 4 for epoch in range(1, 5 if ended else 3)},
        system_attrs={"constraints:memory_peak": 0.2 if "infeasible_reason" in known else -0.2},
    )


def study_of(trials: list[FrozenTrial], name: str = "cells", **known: Any) -> optuna.Study:
    """A study with these trials and the attributes of a search."""
    study = optuna.create_study(study_name=name, direction="maximize")
    for key, value in {**KNOWN, **known}.items():
        study.set_user_attr(key, value)
    for trial in trials:
        study.add_trial(trial)
    return study


def trials_so_far(storage: str, study: str = "digits") -> list[FrozenTrial]:
    """The trials of a search that runs elsewhere; none where its study, the tables or the database
    are not there yet.
    """
    try:
        opened = open_storage(storage, create=False, read_only=True)
        trials = load_study(opened, study).trials
    except Exception:  # whatever a database says that is being made at this moment
        return []
    opened.engine.dispose()
    return trials


def trained_search(folder: Path, data: Path, **flags: Any) -> Search:
    """A search of small candidates that were trained; its database and runs are in `folder`."""
    defaults = {
        "data.root": str(data),
        "space": "tiny",
        "storage": f"sqlite:///{folder}/nas.db",
        "detector.name": "fcos",
        "run.output": str(folder / "runs"),
        "recipe.epochs": 4,
        "recipe.image_size": 64,
        "search.trials": 2,
        "search.baselines": False,
    }
    return run_search(load_spec(None, defaults | flags), local=True)
