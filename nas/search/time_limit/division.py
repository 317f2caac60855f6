"""How a time limit is divided among the candidates of a search and the full training of its winner:
pure arithmetic, in seconds.

Half of the time is the search's and half the winner's. A candidate has as many epochs as let
`WANTED` of them end in the search's half, at least a quarter of those that it would have without a
limit. Where less than `LEAST` could end, comparing them would take time from the one that is
trained and hardly choose better: there is no search then, and one layout has all the time.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from nas.search.forecast.runtime_model import CandidateCost
from nas.utils.formatting import duration_text

SEARCH_SHARE = 0.5
WANTED = 8  # candidates, before each of them is trained for longer
LEAST = 3
LEAST_EPOCHS_SHARE = 0.25  # of the epochs without a limit: fewer rank by the warm-up
RESERVE_S, RESERVE_SHARE = 10.0, 0.02  # for writing the bundle, and for what is not foreseen
ONNX_FROM_S, ONNX_S = 3600.0, 180.0  # from which limit on there are ONNX files, and what they take
LEAST_STEPS = 10  # of the winner's training


@dataclass(frozen=True)
class Wanted:
    """What a request says of its search, for `divide`.

    Args:
        epochs: of a candidate without a limit.
        epochs_are_free: whether the limit may make them fewer.
        trials: candidates in all, at most.
        beside: baselines and replicates.
        concurrent: trainings at a time.
        trained: candidates that earlier commands have trained.
        finish: `train`, `export` or `none`; unless it is `train`, the search has all the time.
    """

    epochs: int
    epochs_are_free: bool = True
    trials: int = 1000
    beside: int = 0
    concurrent: int = 1
    trained: int = 0
    finish: str = "train"


@dataclass(frozen=True)
class Division:
    """A time limit, divided.

    Args:
        limit_s: the limit.
        search_s: what is left of it for the search, from now on, as predicted; 0: there is none.
        room_s: the most that the search may take, from now on.
        train_s: for the full training of the winner, after it.
        reserve_s: kept for the bundle.
        epochs: of a candidate.
        trained: candidates that earlier commands have trained.
        candidates: that end in `search_s`.
        beside: baselines and replicates that are trained after them.
        full_epochs: of the winner's training, as predicted.
    """

    limit_s: float
    search_s: float
    room_s: float
    train_s: float
    reserve_s: float
    epochs: int
    trained: int
    candidates: int
    beside: int
    full_epochs: float

    def describe(self) -> str:
        """Say it in a line."""
        left_s = self.search_s + self.train_s + self.reserve_s
        epochs = f"{self.full_epochs:.{'1' if self.full_epochs < 10 else '0'}f}"
        train = (
            f"{duration_text(self.train_s)} to train "
            f"{'the best' if self.trained + self.candidates else 'it'} in full (about "
            f"{epochs} epochs), "
        )
        return (
            f"time limit {duration_text(self.limit_s)}, of which {duration_text(left_s)} are left: "
            f"{self._search_text()}, {train if self.train_s else ''}"
            f"{duration_text(self.reserve_s)} kept for the bundle"
        )

    def _search_text(self) -> str:
        if self.candidates:
            beside = f" and {self.beside} trainings beside them" if self.beside else ""
            more = " more" if self.trained else ""
            return (
                f"{duration_text(self.search_s)} for about {self.candidates}{more} candidates of "
                f"{self.epochs} epochs{beside}"
            )
        if self.trained:
            return "no more candidates"
        return f"too short to compare {LEAST} candidates, so one layout has all the time"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def reserve_s(limit_s: float) -> float:
    """Seconds of a limit that are kept for the bundle of the winner."""
    onnx_s = ONNX_S if limit_s >= ONNX_FROM_S else 0.0
    return RESERVE_S + RESERVE_SHARE * limit_s + onnx_s


def divide(
    limit_s: float, left_s: float, cost: CandidateCost, wanted: Wanted, worker_s: float = 0.0
) -> Division:
    """Divide what is left of a time limit.

    Args:
        limit_s: the limit.
        left_s: what is left of it.
        cost: of a typical candidate.
        wanted: what the request says.
        worker_s: seconds until the first candidate begins.
    """
    kept_s = reserve_s(limit_s)
    usable_s = max(0.0, left_s - kept_s)
    share = SEARCH_SHARE if wanted.finish == "train" else 1.0
    room_s = max(0.0, share * usable_s - worker_s)
    more = max(0, wanted.trials - wanted.trained)
    epochs = _epochs(room_s, cost, wanted, more)
    candidates = min(more, _fitting(room_s, cost.total_s(epochs), wanted))
    least = min(LEAST, wanted.trials) if wanted.finish == "train" else 1
    if wanted.trained + candidates < least:
        candidates, room_s = 0, 0.0
    rounds = math.ceil((candidates + wanted.beside) / wanted.concurrent)
    needed_s = rounds * cost.total_s(epochs) if candidates == more else room_s
    starts_s = worker_s if room_s else 0.0
    search_s = min(room_s, needed_s) + starts_s
    train_s = usable_s - search_s if wanted.finish == "train" else 0.0
    full = max(0.0, train_s - cost.begin_s - cost.end_s) / cost.epoch_s
    return Division(
        limit_s,
        search_s,
        room_s + starts_s,
        train_s,
        kept_s,
        epochs,
        wanted.trained,
        candidates,
        wanted.beside if room_s else 0,
        full,
    )


def _epochs(room_s: float, cost: CandidateCost, wanted: Wanted, more: int) -> int:
    """As many as let `WANTED` candidates fit, within their limits."""
    if not wanted.epochs_are_free:
        return wanted.epochs
    least = math.ceil(LEAST_EPOCHS_SHARE * wanted.epochs)
    enough = min(WANTED, max(1, more))
    fitting = (
        epochs
        for epochs in range(wanted.epochs, least, -1)
        if _fitting(room_s, cost.total_s(epochs), wanted) >= enough
    )
    return next(fitting, least)


def _fitting(room_s: float, candidate_s: float, wanted: Wanted) -> int:
    """Candidates that end in a time, beside what else is trained in it."""
    return max(0, int(room_s / candidate_s) * wanted.concurrent - wanted.beside)
