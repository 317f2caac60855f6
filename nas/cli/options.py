"""Flags that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from nas.config.choices import DetectorName, recipe_names
from nas.study.schema import STORAGE_VARIABLE
from search_spaces.space import preset_names


def either(choice: object) -> str:
    """List the names of a `Literal` type in a sentence: `fp32 or bf16`."""
    *names, last = get_args(choice)
    return f"{', '.join(names)} or {last}"


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for machines.")]
Storage = Annotated[
    str, typer.Option(envvar=STORAGE_VARIABLE, help="Database URL.", show_default=True)
]
SpecFile = Annotated[
    Path | None, typer.Argument(metavar="SPEC.yaml", help="The request; flags override its keys.")
]
NewStudy = Annotated[
    str | None, typer.Option(help="Name of the study; default: the data folder's name.")
]
SpecStorage = Annotated[
    str | None,
    typer.Option(envvar=STORAGE_VARIABLE, help="Database URL; default: sqlite:///nas.db."),
]
Space = Annotated[
    str | None, typer.Option(help=f"{', '.join(preset_names())}, a YAML file or module:function.")
]
Budget = Annotated[
    str | None, typer.Option(help="Peak training memory of one GPU, for example 16GiB.")
]
Concurrent = Annotated[int | None, typer.Option(help="Candidates at once.")]
Output = Annotated[str | None, typer.Option(help="Folder of checkpoints; default: nas-runs.")]
Study = Annotated[
    str | None, typer.Option(help="Name of the study; not needed where there is only one.")
]
Data = Annotated[
    str | None, typer.Option(help="Folder with images and annotations in COCO form, or its URL.")
]
Local = Annotated[
    bool, typer.Option("--local", help="Train in this process, one by one, without Ray.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return at once; the search goes on without this terminal.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY.PATH=VALUE", help="Any other key of the spec; may be repeated."
    ),
]
Detector = Annotated[str | None, typer.Option(help=f"{', '.join(get_args(DetectorName))}.")]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help=f"{', '.join(recipe_names())}, or a YAML file.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of training.")]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Short side of the images, pixels; the long side is at most 1333/800 of it."),
]
BatchSize = Annotated[int | None, typer.Option("--batch", help="Images of one training step.")]
Seed = Annotated[int | None, typer.Option(help="Of initialisation, data order and augmentation.")]
NoOnnx = Annotated[
    bool, typer.Option("--no-onnx", help="Leave the ONNX files out, which take up to a minute.")
]

DEFAULT_STORAGE = "sqlite:///nas.db"
