"""Data that tests train on, what they skip without, and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from helpers.commands import Json, Run, run_here
from helpers.image_folders import make_image_folder
from helpers.servers import KINDS, start_server

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


_engines: list[sqlalchemy.Engine] = []


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "engine_connect")
def _remember(connection: sqlalchemy.Connection) -> None:
    if connection.dialect.name != "sqlite" and connection.engine not in _engines:
        _engines.append(connection.engine)


@pytest.fixture(autouse=True)
def _connections_are_closed() -> Iterator[None]:
    """A command that runs in this process leaves its pool to the end of the process: here it ends
    with the test.
    """
    yield
    while _engines:
        _engines.pop().dispose()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes that run these tests at the same time."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared_folder: Path) -> Iterator[None]:
    """Traced memory is cached under this run's folder, not the user's; commands that tests start
    inherit it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_folder / "cache"))
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small data set: 24 training and 8 validation images of 64 x 64 pixels."""
    from nas.data.digits import make_digits

    root = tmp_path_factory.mktemp("data") / "digits"
    make_digits(root, train=24, val=8, size=64, seed=0)
    return root


@pytest.fixture(scope="session")
def sorted_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders by class: five classes, each with 30 training and 10 validation images of
    32 x 32 pixels.
    """
    return make_image_folder(
        tmp_path_factory.mktemp("images") / "sorted", classes=5, train=30, val=10, size=32
    )


def shared_data(name: str) -> Path:
    """A folder of real data beside the checkout; the test is skipped where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the data set {name} in {SHARED.parent.name}/data beside the checkout")
    return folder


@pytest.fixture(scope="session", params=KINDS)
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a server that many drivers can share, of each kind."""
    server = start_server(request.param, tmp_path_factory.mktemp(request.param))
    yield server.url
    server.end()


@pytest.fixture(scope="session")
def bccd() -> Path:
    return shared_data("bccd")


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    return shared_data("coco-mini")


@pytest.fixture
def nas() -> Run:
    """Run a command of `nas` in this process."""
    return partial(run_here, "nas")


@pytest.fixture
def nas_json(nas: Run) -> Json:
    """Run `nas ... --json` in this process; the document that it printed."""
    return lambda *words: nas(*words, "--json").json
