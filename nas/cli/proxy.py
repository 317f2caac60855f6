"""`nas proxy-check`: whether the recipe of a search ranks layouts as a fuller training does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import given, print_json, say
from nas.errors import SpecError

if TYPE_CHECKING:
    from nas.config.spec import SearchSpec
    from nas.data.splits import Splits
    from nas.reports import DatasetSummary
    from nas.search.proxy.studies import ProxyCheck
    from nas.search.search import Search

TIMES = 4


@options.request_options(
    options.STUDY,
    options.STORAGE,
    options.SPACE,
    *options.TRAINING,
    options.BUDGET,
    options.CONCURRENT,
    options.SEED,
    options.OUTPUT,
)
def proxy_check(
    spec: options.SpecFile = None,
    data: options.Data = None,
    layouts: Annotated[
        int, typer.Option(min=2, max=100, help="Layouts to train by both recipes.")
    ] = 12,
    times: Annotated[
        int | None,
        typer.Option(min=2, help=f"Epochs of the fuller training; default: {TIMES} times as many."),
    ] = None,
    full: Annotated[
        str | None, typer.Option(help="Recipe of the fuller training instead, as --recipe.")
    ] = None,
    *,
    flags: dict[str, Any],
    local: options.Local = False,
    as_json: options.Json = False,
) -> None:
    """Find out whether the recipe of a search ranks layouts as a fuller training does.

    Takes the request of nas-submit. Trains layouts spread over the space by both recipes, as the
    studies NAME.proxy and NAME.full, and says whether the ranking holds. The same command goes on
    where it stopped; with more layouts it adds to them.
    """
    from nas.api.requests import check_files, checked_spec, with_absolute_paths
    from nas.search.proxy.studies import fuller

    request = checked_spec(spec, given({"data.root": data}) | flags)
    if request.run.cluster:
        raise SpecError(
            "proxy-check runs here, not as a job of run.cluster; RAY_ADDRESS names a cluster to "
            "use from here"
        )
    if times and full:
        raise SpecError("--times and --full exclude each other")
    fuller_request = fuller(request, times or TIMES, full)
    check_files(fuller_request)
    check, stored = _run(request, with_absolute_paths(fuller_request), layouts, local)
    if as_json:
        print_json({"study": request.study, **check.to_dict(), "stored": stored})
    else:
        _show(request.study, check, stored)


def _run(
    request: SearchSpec, fuller: SearchSpec, count: int, local: bool
) -> tuple[ProxyCheck, list[str]]:
    from nas.api.proxy_check import plan_proxy_check, run_proxy_check
    from nas.cli.dispatch import watched
    from nas.cli.progress import ImageProgress
    from workers.driver import check_backend, run_checked

    def run(spec: SearchSpec, splits: Splits, facts: DatasetSummary) -> Search:
        return watched(
            spec, lambda progress: run_checked(spec, splits, facts, [progress], local=local)
        )

    check_backend(request, local=local)
    with ImageProgress() as progress:
        plan = plan_proxy_check(request, fuller, count, progress.on_image)
    return run_proxy_check(plan, run)


def _show(study: str, check: ProxyCheck, stored: list[str]) -> None:
    from nas.cli.tables import print_table, proxy_table
    from nas.search.proxy.rank_correlation import RULE

    agreement = check.agreement
    print_table(
        proxy_table(agreement.pairs, f"{len(agreement.pairs)} layouts of {study} by both recipes")
    )
    for layout, reason in check.left_out.items():
        say(f"Left out: {layout}, {reason}")
    sides = (("proxy", check.proxy, agreement.proxy_s), ("full", check.full, agreement.full_s))
    for name, side, train_s in sides:
        say(
            f"{name}: recipe {side.recipe}, epochs {side.epochs}, {side.image_size} pixels; "
            f"{train_s:.0f} s in all"
        )
    say(agreement.text)
    say(f"The rule: {RULE}.")
    say(f"Kept with the studies {', '.join(stored)}.")
