"""`python -m nas.cli.run_request REQUEST.json [--local]`: the process of a search that was started
elsewhere, by `nas.cli.background` or as a job of a Ray cluster.
"""

from __future__ import annotations

import os
from pathlib import Path

from nas.cli.dispatch import run_to_end
from nas.cli.runner import new_app, run
from nas.study.schema import STORAGE_VARIABLE


def run_request(request: Path, local: bool = False) -> None:
    """Run the request in a file; NAS_STORAGE names the database where it is set."""
    from nas.config.parsing import parse_model, read_yaml
    from nas.config.spec import SearchSpec

    written = read_yaml(request)
    storage = os.environ.get(STORAGE_VARIABLE) or written["storage"]
    run_to_end(parse_model(SearchSpec, {**written, "storage": storage}), local, as_json=False)


if __name__ == "__main__":
    app = new_app()
    app.command()(run_request)
    run(app, "nas-submit")
