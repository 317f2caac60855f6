"""A study that nothing trained, a browser that is logged in to its dashboard, and a real one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.browsing import Browser, browser_of
from helpers.untrained import Driver


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A study with a few trials, driven without training."""
    driver = Driver(tmp_path_factory.mktemp("dashboard"), **{"search.trials": 4})
    for value in (0.2, 0.4, 0.3):
        driver.train(value)
    return driver


@pytest.fixture(scope="module")
def inside(searched: Driver) -> Browser:
    return browser_of(searched)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if path is None:
        pytest.skip("needs chromium, of Debian's package of that name")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
