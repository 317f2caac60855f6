"""`nas report`: a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options
from nas.cli.dashboard import WEB
from nas.cli.runner import say
from nas.errors import need


def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    study: options.Study = None,
    storage: options.Storage = options.DEFAULT_STORAGE,
) -> None:
    """Write what a study has found as one HTML file that opens without a server."""
    from nas.study.leaderboard import load_study
    from nas.study.storage import open_storage
    from nas.utils.files import atomic_write

    loaded = load_study(open_storage(storage, create=False, read_only=True), study)
    need("dashboard", *WEB)
    from dashboards.static_report import report_html

    html = report_html(loaded).encode()
    atomic_write(out, lambda file: file.write(html))
    say(f"{out}: {loaded.study_name}, {len(html) / 1e6:.1f} MB, opens in any browser")
