"""The files in deploy/: as far as schemas and parsers can tell. Nothing here starts a container or
a cluster.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.config.spec import load_spec
from nas.study.storage import parse_url

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def ray_cluster(path: Path) -> dict[str, Any]:
    last = documents(path)[-1]
    assert last["apiVersion"] == "ray.io/v1"
    return last["spec"] if last["kind"] == "RayCluster" else last["spec"]["rayClusterSpec"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_pods_and_plain_objects_meet_kubernetes_schema(path: Path):
    validate = pytest.importorskip("kubernetes_validate").validate
    version = "1.33"
    spec = ray_cluster(path)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": group["template"]["spec"],
        }
        validate(pod, version, strict=True)
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {
            mount["name"] for box in pod["spec"]["containers"] for mount in box["volumeMounts"]
        } == volumes
    for plain in documents(path)[:-1]:
        validate(plain, version, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_only_the_head_knows_the_database(path: Path):
    spec = ray_cluster(path)
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    assert [variable["name"] for variable in head["env"]] == ["NAS_STORAGE"]
    assert "secretKeyRef" in head["env"][0]["valueFrom"]
    for group in spec["workerGroupSpecs"]:
        assert not any("env" in box for box in group["template"]["spec"]["containers"])


def test_both_manifests_describe_the_same_machines():
    workers = [ray_cluster(path)["workerGroupSpecs"] for path in MANIFESTS]
    assert len(workers) == 2
    assert workers[0] == workers[1]


def test_the_job_runs_a_request_that_can_be_read(tmp_path: Path):
    config, job = documents(DEPLOY / "kuberay" / "rayjob.yaml")
    program, path = shlex.split(job["spec"]["entrypoint"])
    assert program in PROJECT["scripts"]
    (tmp_path / "request.yaml").write_text(config["data"][Path(path).name])
    spec = load_spec(tmp_path / "request.yaml", {})
    assert Path(spec.data.root).is_absolute()
    assert Path(spec.run.output).is_absolute()


def test_rays_own_schema_of_a_cluster():
    pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents(DEPLOY / "ray-cluster.yaml")
    validate_config(prepare_config(config))


def test_compose_listens_on_this_machine_only():
    (compose,) = documents(DEPLOY / "compose.yaml")
    assert set(compose["services"]) == {"database", "dashboard", "search"}
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        named = [
            volume.split(":")[0]
            for volume in service.get("volumes", [])
            if not volume.startswith("$")
        ]
        assert set(named) <= set(compose["volumes"])
    for name in ("dashboard", "search"):
        url = parse_url(
            re.sub(r"\$\{.*?\}", "word", compose["services"][name]["environment"]["NAS_STORAGE"])
        )
        assert (url.drivername, url.host, url.database) == (
            "postgresql+psycopg",
            "127.0.0.1",
            "nas",
        )
    assert compose["services"]["dashboard"]["command"][0] in PROJECT["scripts"]


def test_the_image_is_built_from_what_there_is():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((ROOT / word).exists() for word in copied)
    assert {"nas", "search_spaces", "workers", "dashboards", "pyproject.toml"} <= set(copied)
    extras = re.search(r"\.\[(.*?)\]", "\n".join(lines))[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert lines.index("USER nas") > max(
        i for i, line in enumerate(lines) if line.startswith("RUN ")
    )
