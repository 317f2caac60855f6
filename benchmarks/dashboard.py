"""The dashboard beside a large study, or many: seconds and bytes of every page, and its memory.

    python benchmarks/dashboard.py --trials 5000 --out benchmarks/results/dashboard.json
    python benchmarks/dashboard.py --studies 100 --trials 100 --out RESULT.json

Every study has the trials of one that was driven without training, each with a layout and scores of
its own. `nas-dashboard` is a process of its own. Each page is asked for twice: as the first thing
after a start, and again. `--keep DIR` leaves the database there and says how to look at it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil

from nas.config.spec import load_spec
from nas.reports import CocoMetrics, DatasetSummary, EpochReport
from nas.search.open_search import open_search
from nas.search.samplers import distributions
from nas.search.search import Search

TOKEN = "a-token-of-thirty-two-characters"
FACTS = DatasetSummary("fingerprint", ("a", "b"), 64, 200, 16, 50, 9, (2, 3, 64, 96), {}, {})
SCORES = CocoMetrics(0.1, 0.2, 0.3, None, 0.1, 0.1, 0.1, 0.2, 0.3, None, 0.1, 0.2, {"a": 0.1})
PAGES = {
    "all studies": "/",
    "study": "/studies/1",
    "its second page": "/studies/1?page=2",
    "trial": "/studies/1/trials/7",
    "Optuna Dashboard": "/dashboard/studies/1",
    "its answer": "/api/studies/1",
}


def open_study(folder: Path, name: str, trials: int, reports: int) -> Search:
    """A search for two classes."""
    request = {
        "study": name,
        "data.root": "cells",
        "space": "free",
        "storage": f"sqlite:///{folder}/nas.db",
        "run.output": str(folder / "runs"),
        "recipe.name": "tiny",
        "recipe.epochs": reports,
        "detector.name": "fcos",
        "search.trials": trials,
        "search.sampler": "random",
        "search.baselines": False,
    }
    return open_search(load_spec(None, request), FACTS)


def fill(study: Search, trials: int, reports: int) -> None:
    """One trial as a search reports it, the others with its attributes."""
    draw = random.Random(0)
    with study.lease():
        first = study.ask()
        assert first
        for epoch in range(1, reports + 1):
            scores = replace(SCORES, map=0.3 * epoch / reports)
            study.report(
                first.number,
                EpochReport(epoch, reports, 1.0, 0.1, scores, 20.0, 1.0, 1.0, None, "cpu", None),
            )
    (model,) = study.study.trials
    space = study.budget.space
    known = distributions(space)
    for _, layout in zip(range(trials - 1), space.shuffled(0), strict=False):
        best = draw.uniform(0.1, 0.4)
        curve = {epoch: best * epoch / reports for epoch in range(1, reports + 1)}
        own = {"layout": str(layout), "layout_id": layout.layout_id}
        study.study.add_trial(
            optuna.trial.create_trial(
                params=space.encode(layout),
                distributions=known,
                value=best,
                intermediate_values=curve,
                user_attrs=model.user_attrs | own,
                system_attrs=model.system_attrs,
            )
        )


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """`nas-dashboard` on a free port, and its process."""
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    words = ["--storage", f"sqlite:///{folder}/nas.db", "--port", "0", "--token-file", str(token)]
    command = [sys.executable, "-c", "from nas.cli.dashboard import main; main()", *words]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        said = server.stdout.readline()
        yield int(said.split(":")[2].split("/")[0]), psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def logged_in(port: int) -> str:
    """The cookie of somebody who has the token."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    own = {"Origin": f"http://127.0.0.1:{port}", "Accept": "text/html"}
    connection.request("POST", "/login", f"token={TOKEN}", own)
    return str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]


def asked(port: int, cookie: str, path: str) -> dict[str, float]:
    """One page, whole."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begun = time.perf_counter()
    connection.request("GET", path, headers={"Cookie": cookie, "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    size = len(answer.read())
    return {
        "status": answer.status,
        "elapsed_s": round(time.perf_counter() - begun, 2),
        "sent_bytes": size,
    }


def page(folder: Path, path: str) -> dict[str, Any]:
    """Of one page: the first time after a start and the second, and the server's memory then."""
    with serving(folder) as (port, process):
        cookie = logged_in(port)
        first, second = asked(port, cookie, path), asked(port, cookie, path)
        resident = process.memory_info().rss
    return {**first, "again_s": second["elapsed_s"], "resident_bytes": resident}


def all_pages(folder: Path) -> int:
    """Resident bytes of a server that has shown them all."""
    with serving(folder) as (port, process):
        cookie = logged_in(port)
        for path in PAGES.values():
            asked(port, cookie, path)
        return int(process.memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1)
    parser.add_argument("--trials", type=int, default=5000, help="of each study")
    parser.add_argument("--reports", type=int, default=20, help="of each trial")
    parser.add_argument("--keep", type=Path, help="folder for the database; used again if it is")
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number in range(0 if (folder / "nas.db").exists() else arguments.studies):
            study = open_study(folder, f"study-{number}", arguments.trials, arguments.reports)
            fill(study, arguments.trials, arguments.reports)
        found = {
            "studies": arguments.studies,
            "trials": arguments.trials,
            "reports": arguments.reports,
            "python": platform.python_version(),
            "pages": {name: page(folder, path) for name, path in PAGES.items()},
            "resident_bytes": all_pages(folder),
        }
    text = json.dumps(found, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    print(text, end="")
    if arguments.keep:
        print(f"nas-dashboard --storage sqlite:///{folder}/nas.db")


if __name__ == "__main__":
    main()
