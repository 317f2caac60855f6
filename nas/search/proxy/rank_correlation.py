"""How well two trainings of the same layouts agree, and whether the shorter may stand for the
longer.

Kendall's tau-b says it in one number: of two layouts drawn at random the proxy puts the better one
first with probability (1 + tau) / 2, ties aside. Its interval is a percentile bootstrap over the
layouts. Noise between seeds lowers tau as a wrong proxy does: a ranking that another seed would
turn over is of no more use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata

RESAMPLES, SEED = 1000, 0  # of the bootstrap
TOP = (1, 3, 5)
# With tau = 0.5 three of four pairs are in the right order, with 0.3 about two of three. How often
# the rule then says what, in per cent of 400 rankings with normal noise: `may` of a true tau of
# 0.2, 10 with 4 layouts, 3 with 6, at most 1 with 8 or more; of 0.8, 65 with 8 layouts, 88 with 12,
# 99 with 20. `may not` of a true tau of 0.5, 1 with 8 and 12 layouts, 3 with 20; of unrelated
# rankings, 24 with 8, 55 with 12, 86 with 20.
LEAST_LAYOUTS, WANTED_TAU, LEAST_TAU = 6, 0.5, 0.3
RULE = (
    f"the proxy may be used where tau is at least {WANTED_TAU} and its interval above "
    f"{LEAST_TAU}, may not where the interval "
    f"is below {WANTED_TAU}; else, and with fewer than {LEAST_LAYOUTS} layouts, it cannot be told"
)


@dataclass(frozen=True)
class Pair:
    """One layout, trained twice.

    Args:
        layout: in text form.
        flops: multiply-adds for one image.
        proxy_map, full_map: mAP of the two trainings, 0 to 1.
        proxy_s, full_s: seconds of the two trainings, evaluation not counted.
    """

    layout: str
    flops: int
    proxy_map: float
    full_map: float
    proxy_s: float
    full_s: float


@dataclass(frozen=True)
class Agreement:
    """How well two trainings of the same layouts agree.

    Args:
        pairs: the layouts.
        tau: Kendall's tau-b of the two rankings; None where a recipe gives all layouts the same
            mAP.
        tau_low, tau_high: its 95 % interval, see `interval`; None where tau is.
        top_recall: by k, the share of the fuller training's best k layouts that are among the
            proxy's best k, 0 to 1.
        proxy_s, full_s: seconds of training, summed over the layouts.
        verdict: `may`, `may not` or `cannot be told`, by `RULE`.
    """

    pairs: tuple[Pair, ...]
    tau: float | None
    tau_low: float | None
    tau_high: float | None
    top_recall: dict[int, float]
    proxy_s: float
    full_s: float
    verdict: str

    @property
    def cost_ratio(self) -> float:
        """Time of the fuller training divided by that of the proxy."""
        return self.full_s / self.proxy_s

    @property
    def sentence(self) -> str:
        """The verdict as a main clause, without a full stop."""
        if self.verdict == "cannot be told":
            start = "It" if self.tau is None else "With so few layouts it"
            return f"{start} cannot be told whether the proxy may be used"
        return f"The proxy {self.verdict} be used"

    @property
    def text(self) -> str:
        """Verdict, tau, recall and cost in one line."""
        recall = ", ".join(f"{share:.2f} of the best {k}" for k, share in self.top_recall.items())
        return (
            f"{self.sentence}: {self.tau_text} over {len(self.pairs)} layouts; recall {recall}; "
            "the fuller training takes "
            f"{self.cost_ratio:.1f} times as long."
        )

    @property
    def tau_text(self) -> str:
        """Tau and its interval in words."""
        if self.tau is None:
            return "no Kendall's tau, because one recipe gives the same mAP to all"
        return (
            f"Kendall's tau {self.tau:.2f}, 95 % interval {self.tau_low:.2f} to "
            f"{self.tau_high:.2f},"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON of the fields, `cost_ratio`, `resamples`, `rule` and `text`."""
        more = {
            "cost_ratio": self.cost_ratio,
            "resamples": RESAMPLES,
            "rule": RULE,
            "text": self.text,
        }
        recall = {str(k): share for k, share in self.top_recall.items()}
        return {
            **asdict(self),
            "pairs": [asdict(pair) for pair in self.pairs],
            "top_recall": recall,
            **more,
        }


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """Compare two trainings of the same layouts, of which there must be two at least."""
    proxy, full = (
        np.array([getattr(pair, name) for pair in pairs]) for name in ("proxy_map", "full_map")
    )
    tau = _tau(proxy, full)
    low, high = interval(proxy, full) if tau is not None else (None, None)
    return Agreement(
        tuple(pairs),
        tau,
        low,
        high,
        {k: top_recall(proxy, full, k) for k in TOP if k < len(pairs)},
        sum(pair.proxy_s for pair in pairs),
        sum(pair.full_s for pair in pairs),
        verdict(len(pairs), tau, low, high),
    )


def verdict(layouts: int, tau: float | None, low: float | None, high: float | None) -> str:
    """What `RULE` says: `may`, `may not` or `cannot be told`.

    Args:
        layouts: how many were compared.
        tau: Kendall's tau-b; None where it is not defined.
        low, high: ends of its interval.
    """
    if layouts < LEAST_LAYOUTS or tau is None or low is None or high is None:
        return "cannot be told"
    if tau >= WANTED_TAU and low > LEAST_TAU:
        return "may"
    return "may not" if high < WANTED_TAU else "cannot be told"


def interval(proxy: np.ndarray, full: np.ndarray) -> tuple[float, float]:
    """95 % interval of Kendall's tau: percentiles over `RESAMPLES` draws of as many layouts, with
    replacement, from a fixed seed.

    Args:
        proxy, full: mAP of each layout [N] by the two trainings.

    A layout drawn twice is a pair that tau-b leaves out; a draw whose layouts all tie says nothing
    and is left out too.
    """
    drawn = np.random.default_rng(SEED).integers(len(proxy), size=(RESAMPLES, len(proxy)))
    taus = [tau for pick in drawn if (tau := _tau(proxy[pick], full[pick])) is not None]
    low, high = np.percentile(taus, (2.5, 97.5))
    return float(low), float(high)


def top_recall(proxy: np.ndarray, full: np.ndarray, k: int) -> float:
    """Share of the fuller training's best `k` layouts that are among the proxy's best `k`, 0 to 1;
    where ties leave open who is, the expected share of a draw among them.

    Args:
        proxy, full: mAP of each layout [N] by the two trainings.
        k: from 1 to N.
    """
    return float((_among_best(proxy, k) * _among_best(full, k)).sum() / k)


def ranks(values: Sequence[float]) -> list[int]:
    """Rank of each value, 1 for the highest; equal values share the better rank."""
    return [int(rank) for rank in rankdata([-value for value in values], method="min")]


def _among_best(values: np.ndarray, k: int) -> np.ndarray:
    """Probability of each value to be one of the highest `k`."""
    above = (values > values[:, None]).sum(1)
    equal = (values == values[:, None]).sum(1)
    chances: np.ndarray = np.clip((k - above) / equal, 0, 1)
    return chances


def _tau(proxy: np.ndarray, full: np.ndarray) -> float | None:
    tau = kendalltau(proxy, full).statistic
    return (
        None if np.isnan(tau) else round(float(tau), 9)
    )  # 1 for a perfect ranking, not 0.9999999999999998
