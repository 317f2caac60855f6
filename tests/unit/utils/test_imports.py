from __future__ import annotations

import subprocess
import sys

import pytest

from nas.utils.imports import absent

SCRIPT = """
import sys
from nas.utils.imports import absent
with absent("colorsys"):
    try:
        import colorsys
    except ImportError:
        print("absent")
import colorsys
with absent("colorsys"):
    import colorsys as again
print(again is colorsys)
"""


def test_a_package_seems_absent_until_it_is_imported():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["absent", "True"], done.stderr


def test_an_error_leaves_nothing_behind():
    with pytest.raises(ValueError, match="inside"), absent("no_such_package"):
        raise ValueError("inside")
    assert "no_such_package" not in sys.modules
