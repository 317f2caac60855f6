"""What happened in a search, line by line, in its database: readable from any machine that reaches
it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from nas.study.database_clock import UtcNow
from nas.study.driver_process import driver_name
from nas.study.events import Event
from nas.study.storage import make_tables
from nas.utils.formatting import gib, gib_text, percent

WRITE_S = 2  # together, because a transaction for each would hold the search up
STATES = {"started": "starting", "epoch": "training", "complete": "done"}
_METADATA = sa.MetaData()
LOG = sa.Table(
    "nas_log",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_uuid", sa.String(36), nullable=False, index=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("driver", sa.String(255), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Line:
    """One line of a log.

    Attributes:
        id: grows from line to line.
        at: when it was written, by the database's clock in UTC, without a zone.
        driver: who wrote it, as `process PID on HOST`.
        text: what happened.
    """

    id: int
    at: datetime
    driver: str
    text: str


class EventLog:
    """The log of one study.

    Args:
        engine: of the study's database; the table of logs is made where it is missing.
        study_uuid: the study's, `nas_uuid`.
        read_only: it is only read, and nothing is made.
    """

    def __init__(self, engine: Engine, study_uuid: str, *, read_only: bool = False) -> None:
        self.engine, self.study_uuid = engine, study_uuid
        self._waiting: deque[str] = deque()
        if not read_only:
            make_tables(engine, _METADATA)

    def write(self, text: str) -> None:
        """Add a line; it is in the database two seconds later, or when the search ends."""
        self._waiting.append(text)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write waiting lines every two seconds while the block runs, and at its end. What cannot
        be written waits: a log must not end a search.
        """
        stop = threading.Event()

        def write_waiting() -> None:
            while not stop.wait(WRITE_S):
                with suppress(SQLAlchemyError):
                    self._flush()

        writer = threading.Thread(target=write_waiting, daemon=True, name="nas-event-log")
        writer.start()
        try:
            yield
        finally:
            stop.set()
            writer.join()
            with suppress(SQLAlchemyError):
                self._flush()

    def read(self, after: int = 0) -> list[Line]:
        """Read the lines with an id above `after`, in order; none where there is no table."""
        if not sa.inspect(self.engine).has_table(LOG.name):
            return []
        asked = sa.select(LOG.c.id, LOG.c.at, LOG.c.driver, LOG.c.text).where(
            LOG.c.study_uuid == self.study_uuid, LOG.c.id > after
        )
        with self.engine.connect() as connection:
            return [Line(*row) for row in connection.execute(asked.order_by(LOG.c.id))]

    def _flush(self) -> None:
        texts = list(self._waiting)
        if not texts:
            return
        rows: list[dict[str, Any]] = [
            {"study_uuid": self.study_uuid, "driver": driver_name(), "text": text} for text in texts
        ]
        with self.engine.begin() as connection:
            connection.execute(sa.insert(LOG).values(at=UtcNow()), rows)
        for _ in texts:
            self._waiting.popleft()


def summary(event: Event) -> str:
    """Describe an event in one line, as the terminal and the log have it."""
    if event.kind == "note":
        return event.reason or ""
    parts = [f"trial {event.number}", event.what, STATES.get(event.kind, event.kind)]
    if event.report:
        scores = (
            f"mAP {percent(event.report.metrics.map)}, mAP50 {percent(event.report.metrics.map_50)}"
        )
        parts.append(f"epoch {event.report.epoch}/{event.report.epochs}, {scores}")
    elif event.memory_predicted_bytes is not None:
        parts.append(f"{gib_text(gib(event.memory_predicted_bytes))} GiB")
    return "  ".join(parts) + (f"  ({event.reason})" if event.reason else "")
