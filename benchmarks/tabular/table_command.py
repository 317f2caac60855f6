"""The command line of a program that replays searches on a table and adds to a file of results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from nas.errors import UserError


def run_command(
    doc: str | None, work: Callable[[argparse.Namespace], None], seeds: int, **more: str
) -> None:
    """Read the flags, and do the work; a user's mistake is a line and exit code 2.

    Args:
        doc: of the program.
        work: what it does with its flags.
        seeds: repetitions, unless --seeds says otherwise.
        more: further files that it reads where they are named, each a flag, with their help.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    for name, said in more.items():
        parser.add_argument(f"--{name}", type=Path, help=said)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    try:
        work(arguments)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
