"""Run a search where its request says, and show what it found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import typer

from nas.cli import GOES_ON
from nas.cli.runner import Stopped, print_json, say

if TYPE_CHECKING:
    from nas.api.callbacks import TrainingCallback
    from nas.api.finishing import Finished
    from nas.cli.progress import SearchProgress
    from nas.config.spec import SearchSpec
    from nas.search.callbacks import SearchCallback
    from nas.search.search import Search


def dispatch(
    spec: SearchSpec, *, local: bool, detach: bool, as_json: bool, began_at: float | None = None
) -> None:
    """Run a search where its request says: on a cluster, in the background, or here and now. There
    a time limit counts from `began_at`, seconds since 1970, or from the start of the search.
    """
    from nas.cli.background import in_background, on_cluster
    from nas.errors import SpecError

    if spec.run.cluster and local:
        raise SpecError("--local and run.cluster exclude each other")
    if spec.run.cluster:
        on_cluster(spec, spec.run.cluster, detach=detach, as_json=as_json)
    elif detach:
        in_background(spec, local=local, as_json=as_json)
    else:
        run_to_end(spec, local, as_json, began_at)


def run_to_end(spec: SearchSpec, local: bool, as_json: bool, began_at: float | None = None) -> None:
    """Run or continue a search, finish its winner as the request says, and show what was found."""
    from nas.api.finishing import search_and_finish

    with ExitStack() as stack:

        def training() -> TrainingCallback:
            from nas.cli.progress import EpochProgress

            progress.close()
            return stack.enter_context(EpochProgress(quiet=as_json))

        progress = stack.enter_context(_watching(spec))
        finished = search_and_finish(spec, [progress], training, local=local, began_at=began_at)
    _show(finished, as_json)


def watched(spec: SearchSpec, run: Callable[[SearchCallback], Search]) -> Search:
    """Run a search, and show on stderr what happens. Ctrl-C ends the command."""
    with _watching(spec) as progress:
        return run(progress)


@contextmanager
def _watching(spec: SearchSpec) -> Iterator[SearchProgress]:
    from nas.cli.progress import SearchProgress

    with SearchProgress(spec) as progress:
        try:
            yield progress
        except KeyboardInterrupt:
            raise Stopped(GOES_ON) from None


def _show(finished: Finished, as_json: bool) -> None:
    from nas.cli.tables import print_findings
    from nas.reports import SearchFindings
    from nas.search.multifidelity.expected import expected_board
    from nas.study.leaderboard import pareto_front
    from nas.study.significance import against_baselines

    study = finished.search
    findings = SearchFindings(
        study=study.spec.study,
        ended=study.ended,
        stop_reason=study.stop_reason,
        refusals=study.refusals(),
        leaderboard=expected_board(
            study.table.trials, study.spec.recipe.epochs, pareto_front(study.study)
        ),
        baselines=against_baselines(study.study.user_attrs, study.table.trials),
    )
    if as_json:
        bundle = str(finished.bundle) if finished.bundle else None
        print_json({**findings.to_dict(), "bundle": bundle})
    else:
        if findings.leaderboard:
            print_findings(findings)
        _show_bundle(finished)
    if not findings.leaderboard and not finished.bundle:
        say(
            f"No candidate completed{f': {study.stop_reason}' if study.stop_reason else ''}.",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _show_bundle(finished: Finished) -> None:
    """Say what the winner has become, in the last line where; without a bundle how to get one."""
    from nas.study.leaderboard import leaderboard
    from nas.study.storage import export_line
    from nas.utils.formatting import percent

    for note in finished.notes:
        say(note)
    if finished.bundle:
        say(
            f"{finished.bundle}: {finished.layout}, mAP {percent(finished.map)} (start with "
            f"{finished.bundle / 'README.md'})"
        )
    elif leaderboard(finished.search.study):
        spec = finished.search.spec
        say(f"Export the best: {export_line(spec.study, spec.storage)}")
