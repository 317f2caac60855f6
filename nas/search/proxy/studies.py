"""The two searches behind a check of the proxy, which train the same layouts by two recipes, and
what is kept of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.config.parsing import parse_model
from nas.config.recipe import load_recipe
from nas.config.spec import SearchSpec
from nas.errors import SpecError, StudyError
from nas.search.proxy.rank_correlation import Agreement, Pair, agreement
from nas.search.search import Search
from nas.search.warm_start import SAME
from nas.study.leaderboard import feasible
from nas.study.provenance import differences, versions
from nas.study.storage import open_storage
from search_spaces.layout import Layout

ATTRIBUTE = "nas_proxy_check"
PROXY, FULL = (
    "proxy",
    "full",
)  # what the studies of the two recipes are called, after the study's own name and a dot


def fuller(spec: SearchSpec, times: int, recipe: str | None) -> SearchSpec:
    """The request with the fuller recipe: a preset or YAML file, as it is, or else the request's
    own, `times` as long.

    Raises:
        SpecError: there is no such recipe, or it is the request's own.
    """
    written = (
        load_recipe(recipe) if recipe else spec.recipe.lengthened(times).model_dump(mode="json")
    )
    full = parse_model(SearchSpec, spec.to_dict() | {"recipe": written, "budget": _cap(spec)})
    if full.recipe == spec.recipe:
        raise SpecError(
            f"--full must be another recipe than that of the search; both are {spec.recipe.name!r}"
        )
    return full


def request_of(spec: SearchSpec, name: str, layouts: Sequence[Layout]) -> SearchSpec:
    """The search that trains some layouts, each once, by the recipe of `spec`; `name` is `PROXY` or
    `FULL`.

    The fuller trainings have another seed: with the proxy's they would share its luck, which a
    search's winner, trained in full, need not have.
    """
    texts = [str(layout) for layout in layouts]
    seed = (spec.search.seed + (name == FULL)) % 2**31
    search = {"try": texts, "try_only": True, "trials": len(texts), "seed": seed}
    changes = {"study": f"{spec.study}.{name}", "search": search, "budget": _cap(spec)}
    return parse_model(SearchSpec, spec.to_dict() | changes)


def _cap(spec: SearchSpec) -> dict[str, Any]:
    """The budget as a limit alone: what uses it up by one recipe need not by the other."""
    return {**spec.budget.model_dump(mode="json"), "mode": "cap"}


def chosen_before(spec: SearchSpec) -> list[Layout]:
    """The layouts of an earlier check of the same name, which this one goes on with."""
    with suppress(StudyError, KeyError):  # no database yet, or no such study
        study = optuna.load_study(
            study_name=f"{spec.study}.{PROXY}", storage=open_storage(spec.storage, create=False)
        )
        return [Layout.parse(text) for text in study.user_attrs["nas_spec"]["search"]["try"]]
    return []


def outcomes(
    study: Search, layouts: Sequence[Layout]
) -> tuple[dict[Layout, FrozenTrial], dict[str, str]]:
    """The trials of the layouts that completed within the budget, and why the others did not.

    Raises:
        StudyError: fewer than two did, which have no ranking.
    """
    latest = {
        trial.user_attrs.get("layout_id"): trial for trial in study.study.get_trials(deepcopy=False)
    }
    done, left_out = {}, {}
    for layout in layouts:
        trial = latest.get(layout.layout_id)
        if trial and trial.state == TrialState.COMPLETE and feasible(trial):
            done[layout] = trial
            continue
        known = trial.user_attrs if trial else {}
        reason = (
            known.get("fail_reason")
            or known.get("infeasible_reason")
            or study.stop_reason
            or "it was not trained"
        )
        left_out[str(layout)] = f"{study.spec.study}: {reason}"
    if len(done) < 2:
        said = "".join(f"; {layout}, {reason}" for layout, reason in list(left_out.items())[:1])
        raise StudyError(
            f"a ranking needs two layouts that both trainings complete; {study.spec.study} has "
            f"{len(done)}{said}"
        )
    return done, left_out


def compared(proxy: dict[Layout, FrozenTrial], full: dict[Layout, FrozenTrial]) -> Agreement:
    """The agreement of the layouts that both have."""
    return agreement(
        [
            _pair(str(layout), trial, full[layout])
            for layout, trial in proxy.items()
            if layout in full
        ]
    )


def _pair(layout: str, proxy: FrozenTrial, full: FrozenTrial) -> Pair:
    seconds = [trial.user_attrs["train_s"] for trial in (proxy, full)]
    return Pair(layout, proxy.user_attrs["flops"], proxy.values[0], full.values[0], *seconds)


def record(
    found: Agreement, proxy: Search, full: Search, left_out: dict[str, str]
) -> dict[str, Any]:
    """The check as plain JSON: what `nas_proxy_check` holds."""
    sides = {PROXY: _side(proxy.spec), FULL: _side(full.spec)}
    return {**sides, **found.to_dict(), "left_out": left_out, "versions": versions()}


def _side(spec: SearchSpec) -> dict[str, Any]:
    recipe = spec.recipe
    named = {"recipe": recipe.name, "epochs": recipe.epochs, "image_size": recipe.image_size}
    return {"study": spec.study, **named, "seed": spec.search.seed}


def store(check: dict[str, Any], spec: SearchSpec, studies: Sequence[Search]) -> list[str]:
    """Keep a check with the two studies, and with the search itself where the database has it, made
    from the same request.

    Returns:
        Names of the studies that have it.
    """
    found: dict[str, optuna.Study] = {study.spec.study: study.study for study in studies}
    if spec.study in optuna.get_all_study_names(studies[0].storage):
        own = optuna.load_study(study_name=spec.study, storage=studies[0].storage)
        comparable = "nas_uuid" in own.user_attrs and not differences(
            spec, studies[0].facts.fingerprint, own.user_attrs, ("space", *SAME)
        )
        found |= {spec.study: own} if comparable else {}
    for study in found.values():
        study.set_user_attr(ATTRIBUTE, check)
    return list(found)
