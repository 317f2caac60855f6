"""The store of values on disk: what is found again, and what makes it forget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nas.profiling.memory.prediction import ESTIMATES
from nas.profiling.memory.training_step import TRACES
from nas.search.forecast.forecast_cache import FORECASTS
from nas.utils.disk_cache import DiskCache


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source file of a package, and an empty cache."""
    source = tmp_path / "sources" / "measured" / "inner" / "step.py"
    source.parent.mkdir(parents=True)
    for path in (source.parent.parent / "__init__.py", source.parent / "__init__.py", source):
        path.write_text("")
    monkeypatch.syspath_prepend(tmp_path / "sources")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return source


def store(name: str = "values") -> DiskCache:
    """As a process that starts has it."""
    return DiskCache(name, ("measured",))


def refuse() -> dict[str, Any]:
    raise AssertionError("made anew")


def test_a_value_is_found_under_an_equal_key_by_another_process(package: Path):
    assert store().get_or_make(["a", 1], lambda: {"bytes": 7}) == {"bytes": 7}
    assert store().get_or_make(["a", 1], refuse) == {"bytes": 7}
    assert store().get(["a", 2]) is None
    store().put(["a", 1], {"bytes": 8})
    assert store().get(["a", 1]) == {"bytes": 8}


def test_a_changed_source_is_another_value(package: Path):
    store().put("a", {"bytes": 7})
    package.write_text("x = 1")
    assert store().get("a") is None
    package.write_text("")
    assert store().get("a") == {"bytes": 7}
    package.with_name("new.py").write_text("y = 2")
    assert store().get("a") is None


def test_each_kind_has_a_folder_of_its_name(package: Path, tmp_path: Path):
    for name in ("estimates", "forecasts"):
        store(name).put("a", {"name": name})
    assert store("estimates").get("a") == {"name": "estimates"}
    folder = tmp_path / "cache" / "scratch-nas"
    assert sorted(path.name for path in folder.iterdir()) == ["estimates", "forecasts"]
    assert [path.suffix for path in folder.rglob("*") if path.is_file()] == [".json"] * 2


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "[" * 100_000, "9" * 5000, json.dumps({"key": "other", "value": {}})],
)
def test_a_file_that_holds_something_else_is_none(package: Path, tmp_path: Path, content: str):
    store().put("a", {"bytes": 7})
    (file,) = (path for path in (tmp_path / "cache").rglob("*.json"))
    file.write_text(content)
    assert store().get("a") is None
    assert store().get_or_make("a", lambda: {"bytes": 7}) == {"bytes": 7}
    assert store().get("a") == {"bytes": 7}


def test_a_cache_that_cannot_be_written_only_costs_time(package: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the cache wants a folder")
    assert store().get_or_make("a", lambda: {"bytes": 7}) == {"bytes": 7}
    assert store().get("a") is None


def test_a_package_that_has_moved_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="'nas.moved' is no package"):
        DiskCache("values", ("nas.moved",)).get("a")


def test_what_is_kept_depends_on_the_code_that_makes_it():
    for cache in (ESTIMATES, TRACES, FORECASTS):
        assert {"nas.models", "nas.profiling"}.issubset(cache.packages)
        assert cache.get("nothing") is None  # the packages are there
    assert {"nas.training", "nas.data", "nas.evaluation"}.issubset(FORECASTS.packages)


def test_it_needs_no_pytorch():
    code = (
        "import sys; from nas.utils.disk_cache import DiskCache; "
        "DiskCache('values', ('nas.models',)).get(1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
