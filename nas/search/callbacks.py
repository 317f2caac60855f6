"""Callbacks: who is told how a search goes, from the first image that is checked to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from nas.search.search import Search
    from nas.study.events import Event
    from nas.study.optuna_internals import Storage


class SearchCallback:
    """Base class of callbacks; every method does nothing unless it is overridden.

    Callbacks are given when a search is opened and stay the same to its end. Methods are called in
    the process that drives the search, in the thread that drives it, one after the other:
    `on_image` while the data are read, `on_open` once, `on_start` once, `on_event` any number of
    times after `on_open`, and `on_end` last. A method that raises ends the search; the study stays
    as it is. A method must not call the search's own methods that change it.
    """

    def on_image(self, split: str, done: int, total: int) -> None:
        """Hear that `done` of `total` images of a split (`train`, `val`, `test`) are checked."""

    def on_open(self, study_uuid: str, storage: Storage) -> None:
        """Hear that the study is there, before its first event.

        Args:
            study_uuid: identifies the study in our own tables.
            storage: where the study is kept.
        """

    def on_start(self, search: Search) -> None:
        """Hear that this process is the study's driver now, and that training begins."""

    def on_event(self, event: Event) -> None:
        """Hear what happened to a trial, or a note that concerns no trial."""

    def on_end(self, bundle: Path | None) -> None:
        """Hear that the search has ended by itself, and not by an error or Ctrl-C.

        Args:
            bundle: folder of the winner's bundle; None where none was asked for.
        """


class CallbackList(SearchCallback):
    """Several callbacks as one; each hears everything, in the order of the list."""

    def __init__(self, callbacks: Sequence[SearchCallback]) -> None:
        self.callbacks = tuple(callbacks)

    def on_image(self, split: str, done: int, total: int) -> None:
        for callback in self.callbacks:
            callback.on_image(split, done, total)

    def on_open(self, study_uuid: str, storage: Storage) -> None:
        for callback in self.callbacks:
            callback.on_open(study_uuid, storage)

    def on_start(self, search: Search) -> None:
        for callback in self.callbacks:
            callback.on_start(search)

    def on_event(self, event: Event) -> None:
        for callback in self.callbacks:
            callback.on_event(event)

    def on_end(self, bundle: Path | None) -> None:
        for callback in self.callbacks:
            callback.on_end(bundle)
