"""Where a study comes from: its request, the software, and whether a new request may continue
it.
"""

from __future__ import annotations

import platform
import subprocess
import uuid
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optuna
from pydantic import ValidationError

from nas.config.spec import SearchSpec
from nas.errors import StudyError
from nas.reports import DatasetSummary
from nas.study.storage import parse_url, redacted
from nas.utils.formatting import gib

MUST_MATCH = ("space", "detector", "recipe", "budget", "calibration", "search.objectives")


def public_spec(spec: SearchSpec) -> dict[str, Any]:
    """The request as it may be stored and printed: without the storage's password."""
    return spec.to_dict() | {"storage": redacted(parse_url(spec.storage))}


def versions() -> dict[str, str]:
    """Of everything that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("scratch-nas", "torch", "torchvision", "optuna", "ray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Of the checkout this package runs from."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def differences(
    spec: SearchSpec,
    fingerprint: str,
    known: dict[str, Any],
    sections: tuple[str, ...] = MUST_MATCH,
) -> list[str]:
    """What a study was made from and this request disagree about in some sections, as
    `recipe.epochs was 8, now 9`.

    Args:
        spec, fingerprint: the request, and its data's.
        known: attributes of the study.
        sections: of the request.
    """
    before, now = _completed(known["nas_spec"]), spec.to_dict()
    found = [
        line
        for section in sections
        for line in _compare(section, _part(before, section), _part(now, section))
    ]
    return found + _compare("the data's fingerprint", known["nas_data"]["fingerprint"], fingerprint)


def match_or_describe(
    study: optuna.Study,
    has_trials: bool,
    spec: SearchSpec,
    facts: DatasetSummary,
    budget_bytes: int,
) -> None:
    """Put into a new study what it is made from; an existing one must have been made from the same
    request.

    Raises:
        StudyError: it was not, or is no search.
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
