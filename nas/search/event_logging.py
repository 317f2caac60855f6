"""The callback that writes what happens in a search into the log in its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.storages import RDBStorage

from nas.search.callbacks import SearchCallback
from nas.search.search import Search
from nas.study.event_log import EventLog, summary
from nas.study.events import Event
from nas.study.optuna_internals import Storage


class EventLogging(SearchCallback):
    """Writes every event as a line of the study's log, and when a driver came and why it left.

    Lines wait in memory until `during` runs; those of the opening, such as what a warm start took
    over, are written then.
    """

    log: EventLog

    def on_open(self, study_uuid: str, storage: Storage) -> None:
        if not isinstance(storage, RDBStorage):
            raise TypeError("a study in memory has no log: leave EventLogging out")
        self.log = EventLog(storage.engine, study_uuid)

    def on_event(self, event: Event) -> None:
        self.log.write(summary(event))

    @contextmanager
    def during(self, search: Search) -> Iterator[None]:
        """Write while the block runs a search that was opened with this callback; what ends the
        block is a line, too.
        """
        with self.log.running():
            self.log.write(f"search begins with {search.ended} {search.spec.search.of_trials}")
            try:
                yield
            except KeyboardInterrupt:
                self.log.write("search stopped")
                raise
            except Exception as error:
                self.log.write(f"search failed: {error}")
                raise
            why = f": {search.stop_reason}" if search.stop_reason else ""
            self.log.write(f"search ended with {search.ended} trials{why}")
