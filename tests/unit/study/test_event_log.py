"""The log of a search: in order, for one study, and never a reason to stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from helpers.untrained import Driver, report

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
