"""Ray for one search: started on this machine, or joined where RAY_ADDRESS says."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.config.spec import SearchSpec
from nas.errors import SpecError, StudyError
from nas.study.schema import STORAGE_VARIABLE
from nas.utils.folders import own_folder
from nas.utils.gpu_presence import smallest_card_bytes
from nas.utils.working_folder import outside_working_folder
from workers.ray_tune.authentication import WHERE, keep_token_private, use_token
from workers.ray_tune.nodes import first_line, look_at_nodes
from workers.ray_tune.processes import end_ray
from workers.ray_tune.ray_internals import is_job_driver, keep_raylet_quiet
from workers.resources import Node, TrialResources, plan

# what a cluster gets of us; it has the dependencies itself
PACKAGES = ("nas", "search_spaces", "workers", "dashboards")
_OBJECT_STORE_BYTES = 128 * 2**20  # reports and jobs are all that passes through it
ANSWER_S = 10  # that a cluster's address may take to accept a connection; Ray itself waits minutes
# Path of our folder for Ray, in bytes: sockets below it have 107 on Linux, and Ray needs sixty.
LONGEST_TEMP = 43
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # results go to the study
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the driver; the study stays as it is
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is ever restored from Tune's own state
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # else the driver waits for the first workers within Ray, which hears no Ctrl-C
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the study says in a line why a worker died
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
    address = os.environ.get("RAY_ADDRESS")
    use_token() if address else keep_token_private()
    import ray

    keep_raylet_quiet()
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # counts dead workers once more
    try:
        if address:
            _join(address)
            nodes = look_at_nodes(spec)
        else:
            _start()
            nodes = [_this_machine()]
        yield plan(spec.run, nodes, budget_bytes)
    finally:
        ray.shutdown() if address else end_ray()


def _start() -> None:
    import ray

    folder = temp_folder()
    with outside_working_folder():
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )


def package_folders() -> list[Path]:
    """List the folders of our packages, as they are installed here."""
    return [Path(str(importlib.import_module(name).__file__)).parent for name in PACKAGES]


def temp_folder() -> str:
    """Make a folder for Ray's files and sockets that other users of this machine cannot enter: Ray
    itself opens its folder to everybody. It is below that of this process (`TMPDIR`) unless that
    has too long a path, as those of batch systems have.

    Raises:
        StudyError: the path is too long, and /tmp cannot be written to.
        OutputError: somebody else has made the folder there.
    """
    own, name = tempfile.gettempdir(), f"nas-ray-{os.getuid()}"
    if len(os.fsencode(f"{own}/{name}")) > LONGEST_TEMP:
        if not os.access("/tmp", os.W_OK):
            raise StudyError(
                f"TMPDIR {own!r} is too long for Ray's sockets: at most "
                f"{LONGEST_TEMP - len(name) - 1} bytes, and /tmp cannot be written to"
            )
        own = "/tmp"
    return str(own_folder(Path(own) / name) / "ray")


def check_address(address: str) -> None:
    """Find out soon whether anybody answers at RAY_ADDRESS.

    Raises:
        SpecError: it is the address of a Jobs API.
        StudyError: nobody does.
    """
    if address.startswith(("http://", "https://")):
        raise SpecError(
            f"RAY_ADDRESS must be HOST:PORT, ray://HOST:PORT or auto; got {address!r}: a cluster's "
            "Jobs API goes to --cluster"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`, `local`: Ray knows at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise StudyError(
            f"RAY_ADDRESS {address!r}: no Ray cluster answers there: {error.strerror or error}"
        ) from None


def _join(address: str) -> None:
    import ray

    check_address(address)
    shipped = {} if is_job_driver() else {"py_modules": [str(path) for path in package_folders()]}
    try:
        with outside_working_folder():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=shipped,
            )
    except ray.exceptions.AuthenticationError as error:
        raise StudyError(
            f"RAY_ADDRESS {address!r}: {first_line(error)}: the cluster's token belongs into "
            f"{WHERE}"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StudyError(
            f"RAY_ADDRESS {address!r}: no Ray cluster answers there, or its token is another "
            f"({WHERE}): {first_line(error)}"
        ) from None


def _this_machine() -> Node:
    import ray

    available = ray.cluster_resources()
    gpus = available.get("GPU", 0)
    return Node(int(available.get("CPU", 1)), gpus, smallest_card_bytes() if gpus else None)
