"""`nas proxy-check`: whether the recipe of a search ranks layouts as a fuller training does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import given, print_json
from nas.errors import SpecError

if TYPE_CHECKING:
    from nas.config.spec import SearchSpec
    from nas.data.splits import Splits
    from nas.reports import DatasetSummary
    from nas.search.search import Search

TIMES = 4


@options.request_options(
    options.STUDY,
    options.STORAGE,
    options.SPACE,
    options.DETECTOR,
    options.RECIPE,
    options.EPOCHS,
    options.IMAGE_SIZE,
    options.BATCH,
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
    from nas.cli.submit import check_files, checked_spec, from_anywhere
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
    check = _check(request, from_anywhere(fuller_request), layouts, local)
    print_json(check) if as_json else _show(check)


def _check(request: SearchSpec, fuller: SearchSpec, count: int, local: bool) -> dict[str, Any]:
    from nas.cli.progress import ImageProgress
    from nas.data.samplers import largest_batch_shape
    from nas.data.splits import adapt_to_data
    from nas.search.budget import Budget
    from nas.search.proxy.layouts import choose_layouts
    from nas.search.proxy.studies import (
        FULL,
        PROXY,
        chosen_before,
        compared,
        outcomes,
        record,
        request_of,
        store,
    )
    from workers.driver import check_backend

    check_backend(request, local=local)
    with ImageProgress() as progress:
        request, splits, facts = adapt_to_data(request, progress.on_image)
    fuller = fuller.model_copy(
        update={"detector": request.detector}
    )  # without masks, where the data have none
    full_facts = replace(facts, batch_shape=largest_batch_shape(splits.train.images, fuller.recipe))
    budgets = Budget(request, facts), Budget(fuller, full_facts)
    chosen = choose_layouts(*budgets, count, chosen_before(request))
    proxy = _train(request_of(request, PROXY, chosen), splits, facts, local)
    proxies, left_out = outcomes(proxy, chosen)
    full = _train(request_of(fuller, FULL, list(proxies)), splits, full_facts, local)
    fulls, left_out_later = outcomes(full, list(proxies))
    check = record(compared(proxies, fulls), proxy, full, left_out | left_out_later)
    return {"study": request.study, **check, "stored": store(check, request, (proxy, full))}


def _train(spec: SearchSpec, splits: Splits, facts: DatasetSummary, local: bool) -> Search:
    from nas.cli.dispatch import watched
    from workers.driver import run_checked

    return watched(spec, lambda watcher: run_checked(spec, splits, facts, watcher, local=local))


def _show(check: dict[str, Any]) -> None:
    from nas.cli.tables import print_table, proxy_table

    print_table(
        proxy_table(check, f"{len(check['pairs'])} layouts of {check['study']} by both recipes")
    )
    for layout, reason in check["left_out"].items():
        print(f"Left out: {layout}, {reason}")
    for name in ("proxy", "full"):
        side, train_s = check[name], check[f"{name}_s"]
        print(
            f"{name}: recipe {side['recipe']}, epochs {side['epochs']}, {side['image_size']} "
            f"pixels; {train_s:.0f} s in all"
        )
    print(check["text"])
    print(f"The rule: {check['rule']}.")
    print(f"Kept with the studies {', '.join(check['stored'])}.")
