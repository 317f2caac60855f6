from __future__ import annotations

from nas.utils.formatting import GIB, gib


def test_gib():
    assert gib(GIB) == 1
    assert gib(3 * GIB // 2) == 1.5
