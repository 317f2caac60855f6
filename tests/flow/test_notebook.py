"""docs/blood-cells.ipynb: its code runs, in short, and the outputs that it keeps are of one run."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parent.parent.parent / "docs" / "blood-cells.ipynb"
SHORT = {"NAS_TRIALS": "1", "NAS_EPOCHS": "1", "NAS_IMAGE_SIZE": "64"}
LARGEST = 300_000  # bytes, of which most are a picture
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
CODE = "\n".join("".join(cell["source"]) for cell in CELLS)


def test_the_code_runs(bccd: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=os.environ | SHORT | {"NAS_DATA": str(bccd)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "train: 205 images, 2804 boxes, 0 lost" in done.stdout
    assert done.stdout.count(", complete after 1 epochs") == 1
    assert (tmp_path / "best" / "manifest.json").is_file()


def test_it_needs_nothing_but_nas():
    imports = [node for node in ast.walk(ast.parse(CODE)) if isinstance(node, ast.Import)]
    froms = [node.module for node in ast.walk(ast.parse(CODE)) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names} | set(froms)
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"nas"}


def test_outputs_are_of_one_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= shown
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output["text"]
    assert NOTEBOOK.stat().st_size < LARGEST
