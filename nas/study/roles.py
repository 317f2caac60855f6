"""Why a trial is in a study: its role, an attribute of the trial."""

from __future__ import annotations

from optuna.trial import FrozenTrial

CANDIDATE, BASELINE, REPLICATE = "candidate", "baseline", "replicate"
TAKEN_OVER = "taken over"  # a result of an earlier study, which nobody trained here


def role_of(trial: FrozenTrial) -> str:
    """Read the role of a trial; one that has no layout yet is going to be a candidate."""
    return str(trial.user_attrs.get("role", CANDIDATE))


def role_label(role: str, replicate: int) -> str:
    """Say a role in words; a later training of a layout with the number of its seed, the first
    training's being 1: `replicate, seed 2`.

    Args:
        role: one of the constants of this module.
        replicate: which repetition of the layout it is, 0 for the first training.
    """
    return f"{role}, seed {replicate + 1}" if replicate else role


def is_candidate(trial: FrozenTrial) -> bool:
    """Whether a search chooses among trials like this one: a candidate of this study, or one that
    was taken over from an earlier study.
    """
    return role_of(trial) in (CANDIDATE, TAKEN_OVER)
