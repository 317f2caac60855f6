"""What happens, while it happens: on stderr, as a live table on a terminal and as one line an event
elsewhere.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nas.api.callbacks import TrainingCallback
from nas.cli.runner import say
from nas.cli.tables import TextTable
from nas.reports import ClassificationMetrics, CocoMetrics, EpochReport, PretrainingReport
from nas.search.callbacks import SearchCallback
from nas.study.event_log import STATES, summary
from nas.study.roles import CANDIDATE
from nas.utils.formatting import gib, gib_text, percent
from nas.utils.shown_text import in_one_line, shown

if TYPE_CHECKING:
    from torch import Tensor

    from nas.config.spec import SearchSpec
    from nas.search.search import Search
    from nas.study.events import Event
    from search_spaces.layout import Layout

SHOWN_ROWS = 15


class ImageProgress:
    """A bar while images are checked, on a terminal."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def on_image(self, split: str, done: int, total: int) -> None:
        """One more image of a split."""
        if split not in self._tasks:
            self._tasks[split] = self._bar.add_task(f"checking {split}", total=total)
        self._bar.update(self._tasks[split], completed=done, visible=done < total)


class EpochProgress(ImageProgress, TrainingCallback):
    """A bar for the steps of one candidate, a line for each of its epochs."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self.quiet, self.epoch, self._step, self._shown_s = quiet, 1, 0, 0.0

    def on_begin(self, layout: Layout, epochs: int) -> None:
        """Remember what the bar is of."""
        self.layout, self.epochs = layout, epochs

    def on_weights(self, summary: str) -> None:
        """Print what is taken of the file of weights, unless all that is wanted is JSON."""
        if not self.quiet:
            say(f"weights: {summary}", file=sys.stderr)

    def on_note(self, text: str) -> None:
        """Print the sentence."""
        self.say(text)

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        """One more step of the running epoch; to ask a GPU for its loss waits for it, so that is
        done five times a second.
        """
        self.epoch += step <= self._step  # the one before had no report
        self._step = step
        if step < steps and time.monotonic() - self._shown_s < 0.2:
            return
        self._shown_s = time.monotonic()
        if "steps" not in self._tasks:
            self._tasks = {"steps": self._bar.add_task("", total=steps)}
        description = f"{self.layout}  epoch {self.epoch}/{self.epochs}  loss {float(loss):.3f}"
        self._bar.update(self._tasks["steps"], completed=step, total=steps, description=description)

    def on_report(self, report: EpochReport | PretrainingReport) -> None:
        """An epoch ended."""
        self.epoch, self._step = report.epoch + 1, 0
        self.say(
            f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  "
            f"{_scores(report.metrics)}"
        )

    def on_trained(self) -> None:
        """Take the bar away: what follows has none."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line on stderr, above the bar."""
        self._bar.console.print(shown(text), highlight=False, markup=False)


def _scores(metrics: CocoMetrics | ClassificationMetrics) -> str:
    if isinstance(metrics, ClassificationMetrics):
        return f"top-1 {percent(metrics.top1)}  top-5 {percent(metrics.top5)}"
    scores = f"mAP {percent(metrics.map)}  mAP50 {percent(metrics.map_50)}"
    if metrics.map_segm is None:
        return scores
    return f"{scores}  masks: mAP {percent(metrics.map_segm)}  mAP50 {percent(metrics.map_segm_50)}"


@dataclass
class _Row:
    layout: str
    candidate: bool = True
    state: str = "starting"
    epoch: str = ""
    map: float | None = None
    map_50: float | None = None
    memory_gib: float | None = None
    reason: str = ""


class SearchProgress(SearchCallback):
    """The table of a running search: trial, layout, epoch, mAP, memory, state."""

    def __init__(self, spec: SearchSpec) -> None:
        self.spec, self.started = spec, time.monotonic()
        self.rows: dict[int, _Row] = {}
        self._console = Console(stderr=True)
        self._images: ImageProgress | None = ImageProgress()
        self._live: Live | None = None

    def __enter__(self) -> SearchProgress:
        if self._images:
            self._images.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the table as it is: what follows is shown by others."""
        self._end_images()
        if self._live:
            self._live.stop()
            self._live = None

    def on_image(self, split: str, done: int, total: int) -> None:
        """One more image checked."""
        if self._images:
            self._images.on_image(split, done, total)

    def on_start(self, search: Search) -> None:
        """Training begins."""
        self._end_images()
        space, facts = search.budget.space, search.facts
        read = "; ".join(f"{name} from {source}" for name, source in facts.read.items())
        self.say(
            f"{self.spec.study}: {facts.train_images} images to train on, {facts.val_images} to "
            f"score, {facts.num_classes} classes; {read}"
        )
        self.say(f"{len(space)} layouts in space {space.name!r}; {search.budget.describe()}")
        told = {"repaired": facts.repaired, "left out": facts.left_out, "warning": facts.warned}
        for verb, counts in told.items():
            if counts:
                self.say(
                    f"{verb}: " + ", ".join(f"{count} x {kind}" for kind, count in counts.items())
                )
        if search.spec.detector != self.spec.detector:
            from nas.planning.adaptation import BOXES_ONLY

            self.say(BOXES_ONLY)
        for fit in search.unsolved_patterns:
            self.say(
                f"pattern {fit.pattern} cannot use the budget: nearest {fit.layout}, "
                f"{gib_text(gib(fit.peak_bytes))} GiB"
            )
        if search.ended:
            self.say(f"going on: {search.ended} {self.spec.search.of_trials} are there")
        if search.plan:
            self.say(search.plan.describe())
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=2)
            self._live.start()

    def on_event(self, event: Event) -> None:
        """Something happened to a trial, or to the database."""
        if event.kind == "note":
            self.say(event.reason or "")
            return
        row = self.rows.setdefault(
            event.number, _Row(event.what, candidate=event.role == CANDIDATE)
        )
        row.state = STATES.get(event.kind, event.kind)
        row.reason = event.reason or row.reason
        if event.memory_predicted_bytes is not None:
            row.memory_gib = gib(event.memory_predicted_bytes)
        if event.report:
            row.epoch = f"{event.report.epoch}/{event.report.epochs}"
            row.map, row.map_50 = event.report.metrics.map, event.report.metrics.map_50
            if event.report.memory_peak_bytes:
                row.memory_gib = gib(event.report.memory_peak_bytes)
        if not self._live:
            self.say(f"[{time.monotonic() - self.started:6.0f} s] {summary(event)}")

    def say(self, text: str) -> None:
        """A line on stderr, above the table."""
        self._console.print(shown(text), highlight=False, markup=False, soft_wrap=True)

    def __rich__(self) -> Group:
        table = TextTable()
        for name in ("trial", "layout", "epoch", "mAP", "mAP50", "GiB", "state"):
            table.add_column(name, justify="left" if name in ("layout", "state") else "right")
        latest = sorted(self.rows.items())[-SHOWN_ROWS:]
        for number, row in latest:
            state = f"{row.state}: {row.reason}" if row.reason else row.state
            scores = (percent(row.map), percent(row.map_50), gib_text(row.memory_gib))
            table.add_row(
                str(number),
                row.layout,
                row.epoch,
                *scores,
                Text(in_one_line(state), overflow="ellipsis", no_wrap=True),
            )
        return Group(table, Text(self._summary()))

    def _summary(self) -> str:
        candidates = [row for row in self.rows.values() if row.candidate]
        done = [row for row in candidates if row.state == "done" and row.map is not None]
        ended = sum(row.state in ("done", "pruned", "infeasible") for row in candidates)
        best = max(done, key=lambda row: row.map or 0, default=None)
        text = (
            f"{ended} {self.spec.search.of_trials} ended here, "
            f"{time.monotonic() - self.started:.0f} s"
        )
        return text + (f"; best so far {best.layout} with mAP {percent(best.map)}" if best else "")

    def _end_images(self) -> None:
        if self._images:
            self._images.__exit__()
            self._images = None
