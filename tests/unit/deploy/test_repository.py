"""Files that serve contributors and their tools: each names commands, files and versions that are
there.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nas

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PACKAGES = ("nas", "search_spaces", "workers", "dashboards")
PROGRAMS = {
    *PROJECT["project"]["scripts"],
    "make",
    "python",
    "pip",
    "uv",
    "mkdir",
    "git",
    "pre-commit",
    "pip-audit",
}


READ = {"contents": "read"}


def recipe(target: str) -> list[str]:
    """Command lines of a target of the Makefile, with the environment's programs in `.venv/bin`."""
    _, _, rest = MAKEFILE.partition(f"\n{target}:")
    assert rest, f"Makefile: no target {target}"
    lines = rest.splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if not line.startswith("\t")), len(lines))
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in lines[:end]]


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):(?!=)", MAKEFILE, flags=re.MULTILINE))


def locked() -> dict[str, str]:
    """Versions of requirements.lock by canonical name."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, pinned in pins}


def check_command(line: str) -> None:
    """The line has a program that the project uses, files that exist, targets of the Makefile."""
    words = shlex.split(line, comments=True)
    program, arguments = words[0], words[1:]
    if program.startswith(".venv/bin/"):
        assert (Path(sys.executable).parent / Path(program).name).is_file(), line
    elif "/" in program:
        assert (ROOT / program).is_file(), line
    else:
        assert program in PROGRAMS, line
    if program == "make":
        targets = {word for word in arguments if "=" not in word}
        assert targets <= make_targets() | {".venv/installed-dev"}, line
    for word in arguments:
        if word.startswith(("docs/", "tests/", "benchmarks/", "examples/")):
            assert (ROOT / word).exists(), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_commands_that_exist(path: Path):
    jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    for step in steps:
        for line in step.get("run", "").splitlines():
            check_command(line)
    files = [step.get("with", {}).get("cache-dependency-path") for step in steps]
    assert all((ROOT / name).is_file() for name in files if name)


def test_workflows_may_read_the_repository_and_nothing_else():
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        allowed = [workflow, *workflow["jobs"].values()]
        assert all(each.get("permissions", workflow["permissions"]) == READ for each in allowed)


def test_scans_are_of_a_stated_version():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    for name, package in (("vulnerabilities", "pip-audit"), ("secrets", "detect-secrets")):
        lines = [step["run"] for step in jobs[name]["steps"] if "run" in step]
        assert lines[0].startswith(f"pip install {package}==")
        assert package in lines[-1]


def test_continuous_integration_covers_the_supported_versions_of_python():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    versions = jobs["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert all(step["run"] == ".ci/run" for step in jobs["test"]["steps"] if "run" in step)


def test_workflow_tests_run_what_make_test_runs():
    pytest_line = recipe("test")[-1].removeprefix("OMP_NUM_THREADS=1 ")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["env"]["OMP_NUM_THREADS"] == "1"
    for job in ("lowest", "newest"):
        assert workflow["jobs"][job]["steps"][-1]["run"] == pytest_line


def test_hooks_before_a_commit_are_the_commands_of_make_check():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert [hook["entry"] for hook in hooks] == recipe("check")
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)


def test_citation_has_the_version_and_the_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == nas.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["title"] == PROJECT["project"]["name"]


def test_issue_forms_ask_for_something():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys(), path
        fields = [entry["id"] for entry in form["body"]]
        assert len(set(fields)) == len(fields), path


def test_every_direct_dependency_is_locked_within_its_bounds():
    pins = locked()
    extras = PROJECT["project"]["optional-dependencies"].values()
    direct = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    for requirement in map(Requirement, direct):
        if requirement.name != PROJECT["project"]["name"]:
            name = canonicalize_name(requirement.name)
            assert name in pins, f"requirements.lock lacks {name}: make lock"
            assert requirement.specifier.contains(pins[name]), f"{requirement}, locked {pins[name]}"


def test_libraries_whose_private_parts_are_used_have_an_upper_bound():
    extras = PROJECT["project"]["optional-dependencies"]
    direct = [*PROJECT["project"]["dependencies"], *extras["cluster"], *extras["dashboard"]]
    bounded = {
        requirement.name
        for requirement in map(Requirement, direct)
        if any(specifier.operator == "<" for specifier in requirement.specifier)
    }
    assert {"optuna", "ray", "optuna-dashboard"} <= bounded


def test_packages_say_that_they_are_typed():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in data[package]


def test_commands_of_contributing_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert lines
    for line in lines:
        check_command(line)


def test_files_that_contributing_names_exist():
    """Names in back quotes that end like a file or have a folder in them."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    names = [
        name
        for name in re.findall(r"`([\w./-]+)`", prose)
        if "/" in name or name.endswith((".py", ".md", ".toml"))
    ]
    assert names
    missing = [name for name in names if not (ROOT / name).exists()]
    assert not missing
