"""The prior of a search: what its request names is read, from the database or from the package."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nas.config.choices import BUILTIN_PRIOR
from nas.errors import StudyError
from nas.search.budget import Budget
from nas.search.layout_sample import uniform_sample
from nas.search.multifidelity.curves import projected_scores
from nas.search.multifidelity.observations import Observations
from nas.search.multifidelity.prior import EarlierStudy, Prior, Trainings
from nas.search.warm_start import earlier_studies
from nas.study.attributes import study_attributes, study_trials
from nas.study.roles import is_candidate
from search_spaces.layout import Layout

MOST = 300  # trials of a study that are learnt from
FILE = "builtin_prior.json"  # made by benchmarks/tabular/prior.py


def prior_of(budget: Budget, storage: InMemoryStorage | None = None) -> Prior | None:
    """Learn from what a request names as `search.prior`; None where it names nothing.

    Args:
        budget: of the search, with its request.
        storage: memory, in place of the database that the request names.

    Raises:
        StudyError: there is no such study, nothing is complete in it, or what varies in it does not
            vary in this space.
    """
    names = budget.spec.search.prior
    if not names:
        return None
    earlier = [read_study(study) for study in earlier_studies(budget.spec, "prior", storage)]
    earlier += builtin_studies() if BUILTIN_PRIOR in names else []
    sample = uniform_sample(budget)
    ours = Trainings([each.layout for each in sample], [each.flops for each in sample])
    return Prior(earlier, ours)


def read_study(study: optuna.Study) -> EarlierStudy:
    """Read what a search has shown so far, stopped candidates included.

    Raises:
        StudyError: no candidate is complete.
    """
    trials = [trial for trial in study_trials(study) if is_candidate(trial)]
    epochs = study_attributes(study)["nas_spec"]["recipe"]["epochs"]
    seen = Observations.of_trials(trials, epochs, MOST)
    if not any(trial.state == TrialState.COMPLETE for trial in seen.trials):
        raise StudyError(f"search.prior: study {study.study_name!r} has no completed trial yet")
    layouts = [Layout.parse(trial.user_attrs["layout"]) for trial in seen.trials]
    costs = [float(trial.user_attrs["flops"]) for trial in seen.trials]
    return EarlierStudy(
        study.study_name, Trainings(layouts, costs), *projected_scores(seen.curves, epochs)
    )


def builtin_studies() -> list[EarlierStudy]:
    """Read the studies that come with the package: `benchmarks/tabular/prior.py` says which."""
    text = (resources.files("nas.search") / FILE).read_text(encoding="utf-8")
    return [
        _builtin(f"{BUILTIN_PRIOR} {name}", study["trained"])
        for name, study in json.loads(text)["studies"].items()
    ]


def _builtin(name: str, rows: list[tuple[str, int, float]]) -> EarlierStudy:
    layouts, flops, scores = zip(*rows, strict=True)
    trained = Trainings(list(map(Layout.parse, layouts)), flops)
    return EarlierStudy(name, trained, np.array(scores), np.zeros(len(rows)))
