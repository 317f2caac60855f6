"""What was found out about a layout is read again without PyTorch, which takes seconds to load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from nas.config.sections import DetectorSpec
from nas.profiling.flops import count_cost
from nas.profiling.memory import Training, predict_memory
from search_spaces.layout import Layout

layout, detector = Layout.parse("C1-T1-T1-T1@16"), DetectorSpec(name="fcos", channels=32)
estimate = predict_memory(layout, detector, 3, Training((1, 3, 64, 64)))
cost = count_cost(layout, detector, 3, (64, 64))
print(estimate.peak_bytes, cost)
print("torch" in sys.modules)
"""


def test_pytorch_is_imported_for_new_layouts_alone(tmp_path: Path):
    first, second = (
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    )
    assert (first[1], second[1]) == ("True", "False")
    assert first[0] == second[0]
