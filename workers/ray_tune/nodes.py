"""The machines of a Ray cluster: what each has and sees, and whether there still is one."""

from __future__ import annotations

import os
import socket
import time
import uuid
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.artifacts.trial_files import check_output
from nas.config.sections import DataSpec
from nas.config.spec import SearchSpec
from nas.data.split_source import Places, find_splits
from nas.errors import StudyError, UserError
from nas.utils.files import check_file
from nas.utils.gpu_presence import smallest_card_bytes
from nas.utils.paths import localize, to_path
from workers.resources import Node

LOOK_S = 5
PROBE_S = 300  # torch is imported there, perhaps from a slow disk or beside other work


class NodeMonitor:
    """Looks every few seconds whether there is still a machine to run on; Ray waits for one for
    ever.
    """

    def __init__(self) -> None:
        self._looked_s = time.monotonic()

    def look(self) -> None:
        """Look whether there is still a machine; may be called often, for it looks every five
        seconds.

        Raises:
            StudyError: there is none.
        """
        import ray

        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        if not any(node["Alive"] and node["Resources"].get("CPU") for node in ray.nodes()):
            raise StudyError(
                "Ray has lost its last machine. Nothing else is lost: the same command goes on"
            )


def look_at_nodes(spec: SearchSpec) -> list[Node]:
    """Ask every machine of the cluster that has cores whether it sees the data and shares the
    output folder.

    Raises:
        StudyError: one does not; the text names the machine and the path.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not alive:
        raise StudyError("the Ray cluster has no machine with CPU cores")
    check_output(spec.run.output)
    output, name = to_path(spec.run.output), f".probe-{uuid.uuid4()}"
    (output / name).touch()
    try:
        asked = []
        for node in alive:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = ray.remote(probe_node).options(
                num_cpus=0, max_retries=0, scheduling_strategy=there
            )
            asked.append(look.remote(spec.data, str(output), name, spec.recipe.weights))
        sizes = _sizes(spec.data)
        return [
            _judge(spec, node, answer, output, sizes)
            for node, answer in zip(alive, asked, strict=True)
        ]
    finally:
        for left in output.glob(f"{name}*"):
            with suppress(OSError):
                left.unlink()


def _judge(
    spec: SearchSpec, node: dict[str, Any], answer: Any, output: Path, sizes: list[int]
) -> Node:
    import ray

    where = (
        f"machine {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) of the Ray cluster"
    )
    try:
        node_facts = ray.get(answer, timeout=PROBE_S)
    except ray.exceptions.GetTimeoutError:
        raise StudyError(f"{where} has not answered for {PROBE_S} s") from None
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise StudyError(f"{where} cannot take part: {first_line(cause or error)}") from None
    if "refused" in node_facts:
        raise StudyError(f"{where}: {node_facts['refused']}")
    if node_facts["sizes"] != sizes:
        raise StudyError(
            f"{where}: data.root {spec.data.root!r} has other annotation files there than here"
        )
    if not node_facts["sees_output"] or not (output / node_facts["wrote"]).exists():
        raise StudyError(
            f"{where}: run.output {str(output)!r} is another folder there than here: it must be "
            "one they share"
        )
    ours = version("torch")
    if node_facts["torch"].split(".")[:2] != ours.split(".")[:2]:
        raise StudyError(
            f"{where} has torch {node_facts['torch']}, this one {ours}: checkpoints move between "
            "machines"
        )
    return Node(
        int(node["Resources"]["CPU"]), node["Resources"].get("GPU", 0), node_facts["card_bytes"]
    )


def probe_node(
    data: DataSpec, output: str, name: str, weights: str | None = None
) -> dict[str, Any]:
    """Find out, on a machine of the cluster, what it has and sees.

    Args:
        data: the data set whose annotation files are looked at.
        output: folder of all studies.
        name: of a file in it that is looked for; another one is left beside it.
        weights: file to start from, if any.

    Returns:
        Plain JSON: `refused` with a sentence, or `sizes` of the annotation files in bytes,
        `sees_output`, the name of the file that it `wrote`, `card_bytes` and the version of
        `torch`.
    """
    mine = f"{name}-{socket.gethostname()}-{os.getpid()}"
    try:
        sizes = _sizes(data)
        if weights:
            check_file("recipe.weights", weights)
        (to_path(output) / mine).touch()
    except UserError as error:
        return {"refused": str(error)}
    except OSError as error:
        return {"refused": f"run.output {output!r} cannot be written: {error.strerror or error}"}
    return {
        "sizes": sizes,
        "sees_output": (to_path(output) / name).exists(),
        "wrote": mine,
        "card_bytes": smallest_card_bytes(),
        "torch": version("torch"),
    }


def _sizes(data: DataSpec) -> list[int]:
    places = Places(data.annotations, data.images)
    found = find_splits(localize(data.root), (data.train, data.val), places)
    return [source.annotations.stat().st_size for source in found]


def first_line(error: BaseException) -> str:
    """Give the first line of what an error says; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
