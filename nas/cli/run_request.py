"""`python -m nas.cli.run_request REQUEST.json [--local]`: the process of a search that was started
elsewhere, by `nas.cli.background` or as a job of a Ray cluster.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import tempfile
from contextlib import suppress
from pathlib import Path

from nas.cli.dispatch import run_to_end
from nas.cli.runner import new_app, run
from nas.study.schema import STORAGE_VARIABLE


def run_request(request: Path, local: bool = False) -> None:
    """Run the request in a file; NAS_STORAGE names the database where it is set."""
    from nas.config.parsing import parse_model, read_yaml
    from nas.config.spec import SearchSpec

    written = read_yaml(request)
    leave_folder()
    storage = os.environ.get(STORAGE_VARIABLE) or written["storage"]
    run_to_end(parse_model(SearchSpec, {**written, "storage": storage}), local, as_json=False)


def leave_folder() -> None:
    """Need the folder that a job began in no longer: a cluster may remove it, with the packages
    that came with the job, before the search ends.
    """
    from workers.ray_tune.ray_internals import is_job_driver
    from workers.ray_tune.session import PACKAGES

    if not is_job_driver():
        return
    for package in PACKAGES:
        folders = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(folders, f"{package}."):
            with suppress(ImportError):  # what a command without its extra does not need
                importlib.import_module(module.name)
    os.chdir(tempfile.gettempdir())


if __name__ == "__main__":
    app = new_app()
    app.command()(run_request)
    run(app, "nas-submit")
