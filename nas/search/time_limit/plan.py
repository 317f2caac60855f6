"""The plan of a search with a time limit: how it is divided, and by which clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import optuna

from nas.search.callbacks import SearchCallback
from nas.search.forecast.runtime_model import CandidateCost
from nas.search.time_limit.clock import SearchClock
from nas.search.time_limit.division import Division
from nas.study.attributes import study_attributes
from nas.study.time_account import COMMANDS, TimeAccount, spent_s
from nas.utils.formatting import duration_text
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.search.search import Search


@dataclass(frozen=True)
class Typical:
    """What a typical candidate is predicted to take.

    Args:
        layout: one of median FLOPs.
        cost: the mean over the space.
        steps_per_epoch: training steps.
    """

    layout: Layout
    cost: CandidateCost
    steps_per_epoch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "layout": str(self.layout)}

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Typical:
        """Read what `to_dict` wrote."""
        cost = CandidateCost(**known["cost"])
        return cls(Layout.parse(known["layout"]), cost, known["steps_per_epoch"])


@dataclass(frozen=True)
class TimePlan:
    """A time limit as one command of a study keeps to it.

    Args:
        division: of the limit.
        typical: what a candidate is predicted to take.
        clock: of the search.
        token: identifies the command.
        began_at: when the command began, seconds since 1970.
        ends_at: when the limit is over.
        search_until_s: seconds of all commands together after which the search is over.
        goes_on: whether the division is that of an earlier command.
    """

    division: Division
    typical: Typical
    clock: SearchClock
    token: str
    began_at: float
    ends_at: float
    search_until_s: float
    goes_on: bool = False

    def describe(self) -> str:
        """Say in a line how the time is divided."""
        if not self.goes_on:
            return self.division.describe()
        limit, now = duration_text(self.division.limit_s), time.time()
        if self.left_s <= 0:
            return f"time limit {limit}: it is over; a longer one goes on"
        search_s = max(0.0, self.clock.ends_at - now)
        return (
            f"time limit {limit}, of which {duration_text(self.ends_at - now)} are left, "
            f"{duration_text(search_s)} of them for candidates"
        )

    def to_dict(self) -> dict[str, Any]:
        """Describe it as `nas_time` has it in the attributes of a study."""
        return {
            "limit_s": self.division.limit_s,
            "search_until_s": self.search_until_s,
            "division": self.division.to_dict(),
            "typical": self.typical.to_dict(),
        }

    @property
    def left_s(self) -> float:
        """Seconds that are left of the limit until the bundle has to be written."""
        return self.ends_at - self.division.reserve_s - time.time()

    def account(self, study: optuna.Study) -> TimeAccount:
        """Note in a study what this command takes."""
        return TimeAccount(study, self.token, self.began_at)


class TimeKeeping(SearchCallback):
    """Writes into the study how its time is divided, and how much of it this command takes.

    Args:
        plan: of this command.
    """

    def __init__(self, plan: TimePlan) -> None:
        self.plan = plan
        self.account: TimeAccount | None = None

    def on_start(self, search: Search) -> None:
        search.study.set_user_attr("nas_time", self.plan.to_dict())
        self.account = self.plan.account(search.study)
        self.account.note(at_once=True)

    def on_event(self, event: object) -> None:
        if self.account:
            self.account.note()


def earlier_s(study: optuna.Study | None) -> float:
    """Seconds that earlier commands of a study have taken; 0 where there is no study yet."""
    commands = study_attributes(study).get(COMMANDS, {}) if study else {}
    return spent_s([(begin, end) for begin, end in commands.values()])
