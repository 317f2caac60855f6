from __future__ import annotations

import pytest

from nas.errors import SpecError
from nas.utils.formatting import GIB, gib, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GiB", 17_179_869_184),
        ("16 gib", 17_179_869_184),
        ("16GB", 16_000_000_000),
        ("16384MiB", 17_179_869_184),
        ("1.5KiB", 1536),
        ("0.5TB", 500_000_000_000),
    ],
)
def test_sizes(text: str, size: int):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["16", "GiB", "16G", "16 GiBs", "-1GiB", "1e3GiB", "", "0GiB", "0.0001KB"]
)
def test_what_is_no_size(text: str):
    with pytest.raises(SpecError, match="size of memory must be above 0|number and a unit"):
        parse_bytes(text)


def test_gib():
    assert gib(GIB) == 1
    assert gib(3 * GIB // 2) == 1.5
