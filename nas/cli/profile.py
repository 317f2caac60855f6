"""`nas profile`: what layouts cost, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from nas.cli import options
from nas.cli.runner import given, parse_settings, print_json
from nas.config.choices import Checkpointing, OptimizerName, Precision
from nas.errors import SpecError, one_of
from nas.utils.formatting import gib_text
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.config.sections import DetectorSpec
    from nas.profiling.memory import Training

_MEMORY_ROWS = {
    "memory_predicted_gib": "allocated at the peak",
    "memory_reserved_gib": "reserved",
    "memory_card_gib": "of the card, with the context",
    "measured memory_peak_gib": "measured: allocated",
    "measured memory_reserved_gib": "measured: reserved",
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
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Print parameters, multiply-adds and predicted training memory of layouts; where there is a
    GPU, measure as well.
    """
    parsed = [Layout.parse(text) for text in layouts]
    choices: dict[str, Any] = {
        "precision": _one_of("--precision", precision, Precision),
        "optimizer": _one_of("--optimizer", optimizer, OptimizerName),
        "checkpointing": _one_of("--checkpointing", checkpointing, Checkpointing),
    }
    from nas.config.parsing import parse_model
    from nas.config.recipe import ASPECT_LIMIT, LARGEST_STRIDE
    from nas.config.sections import DetectorSpec

    keys = given({"detector.name": detector}) | parse_settings(settings or [])
    spec = parse_model(
        DetectorSpec, {key.removeprefix("detector."): value for key, value in keys.items()}
    )
    height, width = (
        -(-side // LARGEST_STRIDE) * LARGEST_STRIDE
        for side in (image_size, int(image_size * ASPECT_LIMIT))
    )
    from nas.profiling.memory import Training

    training = Training((images, 3, height, width), **choices)
    rows = [_profile(layout, spec, classes, training) for layout in parsed]
    if as_json:
        print_json(rows)
    else:
        _print(rows)


def _one_of(flag: str, value: str, choice: object) -> Any:
    """Check that a flag's value is a name of the `Literal` type `choice`."""
    if value not in get_args(choice):
        raise SpecError(one_of(flag, value, get_args(choice)))
    return value


def _profile(
    layout: Layout, spec: DetectorSpec, classes: int, training: Training
) -> dict[str, Any]:
    from nas.profiling.flops import PAPER_RULE, RULE, count_cost
    from nas.profiling.memory import CONTEXT_BYTES, predict_memory
    from nas.utils.formatting import gib

    cost = count_cost(layout, spec, classes, training.batch_shape[2:])
    memory = predict_memory(layout, spec, classes, training)
    return {
        "layout": str(layout),
        "layout_id": layout.layout_id,
        "detector": spec.name,
        "classes": classes,
        "params": cost.params,
        "backbone_params": cost.backbone_params,
        "flops": cost.flops,
        "flops_rule": RULE,
        "paper_flops": cost.paper_flops,
        "paper_flops_rule": PAPER_RULE,
        "batch_shape": list(training.batch_shape),
        "precision": training.precision,
        "optimizer": training.optimizer,
        "checkpointing": training.checkpointing,
        "memory_predicted_gib": gib(memory.peak_bytes),
        "memory_reserved_gib": gib(memory.reserved_bytes),
        "memory_card_gib": gib(memory.reserved_bytes + CONTEXT_BYTES),
        "memory_by_part_gib": {part: gib(size) for part, size in memory.parts().items()},
        "memory_peak_moment": memory.moment,
        "measured": _measure(layout, spec, classes, training),
    }


def _measure(
    layout: Layout, spec: DetectorSpec, classes: int, training: Training
) -> dict[str, Any] | None:
    """The same on this machine's GPU; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    from nas.profiling.memory.measurement import measure_memory
    from nas.utils.formatting import gib

    try:
        measured = measure_memory(layout, spec, classes, training, torch.device("cuda"))
    except torch.OutOfMemoryError:
        return {"device": torch.cuda.get_device_name(), "out_of_memory": True}
    finally:
        torch.cuda.empty_cache()
    assert measured.reserved_bytes is not None
    return {
        "device": measured.device,
        "memory_peak_gib": gib(measured.peak_bytes),
        "memory_reserved_gib": gib(measured.reserved_bytes),
        "step_s": measured.step_s,
        "fps": measured.fps,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from nas.cli.tables import print_table

    first = rows[0]
    shape = "x".join(map(str, first["batch_shape"]))
    kept = first["checkpointing"]
    how = (
        f"{first['precision']}, "
        f"{first['optimizer']}{'' if kept == 'none' else f', checkpointing {kept}'}"
    )
    cost = Table(
        title=f"{first['detector']}, {first['classes']} classes, one image of "
        f"{shape.split('x', 2)[2]}"
    )
    memory = Table(title=f"GiB of one training step, batch {shape}, {how}")
    for name in (
        "layout",
        "params M",
        "backbone M",
        "GMAC",
        "paper G",
        *(["measured FPS"] if first["measured"] else []),
    ):
        cost.add_column(name, justify="left" if name == "layout" else "right")
    for row in rows:
        counts = [f"{row[name] / 1e6:.4f}" for name in ("params", "backbone_params")]
        counts += [f"{row[name] / 1e9:.2f}" for name in ("flops", "paper_flops")]
        fps = [f"{row['measured'].get('fps') or 0:.1f}"] if first["measured"] else []
        cost.add_row(row["layout"], *counts, *fps)
    memory.add_column("")
    for row in rows:
        memory.add_column(row["layout"], justify="right")
    for name in ("memory_predicted_gib", "memory_reserved_gib", "memory_card_gib"):
        memory.add_row(_MEMORY_ROWS[name], *(gib_text(row[name]) for row in rows))
    if first["measured"]:
        for name in ("memory_peak_gib", "memory_reserved_gib"):
            texts = [
                gib_text(row["measured"][name]) if name in row["measured"] else "out of memory"
                for row in rows
            ]
            memory.add_row(_MEMORY_ROWS[f"measured {name}"], *texts)
    memory.add_section()
    for part in first["memory_by_part_gib"]:
        memory.add_row(
            f"  {part}", *(gib_text(row["memory_by_part_gib"].get(part, 0)) for row in rows)
        )
    print_table(cost)
    print_table(memory)
    print(
        f"GMAC: {first['flops_rule']}; one image.\npaper G: {first['paper_flops_rule']}; one image."
    )
    print(
        "Memory: whatever the data decides (proposals, positives, boxes) counts with its "
        "configured limit."
    )
