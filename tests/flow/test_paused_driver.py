"""A driver that stands still before any statement of telling what came of a trial, while another
one, which takes it for dead, takes the trial over and ends it. Whoever ends the trial first has
ended it: nothing of the other is written then, and it says that it has lost the trial.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from helpers.untrained import Driver, report

from nas.errors import StudyError
from nas.search.trial_queue import TrialAssignment

OURS, THEIRS = 0.1, 0.9
NO_WAITING = {  # for what the first one has locked: it stands still
    "sqlite": "PRAGMA busy_timeout = 0",
    "postgresql": "SET lock_timeout = 100",
    "mysql": "SET innodb_lock_wait_timeout = 1",
}
TELLINGS: dict[str, Callable[[Driver, int], object]] = {
    "its end": lambda driver, number: driver.study.report(number, last(OURS)),
    "an epoch": lambda driver, number: driver.study.report(number, report(OURS, 2, epochs=3)),
    "a failure": lambda driver, number: driver.study.fail(number, "broken"),
    "too large": lambda driver, number: driver.study.infeasible(number, "too large", 2**50),
}
ENDS = {"complete", "failed", "infeasible"}


def last(value: float) -> Any:
    return report(value, 3, epochs=3, loss=value, memory_peak_bytes=2**20)


class Pause:
    """Does something once, before a statement or a commit of an engine.

    Args:
        engine: of the driver that stands still.
        number: of the statement or commit, from 1.
        act: what happens meanwhile; it is done outside of the driver's own context.
    """

    def __init__(self, engine: sa.Engine, number: int, act: Callable[[], object]) -> None:
        self.left, self.act = number, act
        sa.event.listen(engine, "before_cursor_execute", self._count)
        sa.event.listen(engine, "commit", self._count)

    def _count(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            Context().run(self.act)


class Other:
    """The driver that takes the trial over.

    Args:
        driver: which does not wait for locks of the first one.
        number: of the trial.

    Attributes:
        rows: all that the database has of the trial, as soon as this driver has ended it.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver, self.number = driver, number
        self.rows: list[Any] = []
        sa.event.listen(engine_of(driver), "connect", do_not_wait)
        engine_of(driver).dispose()

    def go_on(self) -> None:
        """As far as it comes without waiting."""
        study = self.driver.study
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nas.study.retry.PAUSES_S", ())
            try:
                taken = study.is_running(self.number) or self._is_taken(study.ask())
                if taken:
                    study.report(self.number, last(THEIRS))
                    self.rows = rows_of(engine_of(self.driver), self.driver.trial(self.number))
            except StudyError as error:
                if "lock" not in str(error).lower():
                    raise

    def _is_taken(self, assignment: TrialAssignment | None) -> bool:
        return assignment is not None and assignment.number == self.number


def do_not_wait(connection: Any, _: object) -> None:
    kind = "sqlite" if "sqlite" in type(connection).__module__ else type(connection).__module__
    statement = next(words for name, words in NO_WAITING.items() if name in _KINDS.get(kind, kind))
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
    connection.commit()


_KINDS = {"psycopg": "postgresql", "pymysql.connections": "mysql"}


def engine_of(driver: Driver) -> sa.Engine:
    return driver.study.storage.engine


def rows_of(engine: sa.Engine, trial: Any) -> list[Any]:
    """All rows of a trial, of every table that has any."""
    found = []
    with engine.connect() as connection:
        tables = sa.MetaData()
        tables.reflect(engine)
        for name, table in sorted(tables.tables.items()):
            if "trial_id" in table.c:
                asked = sa.select(table).where(table.c.trial_id == trial._trial_id)
                found.append((name, sorted(map(str, connection.execute(asked)))))
    return found


def race(folder: Path, url: str, tell: Callable[[Driver, int], object], pause: int) -> bool:
    """One trial, told by the first driver with a pause; whether it came to the pause."""
    flags = {"study": f"{folder.name}-{pause}", "storage": url, "recipe.epochs": 3}
    first = Driver(folder, **flags)
    assigned = first.study.ask()
    assert assigned
    number = assigned.number
    first.study.report(number, report(OURS, 1, epochs=3))
    other = Other(Driver(folder, **flags), number)
    paused = Pause(engine_of(first), pause, other.go_on)
    tell(first, number)
    if paused.left > 0:
        return False
    ended_there = bool(other.rows)
    if not ended_there:
        other.go_on()  # now that nothing is locked
    check(first, other, number, ended_there=ended_there)
    for driver in (first, other.driver):
        engine_of(driver).dispose()
    return True


def check(first: Driver, other: Other, number: int, *, ended_there: bool) -> None:
    trial = other.driver.trial(number)
    ended = [set(driver.kinds()) & ENDS for driver in (first, other.driver)]
    if other.rows:
        assert ended == [set(), {"complete"}]
        assert other.rows == rows_of(engine_of(first), trial)
        attributes = trial.user_attrs
        assert trial.value == attributes["map"] == attributes["losses"]["3"] == THEIRS
        assert attributes["checkpoint"] == str(other.driver.study.files.weights(number))
        assert not {"fail_reason", "infeasible_reason"} & set(attributes)
    else:
        assert [bool(kinds) for kinds in ended] == [True, False]
        assert trial.state.is_finished()
    if ended_there:
        lost = [event.reason for event in first.events if event.kind == "lost"]
        assert lost == ["taken over by another driver"]


def all_races(folder: Path, url: str, telling: str, every: int) -> None:
    """Before every so many statements, until the telling has no more of them."""
    pauses = count(1 + sum(telling.encode()) % every, every)
    raced = list(takewhile(lambda pause: race(folder, url, TELLINGS[telling], pause), pauses))
    assert len(raced) > 9 // every


some_of_many = pytest.mark.parametrize(
    "every", [pytest.param(5, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)]
)


@some_of_many
@pytest.mark.parametrize("telling", TELLINGS)
def test_a_driver_that_stands_still_loses_its_trial_and_nothing_else(
    tmp_path: Path, telling: str, every: int
):
    all_races(tmp_path, f"sqlite:///{tmp_path}/nas.db", telling, every)


@some_of_many
@pytest.mark.parametrize("telling", TELLINGS)
def test_the_same_on_a_server(tmp_path: Path, database: str, telling: str, every: int):
    all_races(tmp_path, database, telling, every)
