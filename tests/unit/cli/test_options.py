"""Flags that set keys of a request: which key each has, and what a command gets of them."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import pytest
import typer

from nas.cli import options
from nas.cli.pretrain import RECIPE_FLAGS
from nas.cli.submit import SEARCH_FLAGS
from nas.config.pretraining import PretrainingSpec
from nas.config.spec import SearchSpec

SHARED = [flag for flag in vars(options).values() if isinstance(flag, options.RequestFlag)]


def takes(command: Any, *words: str) -> None:
    """Run a command with words of a command line."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    app(words, standalone_mode=False)


@pytest.mark.parametrize("flag", [*SHARED, *SEARCH_FLAGS], ids=lambda flag: flag.key)
def test_every_flag_sets_a_key_of_a_request(flag: options.RequestFlag):
    assert has_key(SearchSpec.model_json_schema(), flag.key)


@pytest.mark.parametrize("flag", RECIPE_FLAGS, ids=lambda flag: flag.key)
def test_every_flag_of_pretraining_sets_a_key_of_its_request(flag: options.RequestFlag):
    assert has_key(PretrainingSpec.model_json_schema(), flag.key)


def has_key(schema: dict[str, Any], key: str) -> bool:
    """Whether a JSON schema has a dotted key."""
    at = schema
    for name in key.split("."):
        at = schema["$defs"][at["$ref"].rsplit("/", 1)[1]] if "$ref" in at else at
        if name not in at.get("properties", {}):
            return False
        at = at["properties"][name]
    return True


def test_a_command_gets_the_keys_of_the_flags_that_were_used():
    got: list[dict[str, Any]] = []

    @options.request_options(options.EPOCHS, options.SEED, *SEARCH_FLAGS)
    def command(what: str, *, flags: dict[str, Any], loud: bool = False) -> None:
        got.append({"what": what, "loud": loud, **flags})

    takes(command, "it", "--loud")
    takes(command, "it", "--seed", "0", "--no-baselines", "--try", "a", "--try", "b")
    takes(command, "it", "--objectives", "map, fps", "--set", "search.seed=2", "--seed", "1")
    assert got == [
        {"what": "it", "loud": True},
        {
            "what": "it",
            "loud": False,
            "search.seed": 0,
            "search.baselines": False,
            "search.try": ["a", "b"],
        },
        {"what": "it", "loud": False, "search.objectives": ["map", "fps"], "search.seed": 2},
    ]


def test_the_flags_stand_where_the_command_says():
    @options.request_options(options.EPOCHS, options.BATCH)
    def command(
        first: str,
        *,
        flags: dict[str, Any],
        last: Annotated[int, typer.Option(help="The last.")] = 3,
    ) -> None:
        """What it does."""

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["first", "epochs", "batch", "settings", "last"]
    assert parameters["last"].default == 3
    assert command.__doc__ == "What it does."
