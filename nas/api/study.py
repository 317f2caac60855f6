"""A study as a notebook looks at it: its leaderboard, its best candidate, its bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from nas.reports import LeaderboardRow, TrialRow
from nas.study.attributes import study_attributes, study_trials
from nas.study.leaderboard import find_trial, load_study, pareto_front, trial_rows
from nas.study.storage import open_storage
from nas.utils.formatting import gib_text, percent, scaled_text
from nas.utils.html_table import html_table

if TYPE_CHECKING:
    from nas.api.bundle import Bundle


class Study:
    """A search in a database, to read. What it shows is what the database has at that moment.

    Args:
        storage: URL of the database, `sqlite:///nas.db`.
        name: of the study; None for the only one that there is.

    Raises:
        StudyError: there is no such study, or it is of another program.
    """

    def __init__(self, storage: str, name: str | None = None) -> None:
        self._study = load_study(open_storage(storage, create=False), name)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._study.study_name

    @property
    def request(self) -> dict[str, Any]:
        """What the search was asked for, as plain JSON."""
        return dict(study_attributes(self._study)["nas_spec"])

    def leaderboard(self) -> list[LeaderboardRow]:
        """Completed candidates within the budget, the best first."""
        from nas.search.multifidelity.expected import expected_board

        epochs = self.request["recipe"]["epochs"]
        return expected_board(self._trials(), epochs, pareto_front(self._study))

    def trials(self) -> list[TrialRow]:
        """All trials, in the order of their numbers."""
        return trial_rows(self._study, self._trials())

    @property
    def best(self) -> LeaderboardRow:
        """The first of the leaderboard.

        Raises:
            StudyError: nothing is complete.
        """
        find_trial(self._study, None)
        return self.leaderboard()[0]

    @property
    def bundle(self) -> Bundle | None:
        """What the search has made of its winner, trained in full or exported (`search.finish`);
        None where it has made nothing.

        Raises:
            UserError: its folder is gone, or damaged.
        """
        from nas.api.bundle import Bundle

        made = study_attributes(self._study).get("nas_winner", {})
        return Bundle(made["bundle"]) if made.get("done") else None

    def export(self, out: str | Path, trial: int | None = None, *, onnx: bool = True) -> Bundle:
        """Write a candidate as a bundle.

        Args:
            out: a new or empty folder, or that of an older bundle, which is replaced.
            trial: its number; None for the best.
            onnx: write the ONNX files too, where their packages are installed.

        Raises:
            StudyError: it did not complete.
            BundleError: its weights are gone, or the folder has other files.
        """
        from nas.api.bundle import Bundle
        from nas.export.from_study import write_trial

        write_trial(Path(out), self._study, find_trial(self._study, trial), onnx=onnx)
        return Bundle(out)

    def _trials(self) -> Sequence[optuna.trial.FrozenTrial]:
        return study_trials(self._study)

    def __repr__(self) -> str:
        board = self.leaderboard()
        best = f", best {board[0].layout} with mAP {percent(board[0].value)}" if board else ""
        return f"Study({self.name!r}, {len(board)} complete{best})"

    def _repr_html_(self) -> str:
        """The leaderboard as a notebook shows it."""
        header = ("", "trial", "layout", "mAP", "AP50", "params M", "GMAC", "GiB")
        rows = [
            (
                str(rank),
                str(row.number),
                row.layout or "",
                percent(row.map),
                percent(row.scores.get("map_50")),
                scaled_text(row.params, 1e6, 2),
                scaled_text(row.flops, 1e9, 2),
                gib_text(row.memory_gib),
            )
            for rank, row in enumerate(self.leaderboard(), start=1)
        ]
        return html_table(header, rows, f"Study {self.name}")
