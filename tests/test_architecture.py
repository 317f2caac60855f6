"""Which way the packages look: search_spaces <- nas <- workers, dashboards; nas.cli sees all and is
seen by nobody.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "nas", "workers", "dashboards")
MAY_SEE = {
    "search_spaces": {"search_spaces"},
    "nas": {"search_spaces", "nas"},
    "workers": {"search_spaces", "nas", "workers"},
    "dashboards": {"search_spaces", "nas", "dashboards"},
    "nas.api": {"search_spaces", "nas", "workers", "nas.api"},
    "nas.cli": {"search_spaces", "nas", "workers", "dashboards", "nas.api", "nas.cli"},
}
# Third-party packages that only some parts may know.
ONLY = {
    "ray": {"workers"},
    "optuna_dashboard": {"dashboards"},
    "wsgiref": {"dashboards"},
    "http": {"dashboards"},
    "bottle": {"dashboards"},
    "jinja2": {"dashboards"},
    "markupsafe": {"dashboards"},
    "ssl": {"dashboards"},
    "typer": {"nas.cli"},
    "rich": {"nas.cli"},
    "plotly": {"dashboards"},
    "matplotlib": {"nas"},
    "tensorboardX": {"nas"},
}
MAX_LINES = 400


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, *, at_start: bool = False) -> Iterator[str]:
    """Modules that a file imports; with `at_start` only those that importing the file imports."""
    tree = ast.parse(path.read_text())
    nodes = _at_start(tree.body) if at_start else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_start(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node


def part(module: str) -> str:
    package = ".".join(module.split(".")[:2])
    return package if package in ("nas.api", "nas.cli") else module.split(".", maxsplit=1)[0]


def known(name: str) -> str | None:
    """The longest of our modules that an imported name belongs to."""
    pieces = name.split(".")
    candidates = (".".join(pieces[:end]) for end in range(len(pieces), 0, -1))
    return next((candidate for candidate in candidates if candidate in MODULES), None)


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_look_down(module: str):
    for name in imports(MODULES[module]):
        ours = known(name)
        if ours:
            assert part(ours) in MAY_SEE[part(module)], f"{module} must not import {ours}"
        top = name.split(".")[0]
        if top in ONLY:
            assert part(module) in ONLY[top], f"{module} must not import {top}"


def test_search_spaces_need_the_standard_library_and_yaml_only():
    for module, path in MODULES.items():
        if part(module) == "search_spaces":
            for name in imports(path):
                top = name.split(".")[0]
                assert top in {"search_spaces", "yaml"} or top in sys.stdlib_module_names, (
                    f"{module} imports {top}"
                )


def test_no_cycles():
    graph = {
        module: {
            ours
            for name in imports(path, at_start=True)
            if (ours := known(name)) and ours != module
        }
        for module, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the cycle


def test_an_exported_backbone_can_do_without_us():
    for name in ("stems", "resnet_stage", "swin_stage", "graph", "hybrid", "feature_info"):
        for imported in imports(MODULES[f"nas.models.backbones.{name}"]):
            top = imported.split(".")[0]
            assert (
                top in {"torch", "torchvision"}
                or top in sys.stdlib_module_names
                or imported.startswith("nas.models.backbones.")
            )


def test_files_stay_small():
    lines = {
        path: len(path.read_text().splitlines()) for path in (ROOT / p for p in MODULES.values())
    }
    assert max(lines.values()) <= MAX_LINES, max(lines, key=lambda path: lines[path])
    assert sorted(lines.values())[len(lines) // 2] <= 150


LIGHT = {
    "search_spaces": {"torch", "ray", "optuna", "pydantic", "numpy", "typer"},
    "nas": {"torch", "ray", "optuna", "pydantic", "numpy"},
    "nas.config.spec": {"torch", "ray", "optuna", "numpy"},
    "nas.cli.main": {
        "torch",
        "ray",
        "optuna",
        "numpy",
        "optuna_dashboard",
        "plotly",
        "jinja2",
        "matplotlib",
        "tensorboardX",
        "onnx",
        "onnxscript",
        "onnxruntime",
    },
    "nas.training.candidate": {"ray", "matplotlib", "tensorboardX"},
    "nas.artifacts.curves": {"torch", "numpy", "matplotlib", "tensorboardX"},
    "nas.data.coco": {"torch", "ray"},
    "nas.data.image_folder": {"torch", "ray"},
    "nas.config.pretraining": {"torch", "ray", "optuna", "numpy"},
    "nas.training.pretraining": {"ray", "matplotlib", "tensorboardX"},
    "workers.driver": {"ray"},
    "workers.local": {"ray"},
}


@pytest.mark.parametrize("module", LIGHT)
def test_importing_stays_cheap(module: str):
    script = f"import sys, {module}; print(*(set({sorted(LIGHT[module])}) & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == ""
