"""`nas profile`: what layouts cost, side by side."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from nas.cli import options
from nas.cli.runner import given, parse_settings, print_json, say
from nas.config.choices import Checkpointing, OptimizerName, Precision
from nas.errors import SpecError, one_of
from nas.utils.formatting import gib_text
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.api.profiling import LayoutProfile
    from nas.cli.tables import TextTable
    from nas.config.sections import DetectorSpec
    from nas.profiling.module_costs import ModuleCosts

PREDICTED = {
    "memory_predicted_gib": "allocated at the peak",
    "memory_reserved_gib": "reserved",
    "memory_card_gib": "of a card, as a search books it",
}
MEASURED = {
    "memory_peak_gib": "measured: allocated",
    "memory_reserved_gib": "measured: reserved",
}


def profile(
    layouts: Annotated[
        list[str], typer.Argument(metavar="LAYOUT...", help="For example C2-C2-T12-T4.")
    ],
    detector: options.Detector = None,
    classes: Annotated[
        int, typer.Option(min=1, help="Categories, the background not counted.")
    ] = 80,
    image_size: Annotated[
        int,
        typer.Option(
            min=32, help="Short side of the images, pixels; the long side is 1333/800 of it."
        ),
    ] = 800,
    images: Annotated[int, typer.Option(min=1, help="Images per GPU.")] = 4,
    precision: Annotated[str, typer.Option(help=f"{options.either(Precision)}.")] = "fp32",
    optimizer: Annotated[str, typer.Option(help=f"{options.either(OptimizerName)}.")] = "adamw",
    checkpointing: Annotated[
        str,
        typer.Option(help=f"What runs twice to keep less: {options.either(Checkpointing)}."),
    ] = "none",
    modules: Annotated[
        bool, typer.Option("--modules", help="Count module by module too (fvcore's table).")
    ] = False,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Print parameters, multiply-adds and predicted training memory of layouts; where there is a
    GPU, measure as well.
    """
    parsed = [Layout.parse(text) for text in layouts]
    choices = _choices(precision, optimizer, checkpointing)
    spec = _detector_spec(given({"detector.name": detector}) | parse_settings(settings or []))
    from nas.api.profiling import count_modules, profile_layout, profiled_training

    training = profiled_training(images, image_size, **choices)
    profiles = [profile_layout(layout, spec, classes, training) for layout in parsed]
    counts = [count_modules(layout, spec, classes, training) for layout in parsed if modules]
    if as_json:
        found = itertools.zip_longest(profiles, counts)
        print_json([each.to_dict() | _modules(count) for each, count in found])
        return
    _print(profiles)
    for each, count in zip(profiles, counts, strict=False):
        say(f"\n{each.layout}, by module\n{count.table()}\n{_agreement(each, count)}")


def _modules(count: ModuleCosts | None) -> dict[str, Any]:
    return {"modules": [row.to_dict() for row in count.rows()]} if count else {}


def _agreement(profile: LayoutProfile, count: ModuleCosts) -> str:
    total = f"fvcore's total is {count.flops / 1e9:.4f} GMAC"
    apart = count.flops - profile.flops
    return f"{total}, as above." if not apart else f"{total}, {apart / 1e9:+.4f} apart from above."


def _detector_spec(keys: dict[str, Any]) -> DetectorSpec:
    """The detector of dotted keys, which may begin with `detector.`."""
    from nas.config.parsing import parse_model
    from nas.config.sections import DetectorSpec

    return parse_model(
        DetectorSpec, {key.removeprefix("detector."): value for key, value in keys.items()}
    )


def _choices(precision: str, optimizer: str, checkpointing: str) -> dict[str, Any]:
    return {
        "precision": _one_of("--precision", precision, Precision),
        "optimizer": _one_of("--optimizer", optimizer, OptimizerName),
        "checkpointing": _one_of("--checkpointing", checkpointing, Checkpointing),
    }


def _one_of(flag: str, value: str, choice: object) -> Any:
    """Check that a flag's value is a name of the `Literal` type `choice`."""
    if value not in get_args(choice):
        raise SpecError(one_of(flag, value, get_args(choice)))
    return value


def _print(profiles: list[LayoutProfile]) -> None:
    from nas.cli.tables import print_table

    first = profiles[0]
    print_table(_cost_table(profiles))
    print_table(_memory_table(profiles))
    say(f"GMAC: {first.flops_rule}; one image.\npaper G: {first.paper_flops_rule}; one image.")
    say(
        "Memory: whatever the data decides (proposals, positives, boxes) counts with its "
        "configured limit.\nOf a card: a quarter more for batches of other shapes, 0.5 GiB for "
        "cuDNN's workspaces, 0.75 GiB for CUDA's context."
    )


def _cost_table(profiles: list[LayoutProfile]) -> TextTable:
    from nas.cli.tables import TextTable

    first = profiles[0]
    height, width = first.batch_shape[2:]
    table = TextTable(
        title=f"{first.detector}, {first.classes} classes, one image of {height}x{width}"
    )
    table.add_column("layout")
    for name in ("params M", "backbone M", "GMAC", "paper G"):
        table.add_column(name, justify="right")
    if first.measured:
        table.add_column("measured FPS", justify="right")
    for row in profiles:
        counts = [f"{count / 1e6:.4f}" for count in (row.params, row.backbone_params)]
        counts += [f"{count / 1e9:.2f}" for count in (row.flops, row.paper_flops)]
        fps = [f"{row.measured.fps or 0:.1f}"] if row.measured else []
        table.add_row(row.layout, *counts, *fps)
    return table


def _memory_table(profiles: list[LayoutProfile]) -> TextTable:
    from nas.cli.tables import TextTable

    first = profiles[0]
    how = f"{first.precision}, {first.optimizer}"
    if first.checkpointing != "none":
        how += f", checkpointing {first.checkpointing}"
    shape = "x".join(map(str, first.batch_shape))
    table = TextTable(title=f"GiB of one training step, batch {shape}, {how}")
    table.add_column("")
    for row in profiles:
        table.add_column(row.layout, justify="right")
    for name, text in PREDICTED.items():
        table.add_row(text, *(gib_text(getattr(row, name)) for row in profiles))
    measured = [row.measured for row in profiles if row.measured]
    for name, text in MEASURED.items() if measured else ():
        cells = (
            "out of memory" if step.out_of_memory else gib_text(getattr(step, name))
            for step in measured
        )
        table.add_row(text, *cells)
    table.add_section()
    for part in first.memory_by_part_gib:
        table.add_row(
            f"  {part}", *(gib_text(row.memory_by_part_gib.get(part, 0)) for row in profiles)
        )
    return table
