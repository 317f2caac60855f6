"""Ray, started on this machine or joined where RAY_ADDRESS says, and what each of its machines can
do for the search.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.artifacts.trial_files import check_output
from nas.config.spec import SearchSpec
from nas.data.annotation_files import find_split
from nas.errors import StudyError, UserError
from nas.study.schema import STORAGE_VARIABLE
from nas.utils.files import check_file
from nas.utils.paths import localize, to_path
from workers.ray_tune.ray_internals import is_job_driver
from workers.resources import Node, TrialResources, plan, smallest_card_bytes

PACKAGES = (
    "nas",
    "search_spaces",
    "workers",
    "dashboards",
)  # what a cluster gets of us; it has the dependencies itself
LOOK_S = 5
PROBE_S = 120  # torch is imported there, perhaps from a slow disk
_OBJECT_STORE_BYTES = 128 * 2**20  # reports and jobs are all that passes through it
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # results go to the study
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the driver; the study stays as it is
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is ever restored from Tune's own state
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # the searcher limits how many run, also while their processes start
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
}


@contextmanager
def ray_session(spec: SearchSpec, budget_bytes: int) -> Iterator[TrialResources]:
    """Start Ray for one search, or join the cluster at RAY_ADDRESS; it ends with the block.

    Args:
        spec: the request.
        budget_bytes: memory limit of a candidate, from which its share of a GPU follows.

    Returns:
        How many trials run at once, and what each of them gets.

    Raises:
        SpecError: the request asks for more than there is.
        StudyError: the cluster cannot be reached, or one of its machines cannot take part.
    """
    os.environ.pop(
        STORAGE_VARIABLE, None
    )  # has been read; workers, whose environment Ray keeps, need no database
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _join(address)
            nodes = look_at_nodes(spec)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
            nodes = [_this_machine()]
        yield plan(spec.run, nodes, budget_bytes)
    finally:
        ray.shutdown()


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


def package_folders() -> list[Path]:
    """List the folders of our packages, as they are installed here."""
    return [Path(str(importlib.import_module(name).__file__)).parent for name in PACKAGES]


def _join(address: str) -> None:
    import ray

    shipped = {} if is_job_driver() else {"py_modules": [str(path) for path in package_folders()]}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=shipped
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StudyError(
            f"RAY_ADDRESS {address!r}: no Ray cluster answers there: {_first_line(error)}"
        ) from None


def _this_machine() -> Node:
    import ray

    available = ray.cluster_resources()
    gpus = available.get("GPU", 0)
    return Node(int(available.get("CPU", 1)), gpus, smallest_card_bytes() if gpus else None)


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
            asked.append(
                look.remote(
                    spec.data.root,
                    (spec.data.train, spec.data.val),
                    str(output),
                    name,
                    spec.recipe.weights,
                )
            )
        sizes = _sizes(spec.data.root, (spec.data.train, spec.data.val))
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
        said = ray.get(answer, timeout=PROBE_S)
    except ray.exceptions.GetTimeoutError:
        raise StudyError(f"{where} has not answered for {PROBE_S} s") from None
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise StudyError(f"{where} cannot take part: {_first_line(cause or error)}") from None
    if "refused" in said:
        raise StudyError(f"{where}: {said['refused']}")
    if said["sizes"] != sizes:
        raise StudyError(
            f"{where}: data.root {spec.data.root!r} has other annotation files there than here"
        )
    if not said["sees_output"] or not (output / said["wrote"]).exists():
        raise StudyError(
            f"{where}: run.output {str(output)!r} is another folder there than here: it must be "
            "one they share"
        )
    ours = version("torch")
    if said["torch"].split(".")[:2] != ours.split(".")[:2]:
        raise StudyError(
            f"{where} has torch {said['torch']}, this one {ours}: checkpoints move between machines"
        )
    return Node(int(node["Resources"]["CPU"]), node["Resources"].get("GPU", 0), said["card_bytes"])


def probe_node(
    root: str, splits: tuple[str, ...], output: str, name: str, weights: str | None = None
) -> dict[str, Any]:
    """Find out, on a machine of the cluster, what it has and sees.

    Args:
        root: of the data.
        splits: names of the splits whose annotation files are looked at.
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
        sizes = _sizes(root, splits)
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


def _sizes(root: str, splits: tuple[str, ...]) -> list[int]:
    return [find_split(localize(root), split)[1].stat().st_size for split in splits]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
