"""The log of a search: in order, for one study, and never a reason to stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.untrained import FACTS, Driver, report, spec

from nas.errors import StudyError
from nas.search.event_logging import EventLogging
from nas.search.open_search import open_search
from nas.study.event_log import LOG, EventLog, summary
from nas.study.events import Event


def engine(tmp_path: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{tmp_path}/log.db")


def test_lines_in_order_and_of_one_study(tmp_path: Path):
    mine, other = EventLog(engine(tmp_path), "mine"), EventLog(engine(tmp_path), "other")
    with mine.running(), other.running():
        for number in range(5):
            mine.write(f"line {number}")
        other.write("theirs")
    lines = mine.read()
    assert [line.text for line in lines] == [f"line {number}" for number in range(5)]
    assert [line.text for line in mine.read(after=lines[2].id)] == ["line 3", "line 4"]
    assert abs(lines[0].at - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)


def test_what_the_database_refuses_waits(tmp_path: Path):
    journal = EventLog(engine(tmp_path), "mine")
    LOG.drop(journal.engine)
    with journal.running():
        journal.write("early")
    LOG.create(journal.engine)
    with journal.running():
        journal.write("late")
    assert [line.text for line in journal.read()] == ["early", "late"]


def test_events_as_lines(tmp_path: Path):
    driver = Driver(tmp_path)
    number = driver.train(0.125)
    layout = driver.trial(number).user_attrs["layout"]
    lines = [summary(event) for event in driver.events]
    assert lines[0].startswith(f"trial 0  {layout}  starting  0.")
    assert lines[1:] == [
        f"trial 0  {layout}  training  epoch 1/2, mAP 12.5, mAP50 12.5",
        f"trial 0  {layout}  training  epoch 2/2, mAP 12.5, mAP50 12.5",
        f"trial 0  {layout}  done  epoch 2/2, mAP 12.5, mAP50 12.5",
    ]
    assert summary(Event("note", -1, "", reason="the database is away")) == "the database is away"
    assert summary(Event("failed", 3, "C1-C1-T1-T1", report(0.1, 1), "no")).endswith(
        "mAP50 10.0  (no)"
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({}, "taken over from 'earlier': 1 results; 0 others are not in this space or budget"),
        (
            {"recipe.epochs": 3},
            "warning: nothing taken over from 'earlier', its scores are not comparable: "
            "recipe.epochs was 2, now 3",
        ),
    ],
)
def test_what_a_warm_start_took_over_is_in_the_log(tmp_path: Path, nas, flags: dict, line: str):
    Driver(tmp_path, study="earlier").train()
    request = spec(tmp_path, study="later", **{"search.warm_start": ("earlier",), **flags})
    log = EventLogging()
    search = open_search(request, FACTS, [log])
    with search.lease(), log.during(search):
        pass
    code, out, _ = nas("logs", "--study", "later", "--storage", request.storage)
    assert code == 0
    texts = [printed.split("  ", 2)[2] for printed in out.splitlines()]
    assert texts == [line, "search begins with 0 of 3 trials", "search ended with 0 trials"]


def test_the_log_says_what_ended_a_search(tmp_path: Path):
    log = EventLogging()
    search = open_search(spec(tmp_path), FACTS, [log])
    with pytest.raises(KeyboardInterrupt), log.during(search):
        raise KeyboardInterrupt
    with pytest.raises(StudyError), log.during(search):
        raise StudyError("the disk is full")
    assert [line.text for line in log.log.read()][1::2] == [
        "search stopped",
        "search failed: the disk is full",
    ]
