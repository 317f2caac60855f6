"""What the trials of a study have shown of their layouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.search.multifidelity.curves import Curve, projected_scores
from nas.search.multifidelity.features import Features, features_of
from nas.search.multifidelity.gaussian_process import Posterior, posterior
from nas.search.multifidelity.prior import Prior
from search_spaces.layout import Layout

MOST = 600  # trials that the model learns from: a suggestion takes a second beside so many
MOST_EPOCHS = 10**6  # that a recipe may have; whoever writes to a database can name others
SHOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class Observations(NamedTuple):
    """Trials that have a score, and those that run without one so far.

    Args:
        trials: with a score.
        curves: of each of them.
        pending: without one; nothing is known of them but their layouts.
    """

    trials: list[FrozenTrial]
    curves: list[Curve]
    pending: list[FrozenTrial]

    @classmethod
    def of(cls, study: Study, epochs: int) -> Observations:
        """Collect the candidates of a study whose layouts have been chosen.

        Args:
            study: that hides what is no candidate.
            epochs: of a whole training.
        """
        return cls.of_trials(study.get_trials(deepcopy=False), epochs)

    @classmethod
    def of_trials(
        cls, trials: Sequence[FrozenTrial], epochs: int, most: int = MOST
    ) -> Observations:
        """Collect the trials whose layouts have been chosen.

        Args:
            trials: candidates, in any state.
            epochs: of a whole training.
            most: so many of those with a score are taken, the best half and the latest half.
        """
        chosen = [
            trial
            for trial in trials
            if trial.state in SHOWN and trial.user_attrs.keys() >= {"layout", "flops"}
        ]
        curves = [curve_of(trial, epochs) for trial in chosen]
        known = [(trial, curve) for trial, curve in zip(chosen, curves, strict=True) if curve]
        running = TrialState.RUNNING
        known = _most_telling(known, most)
        pending = [t for t, c in zip(chosen, curves, strict=True) if not c and t.state == running]
        return cls([trial for trial, _ in known], [curve for _, curve in known], pending)

    def model(
        self,
        epochs: int,
        pool: Sequence[Layout] = (),
        flops: Sequence[float] = (),
        prior: Prior | None = None,
    ) -> Posterior:
        """Believe something of every layout: those of `trials`, then `pending`, then `pool`. What
        runs without a score counts as if it had the one that is expected of it.

        Args:
            epochs: of a whole training.
            pool: further layouts.
            flops: multiply-adds of each of them.
            prior: what earlier studies say.
        """
        seen = [*self.trials, *self.pending]
        layouts = [*(Layout.parse(trial.user_attrs["layout"]) for trial in seen), *pool]
        costs = [*(float(trial.user_attrs["flops"]) for trial in seen), *flops]
        features: Features = features_of(layouts, costs)
        if prior:
            features = features._replace(prior=prior.means(layouts, costs))
        scores, left = projected_scores(self.curves, epochs)
        rows = np.arange(len(scores))
        found = posterior(features, rows, scores, left)
        if not self.pending:
            return found
        believed = found.mean[len(scores) : len(seen)]
        rows, none = np.arange(len(seen)), np.zeros(len(believed))
        return posterior(
            features, rows, np.concatenate([scores, believed]), np.concatenate([left, none])
        )


def _most_telling(
    known: list[tuple[FrozenTrial, Curve]], most: int
) -> list[tuple[FrozenTrial, Curve]]:
    """The best half and the latest half of what is taken of very many."""
    if len(known) <= most:
        return known
    latest = known[-most // 2 :]
    earlier = known[: -most // 2]
    earlier.sort(key=lambda pair: -pair[1].scores[pair[1].last])
    return sorted([*earlier[: most // 2], *latest], key=lambda pair: pair[0].number)


def curve_of(trial: FrozenTrial, epochs: int) -> Curve | None:
    """Read the curve of a trial; None where it has no score.

    Args:
        trial: perhaps with its final score alone.
        epochs: of a whole training.
    """
    scores = {
        epoch: score
        for epoch, score in trial.intermediate_values.items()
        if math.isfinite(score) and 0 <= epoch <= MOST_EPOCHS
    }
    complete = trial.state == TrialState.COMPLETE
    if not scores and complete and trial.values:
        scores = {min(epochs, MOST_EPOCHS): trial.values[0]}
    if not scores:
        return None
    written = trial.user_attrs.get("losses") or {}
    losses = {
        int(epoch): loss
        for epoch, loss in written.items()
        if epoch.isdecimal() and len(epoch) <= len(str(MOST_EPOCHS))
        if loss is not None and math.isfinite(loss) and int(epoch) <= MOST_EPOCHS
    }
    return Curve(scores, losses, complete)
