"""The two searches behind a check of the proxy, which train the same layouts by two recipes, and
what is kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
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
from nas.study.leaderboard import feasible, trial_row
from nas.study.optuna_internals import study_ids
from nas.study.provenance import differences, versions
from nas.study.storage import open_storage
from search_spaces.layout import Layout

ATTRIBUTE = "nas_proxy_check"
# What the studies of the two recipes are called, after the study's own name and a dot.
PROXY, FULL = "proxy", "full"


@dataclass(frozen=True)
class ProxySide:
    """One of the two trainings of a check.

    Args:
        study: name of its study.
        recipe: name of its recipe.
        epochs: of the recipe.
        image_size: short side of the images in pixels.
        seed: of its search.
    """

    study: str
    recipe: str
    epochs: int
    image_size: int
    seed: int


@dataclass(frozen=True)
class ProxyCheck:
    """Whether the recipe of a search ranks layouts as a fuller training does, and what says so.

    Args:
        proxy: training by the recipe of the search.
        full: the fuller training.
        agreement: of the layouts that both trainings completed.
        left_out: why other layouts were not compared, by layout in text form.
        versions: of everything that results depend on.
    """

    proxy: ProxySide
    full: ProxySide
    agreement: Agreement
    left_out: Mapping[str, str]
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: attribute `nas_proxy_check`."""
        return {
            PROXY: asdict(self.proxy),
            FULL: asdict(self.full),
            **self.agreement.to_dict(),
            "left_out": dict(self.left_out),
            "versions": dict(self.versions),
        }


def fuller(spec: SearchSpec, times: int, recipe: str | None) -> SearchSpec:
    """The request of a search with a fuller recipe in place of its own.

    Args:
        spec: the request.
        times: how many times as many epochs the fuller training has, without `recipe`.
        recipe: preset or YAML file of the fuller recipe, taken as it is; None for that of the
            request, `times` as long.

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
    """The request of one of the two searches, which trains some layouts, each once.

    Args:
        spec: request with the recipe that is trained by.
        name: `PROXY` or `FULL`.
        layouts: what to train.

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
    """The layouts of an earlier check of the same name, which a new one goes on with; none where
    there was no check.
    """
    with suppress(StudyError, KeyError):  # no database yet, or no such study
        study = optuna.load_study(
            study_name=f"{spec.study}.{PROXY}", storage=open_storage(spec.storage, create=False)
        )
        return [Layout.parse(text) for text in study.user_attrs["nas_spec"]["search"]["try"]]
    return []


def outcomes(
    study: Search, layouts: Sequence[Layout]
) -> tuple[dict[Layout, FrozenTrial], dict[str, str]]:
    """What became of layouts in a search.

    Args:
        study: the search.
        layouts: that it was to train.

    Returns:
        The trials of the layouts that completed within the budget, and why the others did not, by
        layout in text form.

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
        reason = trial_row(trial).reason if trial else None
        reason = reason or study.stop_reason or "it was not trained"
        left_out[str(layout)] = f"{study.spec.study}: {reason}"
    if len(done) < 2:
        example = "".join(f"; {layout}, {reason}" for layout, reason in list(left_out.items())[:1])
        raise StudyError(
            f"a ranking needs two layouts that both trainings complete; {study.spec.study} has "
            f"{len(done)}{example}"
        )
    return done, left_out


def compared(proxy: dict[Layout, FrozenTrial], full: dict[Layout, FrozenTrial]) -> Agreement:
    """The agreement of two trainings over the layouts that both completed.

    Args:
        proxy, full: completed trials by layout, see `outcomes`.
    """
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
    found: Agreement, proxy: Search, full: Search, left_out: Mapping[str, str]
) -> ProxyCheck:
    """Put a check together.

    Args:
        found: the agreement of the two trainings.
        proxy, full: the searches that trained.
        left_out: why layouts were not compared, by layout in text form.
    """
    return ProxyCheck(_side(proxy.spec), _side(full.spec), found, left_out, versions())


def _side(spec: SearchSpec) -> ProxySide:
    recipe = spec.recipe
    return ProxySide(
        spec.study, recipe.name, recipe.epochs, recipe.image_size, seed=spec.search.seed
    )


def store(check: ProxyCheck, spec: SearchSpec, studies: Sequence[Search]) -> list[str]:
    """Write a check into the attributes of the two studies, and of the search itself where the
    database has it, made from the same request.

    Args:
        check: what is written.
        spec: request of the search.
        studies: the two that trained.

    Returns:
        Names of the studies that have it.
    """
    targets: dict[str, optuna.Study] = {study.spec.study: study.study for study in studies}
    if spec.study in study_ids(studies[0].storage):
        own = optuna.load_study(study_name=spec.study, storage=studies[0].storage)
        comparable = "nas_uuid" in own.user_attrs and not differences(
            spec, studies[0].facts.fingerprint, own.user_attrs, ("space", *SAME)
        )
        targets |= {spec.study: own} if comparable else {}
    for study in targets.values():
        study.set_user_attr(ATTRIBUTE, check.to_dict())
    return list(targets)
