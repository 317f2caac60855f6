"""The database's clock, by sessions of different time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy
from sqlalchemy.engine import Engine

from nas.study.database_clock import UtcNow
from nas.study.event_log import EventLog
from nas.study.lease import Lease, living_drivers
from nas.study.lock import StudyLock

ZONES = {"postgresql": "SET TIME ZONE '{}'", "mysql": "SET time_zone = '{}'"}


def engine_in(url: str, hours: int) -> Engine:
    """An engine all of whose sessions have a time zone, as `PGTZ` gives them one."""
    engine = sqlalchemy.create_engine(url)
    zone = f"{hours:+03d}:00"
    if engine.dialect.name == "postgresql":
        zone = {0: "UTC", 9: "Asia/Tokyo", -8: "America/Los_Angeles"}[hours]

    def set_zone(connection: object, _: object) -> None:
        connection.cursor().execute(ZONES[engine.dialect.name].format(zone))
        connection.commit()

    sqlalchemy.event.listen(engine, "connect", set_zone)
    return engine


def is_now(moment: datetime) -> bool:
    return abs(moment - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=10)


@pytest.mark.parametrize("hours", [0, 9, -8])
def test_a_session_of_another_zone_writes_the_same_time(database: str, hours: int):
    engine = engine_in(database, hours)
    with engine.connect() as connection:
        assert is_now(connection.execute(sqlalchemy.select(UtcNow())).scalar_one())
    log = EventLog(engine, f"uuid of a log {hours}")
    with log.running():
        log.write("here")
    (line,) = EventLog(engine_in(database, 0), log.study_uuid, read_only=True).read()
    assert is_now(line.at)


def test_a_driver_of_another_zone_lives(database: str):
    here, there = engine_in(database, 0), engine_in(database, 9)
    lease = Lease(StudyLock(there, 7), "cells", "uuid of zones")
    with lease.held():
        assert len(living_drivers(here, "uuid of zones")) == 1
        lease._renew_once()
        assert len(living_drivers(engine_in(database, -8), "uuid of zones")) == 1
    assert living_drivers(here, "uuid of zones") == []
