"""Which way the packages look, and how large their parts may be.

One way down: a package imports only packages of lower floors, in functions too, and by name in a
string (`python -m nas.cli.x`). `pytest -s tests/test_architecture.py` prints the order.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("search_spaces", "nas", "workers", "dashboards")
# From the ground up. Packages of one floor do not know each other.
FLOORS = (
    ("search_spaces", "nas.reports"),
    ("nas.errors",),
    ("nas.utils",),
    ("nas.config", "nas.artifacts"),
    ("nas.data",),
    ("nas.models", "nas.evaluation", "nas.study"),
    ("nas.training", "nas.export", "nas.planning"),
    ("nas.profiling",),
    ("nas.search",),
    ("workers", "dashboards"),
    ("nas.api",),
    ("nas.cli",),
)
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
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
    "plotly": {"dashboards"},
    "typer": {"nas.cli"},
    "rich": {"nas.cli"},
    "matplotlib": {"nas.artifacts", "nas.evaluation"},
    "tensorboardX": {"nas.artifacts"},
    "mlflow": {"nas.api"},
    "onnx": {"nas.export"},
    "onnxscript": {"nas.export"},
}
MAX_FUNCTION_LINES = 45  # docstrings not counted
MAX_CLASS_LINES = 200
MAX_METHODS = 20


def modules() -> dict[str, Path]:
    paths = [path for top in TOPS for path in (ROOT / top).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


MODULES = modules()
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
START = re.compile(r"-m\s+([\w.]+)")


def imports(module: str, *, at_start: bool = False) -> Iterator[str]:
    """Names that a module imports; with `at_start` only those that importing it imports."""
    body = TREES[module].body
    for node in _at_start(body) if at_start else ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from named_in(node.value)


def named_in(text: str) -> Iterator[str]:
    """Modules of ours that a string names as a whole, as `module:function`, or after `-m`."""
    whole = text.partition(":")[0]
    if "." in whole and known(whole) == whole:
        yield whole
    yield from (name for name in START.findall(text) if known(name))


def _at_start(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node


def known(name: str) -> str | None:
    """The longest of our modules that an imported name belongs to."""
    pieces = name.split(".")
    candidates = (".".join(pieces[:end]) for end in range(len(pieces), 0, -1))
    return next((candidate for candidate in candidates if candidate in MODULES), None)


def package_of(module: str) -> str | None:
    """Its package on one of the floors; None for `nas`, which has the version for everybody."""
    pieces = module.split(".")
    return next((name for name in (".".join(pieces[:2]), pieces[0]) if name in FLOOR), None)


def package_graph() -> dict[str, set[str]]:
    """Of every package, those that it imports."""
    graph: dict[str, set[str]] = {package: set() for package in FLOOR}
    for module in MODULES:
        if mine := package_of(module):
            theirs = {package_of(ours) for name in imports(module) if (ours := known(name))}
            graph[mine] |= {package for package in theirs if package} - {mine}
    return graph


@pytest.mark.parametrize("module", MODULES)
def test_imports_look_down(module: str):
    mine = package_of(module)
    for name in imports(module):
        ours, top = known(name), name.split(".")[0]
        theirs = package_of(ours) if ours else None
        if mine and theirs and theirs != mine:
            assert FLOOR[theirs] < FLOOR[mine], f"{module} must not import {ours}"
        if top in ONLY:
            assert mine in ONLY[top], f"{module} must not import {top}"


def test_packages_have_an_order():
    order = list(TopologicalSorter(package_graph()).static_order())  # raises CycleError
    print("\nfrom the ground up:", " <- ".join(order))
    assert set(order) == set(FLOOR)


def test_every_module_has_a_place():
    homeless = {module for module in MODULES if package_of(module) is None}
    assert homeless == {"nas"}
    directly = {path.name for path in (ROOT / "nas").glob("*.py")}
    assert directly <= {"__init__.py", "errors.py"}


def test_modules_have_no_cycles():
    graph = {
        module: {ours for name in imports(module, at_start=True) if (ours := known(name))}
        for module in MODULES
    }
    list(TopologicalSorter({m: theirs - {m} for m, theirs in graph.items()}).static_order())


def test_strings_that_name_modules_count_as_imports():
    assert list(named_in("python -m nas.cli.main --help")) == ["nas.cli.main"]
    assert list(named_in("nas.cli.main:main")) == ["nas.cli.main"]
    assert list(named_in("see nas.cli.main for more")) == []


def test_commands_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for entry in project["scripts"].values():
        module, _, function = entry.partition(":")
        names = {node.name for node in TREES[module].body if isinstance(node, ast.FunctionDef)}
        assert function in names, entry


def test_search_spaces_need_the_standard_library_and_yaml_only():
    for module in MODULES:
        if package_of(module) == "search_spaces":
            for name in imports(module):
                top = name.split(".")[0]
                allowed = top in {"search_spaces", "yaml"} or top in sys.stdlib_module_names
                assert allowed, f"{module} imports {top}"


def test_an_exported_backbone_can_do_without_us():
    from nas.export.backbone_source import MODULES as EXPORTED

    for name in EXPORTED:
        for imported in imports(f"nas.models.backbones.{name}"):
            top = imported.split(".")[0]
            allowed = top in {"torch", "torchvision"} or top in sys.stdlib_module_names
            assert allowed or imported.startswith("nas.models.backbones.")


# What Optuna, Ray and Optuna Dashboard keep private may change with any release: one module each.
PRIVATE = {"_study_id", "_trial_id", "_get_trials", "_actor_cache", "get_all_trials"}
ADAPTERS = {
    "nas.study.optuna_internals",
    "workers.ray_tune.ray_internals",
    "dashboards.optuna_dashboard",
}


def test_private_interfaces_have_one_module_each():
    for module in MODULES.keys() - ADAPTERS:
        used = {node.attr for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}
        assert not used & PRIVATE, f"{module} uses {used & PRIVATE}"
    assert MODULES.keys() >= ADAPTERS


# Reading what somebody else may have made: one module for each kind, which says what it refuses.
DOORS = {
    "Image.open": "nas.data.image_files",
    "yaml.load": "search_spaces.yaml_text",
    "yaml.safe_load": "search_spaces.yaml_text",
    "shutil.rmtree": "nas.utils.folders",
    "onnxruntime.InferenceSession": "nas.export.onnx.export",
    "ElementTree.fromstring": "nas.data.voc",
    "zipfile.ZipFile": "nas.utils.paths",
}


def test_nothing_goes_round_the_doors():
    for module in MODULES:
        used = {
            ast.unparse(node) for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)
        }
        for name in used & DOORS.keys():
            assert module == DOORS[name], f"{module} must use {DOORS[name]} in place of {name}"


# Text of others goes to a terminal through `nas.utils.shown_text` alone.
PRINTING = {"nas.cli", "nas.cli.runner", "workers.ray_tune.jobs"}


def test_nothing_else_prints():
    for module in MODULES.keys() - PRINTING:
        calls = (node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call))
        used = {ast.unparse(call.func) for call in calls}
        assert not used & {"print", "sys.stdout.write", "sys.stderr.write"}, module


def test_tests_that_security_names_are_there():
    named = re.findall(r"(test_\w+\.py)", (ROOT / "SECURITY.md").read_text())
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(named) > 10
    assert not set(named) - there


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Lines of a function or class, its own docstring not counted."""
    first = node.body[0]
    is_docstring = ast.get_docstring(node) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def nodes(kind: type | tuple[type, ...]) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{module}.{node.name}", node


def test_functions_stay_small():
    sizes = {name: lines_of(node) for name, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef))}
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}
    assert statistics.median(sizes.values()) <= 10


def test_classes_stay_small():
    sizes = {name: lines_of(node) for name, node in nodes(ast.ClassDef)}
    assert {name: size for name, size in sizes.items() if size > MAX_CLASS_LINES} == {}
    methods = {
        name: sum(isinstance(part, ast.FunctionDef) for part in node.body)
        for name, node in nodes(ast.ClassDef)
    }
    assert {name: count for name, count in methods.items() if count > MAX_METHODS} == {}


def test_docstrings_stand_alone():
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                name = getattr(node, "name", "")
                depends = text.startswith(("Of ", "The same ", "See "))
                assert not depends or name.startswith("_"), f"{module}.{name}: {text}"


TORCH = {"torch", "ray"}
# Packages that importing a module must not import: what is asked of it does not need them.
LIGHT = {
    "search_spaces": TORCH | {"optuna", "pydantic", "numpy", "typer"},
    "nas": TORCH | {"optuna", "pydantic", "numpy"},
    "nas.reports": TORCH | {"optuna", "numpy"},
    "nas.config.spec": TORCH | {"optuna", "numpy"},
    "nas.config.pretraining": TORCH | {"optuna", "numpy"},
    "nas.artifacts.curves": {"torch", "numpy", "matplotlib", "tensorboardX"},
    "nas.data.coco": TORCH,
    "nas.data.image_folder": TORCH,
    "nas.study.leaderboard": TORCH,
    "nas.study.lease": TORCH,
    "nas.study.storage": TORCH,
    "nas.training.candidate": {"ray", "matplotlib", "tensorboardX"},
    "nas.training.pretraining": {"ray", "matplotlib", "tensorboardX"},
    "nas.cli.main": TORCH
    | {"optuna", "numpy", "optuna_dashboard", "plotly", "jinja2", "matplotlib", "tensorboardX"}
    | {"onnx", "onnxscript", "onnxruntime", "mlflow"},
    "workers.driver": TORCH,
    "nas.api.finishing": TORCH | {"mlflow"},
    "workers.local": TORCH,
}


@pytest.mark.parametrize("module", LIGHT)
def test_importing_stays_cheap(module: str):
    script = f"import sys, {module}; print(*(set({sorted(LIGHT[module])}) & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == ""
