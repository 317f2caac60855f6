"""Opening a search: everything that can be refused is checked first, then the study is created or
matched, then the parts of a `Search` are built and put together.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.storages import InMemoryStorage

from nas.artifacts.trial_files import TrialFiles, check_output
from nas.config.spec import SearchSpec
from nas.reports import DatasetSummary
from nas.search.baselines import recorded_baselines
from nas.search.budget import Budget
from nas.search.callbacks import CallbackList, SearchCallback
from nas.search.extra_trials import ExtraTrials
from nas.search.feasibility import check_feasible
from nas.search.layout_filter import LayoutFilter
from nas.search.memory_correction import correct_predictions
from nas.search.multifidelity.prior import Prior
from nas.search.objectives import directions
from nas.search.parts import SearchParts
from nas.search.prior_studies import prior_of
from nas.search.pruners import make_pruner
from nas.search.running import RunningTrials
from nas.search.search import Search
from nas.search.search_sampler import search_sampler
from nas.search.time_limit.plan import TimePlan
from nas.search.trial_queue import TrialQueue
from nas.search.trial_recorder import TrialRecorder
from nas.search.warm_start import earlier_studies, take_over
from nas.study.events import note
from nas.study.lease import lease_of
from nas.study.lock import lock_of
from nas.study.optuna_internals import CandidateStudy, Storage
from nas.study.provenance import match_or_describe, recorded_budget_gib
from nas.study.storage import database_name, open_storage
from nas.study.trials import TrialTable
from search_spaces.layout import Layout


def open_budget(
    spec: SearchSpec, facts: DatasetSummary, storage: InMemoryStorage | None = None
) -> Budget:
    """Build the budget of a search, once for everything that needs it, with the limit that its
    study has recorded where there is one already. Nothing is made in the database.

    Args:
        spec: the request.
        facts: the checked data set.
        storage: memory, in place of the database that the request names.
    """
    recorded_gib = recorded_budget_gib(spec, storage) if spec.budget.like else None
    return Budget(spec, facts, recorded_gib)


def open_search(
    spec: SearchSpec,
    facts: DatasetSummary,
    callbacks: Sequence[SearchCallback] = (),
    storage: InMemoryStorage | None = None,
    budget: Budget | None = None,
    plan: TimePlan | None = None,
) -> Search:
    """Open a search: a new one, or one that goes on.

    Args:
        spec: the request.
        facts: the checked data set.
        callbacks: told of everything that happens, from what a warm start takes over on.
        storage: memory, in place of the database that the request names, for searches that nobody
            keeps.
        budget: of this request, where it has been built already by `open_budget`.
        plan: of the time; None where there is no limit.

    Raises:
        StudyError: a study of that name exists and is no search, or was made from another request;
            or nothing in the space fits into the budget; or the output folder cannot be written.
    """
    budget = budget or open_budget(spec, facts, storage)
    unsolved_patterns = check_feasible(budget)
    earlier, prior = earlier_studies(spec, "warm_start", storage), prior_of(budget, storage)
    check_output(spec.run.output)
    opened = storage or open_storage(spec.storage, create=True)
    study = _create_or_load(spec, facts, budget, opened, prior)
    table = TrialTable(study, opened)
    lock = lock_of(opened, spec.study)
    with lock.exclusive():
        match_or_describe(study, bool(table.trials), spec, facts, budget.limit_bytes)
    _note_latency(study, budget)
    study_uuid = study.user_attrs["nas_uuid"]
    lease = lease_of(lock, spec.study, study_uuid)
    database = "" if storage else database_name(spec.storage)
    files = TrialFiles(spec.run.output, spec.study, study_uuid, lease.token, database)
    layout_filter = _layout_filter(budget, table)
    study.sampler = search_sampler(budget, layout_filter, len(table.candidates), prior)
    parts = SearchParts(
        spec=spec,
        budget=budget,
        study=study,
        table=table,
        lease=lease,
        layout_filter=layout_filter,
        files=files,
        running=RunningTrials(),
        callback=CallbackList(callbacks),
        plan=plan,
    )
    extra_trials = ExtraTrials(spec, table, lambda: recorded_baselines(study, budget))
    queue = TrialQueue(parts, extra_trials, unsolved_patterns)
    recorder = TrialRecorder(parts)
    parts.callback.on_open(study_uuid, opened)
    correct_predictions(table, budget, layout_filter)
    _warm_start(parts, earlier, facts.fingerprint)
    _say_prior(parts, prior)
    return Search(parts, facts=facts, storage=opened, queue=queue, recorder=recorder)


def _note_latency(study: optuna.Study, budget: Budget) -> None:
    if latency := budget.caps.describe():
        study.set_user_attr("nas_latency", latency)


def _create_or_load(
    spec: SearchSpec,
    facts: DatasetSummary,
    budget: Budget,
    storage: Storage,
    prior: Prior | None,
) -> optuna.Study:
    optuna.create_study(
        study_name=spec.study,
        storage=storage,
        load_if_exists=True,
        directions=directions(spec.search.objectives),
    )
    warmup = spec.recipe.unjudged_epochs(facts.train_images)
    at_cost_in = budget if spec.search.prune_at == "cost" else None
    pruner = make_pruner(spec.search.pruner, warmup, spec.recipe.epochs, at_cost_in, prior)
    return CandidateStudy(spec.study, storage, pruner=pruner)


def _layout_filter(budget: Budget, table: TrialTable) -> LayoutFilter:
    search, retries = budget.spec.search, budget.spec.run.retries
    listed = _tried(budget.spec) if search.try_only else []
    return LayoutFilter(budget, lambda: table.trained_layout_ids(retries), listed)


def _tried(spec: SearchSpec) -> list[Layout]:
    return [Layout.parse(text) for text in spec.search.try_first]


def _warm_start(parts: SearchParts, earlier: Sequence[optuna.Study], fingerprint: str) -> None:
    """Take over what earlier studies have trained. Every time: what was taken over is not taken
    again, what has been trained there since is.
    """
    for study in earlier:
        with parts.lease.exclusive():
            parts.table.read()
            text = take_over(parts.table, study, parts.spec, fingerprint, parts.layout_filter)
        parts.callback.on_event(note(text))
        parts.table.read()


def _say_prior(parts: SearchParts, prior: Prior | None) -> None:
    if prior:
        parts.callback.on_event(note(prior.text))
