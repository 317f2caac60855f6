"""Trainings that have been done once and for all: every layout of a small space, epoch by epoch, in
one file.
"""

from __future__ import annotations

import json
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.config.spec import SearchSpec, load_spec
from nas.errors import StudyError
from nas.reports import CocoMetrics, DatasetSummary, EpochReport
from nas.search.warm_start import SAME
from nas.study.provenance import differences
from nas.utils.files import atomic_write
from search_spaces.layout import Layout

COURSES = ("loss", "lr", "map", "train_s", "elapsed_s", "val_loss")  # one value an epoch


@dataclass(frozen=True)
class RecordedRun:
    """One training of one layout with one seed.

    `loss`, `lr`, `map`, `train_s` and `elapsed_s` have a value for each epoch, as in `EpochReport`;
    of a run that failed `elapsed_s` has one more: when. So has `val_loss`; older tables lack it.
    `fps` is of its last epoch. `flops` are multiply-adds of one image.
    """

    layout: str
    seed: int
    params: int
    flops: int
    memory_predicted_gib: float
    fps: float
    loss: tuple[float, ...]
    lr: tuple[float, ...]
    map: tuple[float, ...]
    train_s: tuple[float, ...]
    elapsed_s: tuple[float, ...]
    fail_reason: str | None = None
    val_loss: tuple[float | None, ...] = ()

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> RecordedRun:
        """The inverse of `dataclasses.asdict`, lists for tuples."""
        return cls(**{**written, **{name: tuple(written.get(name, ())) for name in COURSES}})

    def reports(self, epochs: int, device: str) -> list[EpochReport]:
        """What its worker told. Of the metrics there is the mAP alone; a run that did not fail ends
        with its last epoch.
        """
        ended = None if self.fail_reason else len(self.map)
        return [
            EpochReport(
                epoch=epoch,
                epochs=epochs,
                loss=loss,
                lr=lr,
                metrics=_map_alone(score),
                fps=self.fps,
                train_s=train_s,
                elapsed_s=elapsed_s,
                memory_peak_bytes=None,
                device=device,
                calibration=None,
                converged=epoch == ended and epoch < epochs,
                val_loss=val_loss,
            )
            for epoch, loss, lr, score, train_s, elapsed_s, val_loss in zip(
                range(1, epochs + 1),
                self.loss,
                self.lr,
                self.map,
                self.train_s,
                self.elapsed_s,
                self.val_loss or [None] * len(self.map),
                strict=False,
            )
        ]


@dataclass(frozen=True)
class TabularBenchmark:
    """The runs of a space.

    Args:
        about: where they come from, for people: command, versions, processor, what the seconds are.
        request: what they were made from, the sections `space`, `data`, `detector`, `recipe` and
            `calibration` of a `SearchSpec`, every value named.
        facts: of the data set.
        device: `cpu`, or the name of the GPU.
        runs: at least one of each layout.
    """

    about: Mapping[str, Any]
    request: Mapping[str, Any]
    facts: DatasetSummary
    device: str
    runs: tuple[RecordedRun, ...]

    @cached_property
    def by_layout(self) -> dict[str, list[RecordedRun]]:
        """The runs of each layout, by its text form."""
        found = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.seed):
            found[run.layout].append(run)
        return dict(found)

    def runs_of(self, layout: Layout) -> list[RecordedRun]:
        """All runs of a layout, by seed.

        Raises:
            StudyError: there is none.
        """
        if found := self.by_layout.get(str(layout)):
            return found
        raise StudyError(
            f"the table has no run of {layout}; it has {len(self.by_layout)} layouts of "
            f"{self._space_name}"
        )

    def run_of(self, layout: Layout, seed: int) -> RecordedRun:
        """The run with that seed; where there is none, one of the others, which `seed` and layout
        decide.

        Raises:
            StudyError: see `runs_of`.
        """
        runs = self.runs_of(layout)
        same = [run for run in runs if run.seed == seed]
        return same[0] if same else random.Random(f"{seed} {layout.layout_id}").choice(runs)

    def mean_map(self, layout: Layout) -> float:
        """mAP after the last epoch, mean over the seeds; 0 for a run that failed.

        Raises:
            StudyError: see `runs_of`.
        """
        return statistics.fmean(
            0.0 if run.fail_reason else run.map[-1] for run in self.runs_of(layout)
        )

    def spec(self, flags: Mapping[str, Any]) -> SearchSpec:
        """A search in this space, of candidates trained as these were, without baselines; `flags`
        as in `load_spec`.
        """
        return load_spec(dict(self.request), {"search.baselines": False, **flags})

    def check(self, spec: SearchSpec) -> None:
        """Find out whether a search would have made these runs.

        Raises:
            StudyError: its candidates are trained in another way, or its space has layouts that the
                table has not.
        """
        known = {"nas_spec": self.request, "nas_data": self.facts.to_dict()}
        if changed := differences(spec, self.facts.fingerprint, known, SAME):
            raise StudyError(
                "the table cannot answer for a search that trains in another way: "
                f"{'; '.join(changed)}"
            )
        for layout in spec.search_space():
            self.runs_of(layout)

    def write(self, path: Path) -> None:
        """Store as JSON, one run a line."""
        head = {
            "about": self.about,
            "device": self.device,
            "facts": self.facts.to_dict(),
            "request": self.request,
        }
        begun = json.dumps(head, indent=1).removesuffix("\n}")
        lines = ",\n".join(json.dumps(_present(run), separators=(",", ":")) for run in self.runs)
        atomic_write(
            path, lambda file: file.write(f'{begun},\n "runs": [\n{lines}\n]\n}}\n'.encode())
        )

    @classmethod
    def read(cls, path: Path) -> TabularBenchmark:
        """The inverse of `write`.

        Raises:
            StudyError: no such file, or no table.
        """
        try:
            written = json.loads(path.read_text())
            runs = tuple(RecordedRun.from_dict(run) for run in written["runs"])
            return cls(
                written["about"],
                _completed(written["request"]),
                DatasetSummary.from_dict(written["facts"]),
                written["device"],
                runs,
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StudyError(
                f"{str(path)!r} is no table of trainings: {type(error).__name__}: {error}"
            ) from None

    @property
    def _space_name(self) -> str:
        return f"space {self.request['space']['name']!r}"


def _completed(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request of an older table, with the keys that came later as they were before."""
    whole = SearchSpec.model_validate({**request, "study": "table"}).to_dict()
    return {section: whole[section] for section in request}


def sorted_runs(runs: Iterable[RecordedRun]) -> tuple[RecordedRun, ...]:
    """By layout and seed, so that a table made twice is the same file."""
    return tuple(sorted(runs, key=lambda run: (run.layout, run.seed)))


def _map_alone(score: float) -> CocoMetrics:
    others: Any = {
        field.name: None
        for field in fields(CocoMetrics)
        if field.name not in ("map", "map_per_class")
    }
    return CocoMetrics(map=score, **others)


def _present(run: RecordedRun) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if value is not None}
