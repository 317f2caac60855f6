"""Run a search where its request says, and show what it found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from nas.cli.runner import INTERRUPTED, print_json, say

if TYPE_CHECKING:
    from nas.config.spec import SearchSpec
    from nas.search.callbacks import SearchCallback
    from nas.search.search import Search


def dispatch(spec: SearchSpec, *, local: bool, detach: bool, as_json: bool) -> None:
    """Run a search where its request says: on a cluster, in the background, or here and now."""
    from nas.cli.background import in_background, on_cluster
    from nas.errors import SpecError

    if spec.run.cluster and local:
        raise SpecError("--local and run.cluster exclude each other")
    if spec.run.cluster:
        on_cluster(spec, spec.run.cluster, detach=detach, as_json=as_json)
    elif detach:
        in_background(spec, local=local, as_json=as_json)
    else:
        run_to_end(spec, local, as_json)


def run_to_end(spec: SearchSpec, local: bool, as_json: bool) -> None:
    """Run or continue a search and show what it found."""
    from workers.driver import run_search

    _show(watched(spec, lambda progress: run_search(spec, [progress], local=local)), as_json)


def watched(spec: SearchSpec, run: Callable[[SearchCallback], Search]) -> Search:
    """Run a search, and show on stderr what happens. Ctrl-C ends the command."""
    from nas.cli.progress import SearchProgress

    with SearchProgress(spec) as progress:
        try:
            return run(progress)
        except KeyboardInterrupt:
            progress.say("Stopped. The same command goes on where this one stopped.")
            raise typer.Exit(INTERRUPTED) from None


def _show(study: Search, as_json: bool) -> None:
    from nas.cli.tables import print_findings
    from nas.reports import SearchFindings
    from nas.search.multifidelity.expected import expected_board
    from nas.study.leaderboard import pareto_front
    from nas.study.significance import against_baselines
    from nas.study.storage import export_line

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
        print_json(findings.to_dict())
    elif findings.leaderboard:
        print_findings(findings)
        say(f"Export the best: {export_line(study.spec.study, study.spec.storage)}")
    if not findings.leaderboard:
        say(
            f"No candidate completed{f': {study.stop_reason}' if study.stop_reason else ''}.",
            file=sys.stderr,
        )
        raise typer.Exit(1)
