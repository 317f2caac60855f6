"""The only module that touches what Ray keeps private; written against Ray 2.50 and newer
(`ray/tune/execution/tune_controller.py`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by the Jobs API for the driver that it starts


def keep_workers(tune_controller: Any, trial: Any, count: int) -> None:
    """Let Tune keep `count` idle worker processes with the resources of a trial: it keeps one, and
    a new one takes seconds to start.
    """
    tune_controller._actor_cache.increase_max(trial.placement_group_factory, count)


def log_folder() -> Path | None:
    """Where the workers of this machine's own Ray write what they print; None where this process
    has none.
    """
    from ray._private import worker

    node = worker._global_node
    return Path(node.get_logs_dir_path()) if node else None


def keep_raylet_quiet() -> None:
    """Let Ray not print, on stdout, a paragraph about each worker that dies."""
    from ray._private import worker

    worker.listen_error_messages = lambda *_: None


def is_job_driver() -> bool:
    """Whether this process was started by Ray's Jobs API, which has brought our packages to the
    cluster.
    """
    return _JOB_VARIABLE in os.environ


def read_authentication_again() -> None:
    """Let Ray look at `RAY_AUTH_MODE` and at the token once more, where it is imported already: it
    keeps what it read at its import (`ray/_private/authentication/authentication_token_setup.py`).
    """
    if raylet := sys.modules.get("ray._raylet"):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
