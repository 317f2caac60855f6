"""`nas submit`, `nas-submit`: run a search, or go on with one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.dispatch import dispatch
from nas.cli.runner import given, new_app, print_json, run, say
from nas.config.choices import Finish, PrunerName, SamplerName

if TYPE_CHECKING:
    from nas.config.spec import SearchSpec


SEARCH_FLAGS = (
    options.RequestFlag(
        "time_limit",
        Annotated[
            str | None,
            typer.Option(help="Wall time to the winner's bundle, for example 20m, 8h or 1h30m."),
        ],
        "search.time_limit",
    ),
    options.RequestFlag(
        "finish",
        Annotated[
            str | None,
            typer.Option(help=f"What comes of the winner in the end: {options.either(Finish)}."),
        ],
        "search.finish",
    ),
    options.RequestFlag(
        "sampler",
        Annotated[str | None, typer.Option(help=f"{options.either(SamplerName)}.")],
        "search.sampler",
    ),
    options.RequestFlag(
        "pruner",
        Annotated[str | None, typer.Option(help=f"{options.either(PrunerName)}.")],
        "search.pruner",
    ),
    options.RequestFlag(
        "objectives",
        Annotated[
            str | None,
            typer.Option(help="map, or map with memory, flops, params, fps, latency: map,memory."),
        ],
        "search.objectives",
        parse=lambda names: [name.strip() for name in names.split(",")],
    ),
    options.RequestFlag(
        "try_first",
        Annotated[
            list[str] | None,
            typer.Option("--try", help="A layout to train first; may be repeated."),
        ],
        "search.try",
    ),
    options.RequestFlag(
        "warm_start",
        Annotated[
            list[str] | None,
            typer.Option(
                help="A study in the same database whose results count here; may be repeated."
            ),
        ],
        "search.warm_start",
    ),
    options.RequestFlag(
        "prior",
        Annotated[
            list[str] | None,
            typer.Option(
                help="A study of other data or another recipe in the same database, or builtin, "
                "that says what to expect of layouts; may be repeated."
            ),
        ],
        "search.prior",
    ),
    options.RequestFlag(
        "trials",
        Annotated[
            int | None, typer.Option(help="Candidates to train, those of earlier runs included.")
        ],
        "search.trials",
    ),
    options.RequestFlag(
        "baselines",
        Annotated[
            bool | None,
            typer.Option(
                "--baselines/--no-baselines",
                help="Swin-T, ResNet-50 and C2-C2-T12-T4 at equal memory.",
            ),
        ],
        "search.baselines",
    ),
    options.RequestFlag(
        "replicates",
        Annotated[
            int | None,
            typer.Option(
                help="Trainings of each baseline and of the best three, with other seeds."
            ),
        ],
        "search.replicates",
    ),
)


@options.request_options(
    options.DATA,
    options.STUDY,
    options.STORAGE,
    options.SPACE,
    *options.TRAINING,
    options.BUDGET,
    *SEARCH_FLAGS,
    options.CONCURRENT,
    options.SEED,
    options.OUTPUT,
    options.MLFLOW,
)
def submit(
    spec: options.SpecFile = None,
    *,
    flags: dict[str, Any],
    cluster: Annotated[
        str | None, typer.Option(help="Run as a job on a Ray cluster: http://head:8265.")
    ] = None,
    local: options.Local = False,
    detach: options.Detach = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the function that --space module:function is.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the space, what fits and what it will cost.")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Measure a few layouts in a dry run.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Search for the best backbone that trains within the memory budget.

    The same command goes on where a search stopped.
    """
    began_at = time.time()
    from nas.api.requests import checked_spec

    request = checked_spec(spec, given({"run.cluster": cluster}) | flags, allow_code=allow_code)
    if dry_run:
        _show_dry_run(request, local=local, timing=timing, as_json=as_json)
    else:
        dispatch(request, local=local, detach=detach, as_json=as_json, began_at=began_at)


def _show_dry_run(spec: SearchSpec, *, local: bool, timing: bool, as_json: bool) -> None:
    from nas.api.dry_run import dry_run
    from nas.cli.forecast import cost_table
    from nas.cli.plan import print_plan
    from nas.cli.progress import ImageProgress
    from nas.cli.tables import patterns_table, print_table, space_table

    with ImageProgress() as progress:
        shown = dry_run(spec, progress.on_image, local=local, timing=timing)
    if as_json:
        print_json(shown.to_dict())
        return
    print_plan(shown.plan)
    print_table(space_table(shown.preview))
    if shown.preview["patterns"]:
        print_table(patterns_table(shown.preview["patterns"]))
    if shown.cost:
        print_table(cost_table(shown.cost))
    if shown.division:
        say(f"{shown.division.describe()}.")


def main() -> None:
    """Entry point of `nas-submit`."""
    app = new_app()
    app.command()(submit)
    run(app, "nas-submit")
