"""A study that nothing trained, and a browser that is logged in to its dashboard."""

from __future__ import annotations

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
