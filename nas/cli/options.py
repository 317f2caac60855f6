"""Flags that several commands take, and those of them that set a key of a request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

import typer

from nas.cli.runner import parse_settings
from nas.config.choices import DetectorName, recipe_names
from nas.study.schema import STORAGE_VARIABLE
from search_spaces.loading import preset_names


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
Mlflow = Annotated[
    str | None,
    typer.Option(help="Folder or server of MLflow, which gets a run for each trial."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY.PATH=VALUE", help="Any other key of the spec; may be repeated."
    ),
]
Detector = Annotated[str | None, typer.Option(help=f"auto, {', '.join(get_args(DetectorName))}.")]
NoOnnx = Annotated[
    bool, typer.Option("--no-onnx", help="Leave the ONNX files out, which take a minute or two.")
]

DEFAULT_STORAGE = "sqlite:///nas.db"

Command = Callable[..., None]


@dataclass(frozen=True)
class RequestFlag:
    """A flag that sets one key of a request; a command takes it through `request_options`.

    Args:
        name: of the command's parameter, and so of the flag.
        annotation: its type, `Annotated` with Typer's option.
        key: dotted key of the request, for example `recipe.epochs`.
        parse: makes the key's value of the flag's; not called where the flag was not used.
    """

    name: str
    annotation: Any
    key: str
    parse: Callable[[Any], Any] = lambda value: value

    def parameter(self) -> inspect.Parameter:
        """Describe the flag as a parameter whose default, None, means that it was not used."""
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=self.annotation
        )


STUDY = RequestFlag(
    "study",
    Annotated[str | None, typer.Option(help="Name of the study; default: the data folder's name.")],
    "study",
)
STORAGE = RequestFlag(
    "storage",
    Annotated[
        str | None,
        typer.Option(envvar=STORAGE_VARIABLE, help="Database URL; default: sqlite:///nas.db."),
    ],
    "storage",
)
SPACE = RequestFlag(
    "space",
    Annotated[
        str | None,
        typer.Option(help=f"auto, {', '.join(preset_names())}, a YAML file or module:function."),
    ],
    "space",
)
DATA = RequestFlag("data", Data, "data.root")
DETECTOR = RequestFlag("detector", Detector, "detector.name")
RECIPE = RequestFlag(
    "recipe",
    Annotated[str | None, typer.Option(help=f"{', '.join(recipe_names())}, or a YAML file.")],
    "recipe.name",
)
EPOCHS = RequestFlag(
    "epochs", Annotated[int | None, typer.Option(help="Epochs of training.")], "recipe.epochs"
)
IMAGE_SIZE = RequestFlag(
    "image_size",
    Annotated[
        int | None,
        typer.Option(
            help="Short side of the images, pixels; the long side is at most 1333/800 of it."
        ),
    ],
    "recipe.image_size",
)
BATCH = RequestFlag(
    "batch",
    Annotated[int | None, typer.Option(help="Images of one training step.")],
    "recipe.batch",
)
TRAINING = (DETECTOR, RECIPE, EPOCHS, IMAGE_SIZE, BATCH)
BUDGET = RequestFlag(
    "budget",
    Annotated[str | None, typer.Option(help="Peak training memory of one GPU, for example 16GiB.")],
    "budget.memory",
)
CONCURRENT = RequestFlag(
    "concurrent", Annotated[int | None, typer.Option(help="Candidates at once.")], "run.concurrent"
)
SEED = RequestFlag(
    "seed",
    Annotated[int | None, typer.Option(help="Of initialisation, data order and augmentation.")],
    "search.seed",
)
OUTPUT = RequestFlag(
    "output",
    Annotated[str | None, typer.Option(help="Folder of checkpoints; default: nas-runs.")],
    "run.output",
)
MLFLOW = RequestFlag("mlflow", Mlflow, "run.mlflow")
_SETTINGS = inspect.Parameter(
    "settings",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Settings,
)


def request_options(*flags: RequestFlag) -> Callable[[Command], Command]:
    """Give a command flags that set keys of a request, and `--set` after them.

    They stand in the place of the command's parameter `flags`, which gets the keys of those that
    were used: dotted key to value, `--set` before the flag of the same key.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_flags(**arguments: Any) -> None:
            keys = used((flag, arguments.pop(flag.name)) for flag in flags)
            command(flags=keys | parse_settings(arguments.pop("settings") or []), **arguments)

        parameters = _with_flags(command, flags)
        described = cast(Any, with_flags)  # what Typer reads
        described.__signature__ = inspect.Signature(parameters)
        described.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_flags

    return decorate


def used(flags: Iterable[tuple[RequestFlag, Any]]) -> dict[str, Any]:
    """Keep the flags that were used, dotted key to value: what is None or an empty list was not."""
    return {flag.key: flag.parse(value) for flag, value in flags if value not in (None, [])}


def _with_flags(command: Command, flags: tuple[RequestFlag, ...]) -> list[inspect.Parameter]:
    """Parameters of a command with those of the flags in the place of `flags`."""
    hints, parameters = get_type_hints(command, include_extras=True), []
    for name, parameter in inspect.signature(command).parameters.items():
        if name == "flags":
            parameters += [*(flag.parameter() for flag in flags), _SETTINGS]
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            )
    return parameters
