"""`import nas`: its names, what they return, and that they are light."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nas
import nas.api.public
from nas.errors import StudyError, UserError

ROOT = Path(__file__).parent.parent.parent
NAMES = [
    "check_data",
    "evaluate",
    "export",
    "load",
    "load_study",
    "plan",
    "predict",
    "profile",
    "search",
    "train",
]  # frozen: users have them in their notebooks


def test_the_names_are_those():
    assert nas.__all__ == NAMES
    assert set(NAMES) <= set(dir(nas))
    for name in NAMES:
        assert callable(getattr(nas, name))
        function = getattr(nas.api.public, name)
        assert function.__doc__
        hints = inspect.signature(function).return_annotation
        assert hints is not inspect.Signature.empty
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        nas.serach  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_whole(name: str):
    """Every argument, what comes back, what is raised, an example."""
    function = getattr(nas.api.public, name)
    text = inspect.getdoc(function)
    assert text
    sections = dict(re.findall(r"^(\w+):\n((?: +.*\n?|\n)*)", text, flags=re.MULTILINE))
    assert {"Examples", "Args", "Returns", "Raises"} <= sections.keys()
    told = re.findall(r"^    (\w+): ", sections["Args"], flags=re.MULTILINE)
    assert told == list(inspect.signature(function).parameters)
    assert f"nas.{name}(" in sections["Examples"]


def test_what_is_returned_has_a_place_on_the_page():
    page = (ROOT / "docs" / "api.md").read_text()
    described = re.findall(r"^::: ([\w.]+)$", page, flags=re.MULTILINE)
    classes = {path.rpartition(".")[2] for path in described}
    for name in NAMES:
        assert re.search(rf"members: .*\b{name}\b", page)
        returned = inspect.signature(getattr(nas.api.public, name)).return_annotation
        assert set(re.findall(r"[A-Z]\w+", returned)) <= classes


def test_a_package_of_the_same_name_is_imported_beside():
    """As everything here does."""
    from nas.search.budget import Budget

    assert nas.search.budget.Budget is Budget
    assert callable(nas.search)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, ("10000", None)),
        ({"GOMP_SPINCOUNT": "5"}, ("5", None)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, (None, "ACTIVE")),
    ],
)
def test_how_threads_wait_is_set_where_nobody_has_said_it(
    said: dict[str, str], found: tuple[str | None, str | None]
):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    own = {name: value for name, value in os.environ.items() if name not in names}
    code = f"import os, nas; print(tuple(map(os.environ.get, {names})))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=own | said, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(found)


def test_importing_is_light():
    script = "import nas, sys; print(any(m in sys.modules for m in ('torch', 'numpy', 'ray')))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_examples_that_need_no_data_run():
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner()
    for test in finder.find(nas.api.public, "nas.api.public", extraglobs={"nas": nas}):
        runner.run(test)
    assert runner.summarize().failed == 0
    assert runner.tries > 0


def test_from_data_to_predictions(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """A notebook: look at the data, search, export, predict, score, train on."""
    (train, _) = nas.check_data(digits)
    assert train.lost == []
    assert nas.plan(digits, detector="fcos").value("recipe.batch") == 4
    sizes = {"recipe.epochs": 1, "recipe.image_size": 32, "detector.channels": 32}
    storage = f"sqlite:///{tmp_path}/nas.db"
    study = nas.search(
        digits,
        storage=storage,
        local=True,
        space="tiny",
        recipe="tiny",
        detector="fcos",
        study="notebook",
        trials=2,
        settings={**sizes, "search.baselines": False, "run.output": str(tmp_path / "runs")},
    )
    assert re.fullmatch(r"Study\('notebook', 2 complete, best \S+ with mAP [0-9.]+\)", repr(study))
    assert len(study.trials()) == 2
    assert study.best == study.leaderboard()[0]
    assert study._repr_html_().count("<tr>") == 3
    opened = nas.load_study(storage)
    assert opened.request["search"]["trials"] == 2

    bundle = nas.export(study, tmp_path / "best", onnx=False)
    assert bundle.layout == study.best.layout
    assert bundle.categories == tuple("0123456789")
    assert bundle.layout in bundle._repr_html_()
    images = sorted((digits / "val").iterdir())[:2]
    found = bundle.predict(images, score=0.0)
    again = nas.predict(tmp_path / "best", images, score=0.0)
    assert [each.names for each in found] == [each.names for each in again]
    assert (found[0].boxes == again[0].boxes).all()
    assert (
        nas.evaluate(tmp_path / "best", digits).metrics.map == bundle.evaluate(digits).metrics.map
    )
    longer = nas.train(
        tmp_path / "best", digits, tmp_path / "longer", onnx=False, settings={"recipe.epochs": 1}
    )
    assert nas.load(tmp_path / "longer").layout == longer.layout
    assert capsys.readouterr().out == ""  # nothing is printed


def test_mistakes_are_the_users_errors(digits: Path, tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        nas.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="detector must be one of"):
        nas.profile("C1-C1-T2-T1", detector="yolo")
    with pytest.raises(TypeError, match="unexpected keyword argument 'trails'"):
        nas.search(digits, trails=3)  # type: ignore[call-arg]
    with pytest.raises(UserError, match="recipe.lr"):
        nas.plan(digits, settings={"recipe.lr": "fast"})
    with pytest.raises((StudyError, UserError)):
        nas.load_study(f"sqlite:///{tmp_path}/none.db")
