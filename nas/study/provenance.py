"""Where a study comes from: its request, the software, and whether a new request may continue
it.
"""

from __future__ import annotations

import platform
import subprocess
import uuid
from contextlib import suppress
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.storages import InMemoryStorage
from pydantic import ValidationError

from nas.config.spec import SearchSpec
from nas.errors import StudyError
from nas.reports import DatasetSummary
from nas.reports.dataset import same_data
from nas.study.optuna_internals import study_ids
from nas.study.storage import open_storage, parse_url, redacted
from nas.utils.formatting import gib

MUST_MATCH = ("space", "detector", "recipe", "budget", "calibration", "search.objectives")


def public_spec(spec: SearchSpec) -> dict[str, Any]:
    """Make of a request the plain JSON that may be stored and printed: without the password of its
    storage.
    """
    return spec.to_dict() | {"storage": redacted(parse_url(spec.storage))}


def versions() -> dict[str, str]:
    """Collect the versions of everything that results depend on, by package; what is not installed
    is left out.
    """
    versions_by_package = {"python": platform.python_version()}
    for package in ("scratch-nas", "torch", "torchvision", "optuna", "ray"):
        with suppress(PackageNotFoundError):
            versions_by_package[package] = version(package)
    return versions_by_package


def git_commit(module: Path = Path(__file__)) -> str | None:
    """Find the commit of the checkout that this package runs from.

    Args:
        module: a file of the package, which the checkout must track. A package that is installed in
            an environment inside somebody else's repository is not part of that repository, and its
            results do not come from that commit.

    Returns:
        Forty hexadecimal digits; None where the package runs from no checkout.
    """
    if _git(module.parent, "ls-files", "--error-unmatch", "--", module.name) is None:
        return None
    return _git(module.parent, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says in a folder, without the last line's end; None where it refuses or is
    missing.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def differences(
    spec: SearchSpec,
    fingerprint: str,
    known: dict[str, Any],
    sections: tuple[str, ...] = MUST_MATCH,
) -> list[str]:
    """List what a study was made from and a request disagree about, as
    `recipe.epochs was 8, now 9`.

    Args:
        spec: the request.
        fingerprint: identifies the request's data.
        known: attributes of the study.
        sections: keys of the request that are compared, with everything below them.
    """
    before, now = _completed(known["nas_spec"]), spec.to_dict()
    changed = [
        line
        for section in sections
        for line in _compare(section, _part(before, section), _part(now, section))
    ]
    stored = known["nas_data"]["fingerprint"]
    now_too = stored if same_data(stored, fingerprint) else fingerprint
    return changed + _compare("the data's fingerprint", stored, now_too)


def match_or_describe(
    study: optuna.Study,
    has_trials: bool,
    spec: SearchSpec,
    facts: DatasetSummary,
    budget_bytes: int,
) -> None:
    """Put into a new study what it is made from; an existing one must have been made from the same
    request.

    Args:
        study: the study, just made or of an earlier driver.
        has_trials: whether there are trials in it.
        spec: the request; the last one is kept in `nas_spec`.
        facts: the checked data set.
        budget_bytes: the memory limit of the search.

    Raises:
        StudyError: the study was made from another request, or has trials and is no search.
    """
    known = study.user_attrs
    if "nas_uuid" not in known and has_trials:
        raise StudyError(f"study {spec.study!r} exists and is not a search: choose another --study")
    if "nas_uuid" not in known:
        study.set_user_attr("nas_budget_gib", gib(budget_bytes))
        study.set_user_attr("nas_versions", versions())
        study.set_user_attr("nas_git_commit", git_commit())
        study.set_user_attr("nas_data", facts.to_dict())
    elif changed := differences(spec, facts.fingerprint, known):
        raise StudyError(
            f"study {spec.study!r} was made from another request: {'; '.join(changed)}. "
            "Repeat that request, or choose another --study"
        )
    study.set_user_attr("nas_spec", public_spec(spec))
    if "nas_uuid" not in known:  # last, so that a study with it is described completely
        study.set_user_attr("nas_uuid", str(uuid.uuid4()))


def recorded_study(spec: SearchSpec, storage: InMemoryStorage | None = None) -> Study | None:
    """Find the study that a request would go on with; None where there is none yet. No study is
    made.

    Args:
        spec: the request, which names the database and the study.
        storage: memory, in place of that database.
    """
    try:
        opened = storage or open_storage(spec.storage, create=False)
    except StudyError:  # no database yet; what else is wrong with it is said when it is opened
        return None
    if spec.study not in study_ids(opened):
        return None
    return optuna.load_study(study_name=spec.study, storage=opened)


def recorded_budget_gib(spec: SearchSpec, storage: InMemoryStorage | None = None) -> float | None:
    """Look up the budget that a study has recorded, GiB with four decimals; None where there is no
    such study yet. Arguments as of `recorded_study`.
    """
    study = recorded_study(spec, storage)
    return study.user_attrs.get("nas_budget_gib") if study else None


def _completed(written: dict[str, Any]) -> dict[str, Any]:
    """An older request with the defaults of keys that came later; a newer one as it is."""
    try:
        return SearchSpec.model_validate(written).to_dict()
    except ValidationError:
        return written


def _part(request: dict[str, Any], key: str) -> Any:
    return reduce(lambda section, name: section[name], key.split("."), request)


def _compare(key: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(set(before) | set(now))
        return [
            line
            for name in names
            for line in _compare(f"{key}.{name}", before.get(name), now.get(name))
        ]
    return [] if before == now else [f"{key} was {before!r}, now {now!r}"]
