"""Data that tests train on, and what they skip without."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small data set: 24 training and 8 validation images of 64 x 64 pixels."""
    from nas.data.digits import make_digits

    root = tmp_path_factory.mktemp("data") / "digits"
    make_digits(root, train=24, val=8, size=64, seed=0)
    return root


def shared_data(name: str) -> Path:
    """A folder of real data beside the checkout; the test is skipped where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the data set {name} in {SHARED.parent.name}/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def bccd() -> Path:
    return shared_data("bccd")


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    return shared_data("coco-mini")
