"""The table of a small space: every layout trained from scratch on one core, some of them with
three seeds.

    python benchmarks/tabular/build.py --data DIR --raw FOLDER  # trains what is missing
    python benchmarks/tabular/build.py --data DIR --raw FOLDER --out TABLE.json  # and writes

Each run is a file in FOLDER, so that a build that was stopped goes on with the same command, and
several processes or machines divide it: `--share 1/2` and `--share 2/2`. `--runs N` trains at most
N more; `--runs 0 --out FILE` writes what there is. Runs come in an order that a seed shuffles: the
first ones are a sample of all. Every third layout has three seeds, the others one; `--every 1`
gives the others theirs too.

Candidates are trained as a search trains them (`nas.training.candidate`), with the seeds 0, 1 and
2. On the CPU seconds are those of the processor, which others on the machine hardly change; on a
GPU they are the clock's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nas.config.spec import SearchSpec, load_spec
from nas.data.splits import Splits
from nas.errors import CandidateError, StudyError, UserError
from nas.planning.adaptation import adapt_to_data
from nas.profiling.flops import count_cost
from nas.reports import DatasetSummary
from nas.search.budget import Budget
from nas.study.provenance import git_commit, versions
from nas.training.candidate import Candidate, train_candidate
from nas.utils.files import atomic_write
from nas.utils.formatting import gib
from search_spaces.layout import Layout
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark, sorted_runs

SPEC = Path(__file__).parent / "bccd.yaml"
SECTIONS = (
    "space",
    "data",
    "detector",
    "recipe",
    "calibration",
)  # of the request, what runs depend on
ORDER_SEED = 0
SEEDS = (0, 1, 2)
EVERY = 3


def planned(spec: SearchSpec, every: int) -> list[tuple[Layout, int]]:
    """All runs, in order: every third layout, say, with all seeds, the others with the first."""
    layouts = spec.search_space().shuffled(ORDER_SEED)
    return [
        (layout, seed)
        for index, layout in enumerate(layouts)
        for seed in (SEEDS if index % every == 0 else SEEDS[:1])
    ]


@dataclasses.dataclass(frozen=True)
class Build:
    """A request with its data, and the folder of its runs."""

    spec: SearchSpec
    splits: Splits
    facts: DatasetSummary
    folder: Path
    every: int = EVERY
    commit: str | None = dataclasses.field(default_factory=git_commit)

    @classmethod
    def open(cls, request: Path, data: Path, folder: Path, every: int = EVERY) -> Build:
        """Check the data, and that the folder is empty or belongs to the same request.

        Raises:
            StudyError: it does not.
        """
        spec, splits, facts = adapt_to_data(load_spec(request, {"data.root": str(data)}))
        build = cls(spec, splits, facts, folder, every)
        folder.mkdir(parents=True, exist_ok=True)
        known, wanted = (
            folder / "request.json",
            json.dumps({**build.request, "fingerprint": facts.fingerprint}, indent=1),
        )
        if known.exists() and known.read_text() != wanted:
            raise StudyError(
                f"--raw {str(folder)!r} has runs of another request, see request.json there: "
                "choose another folder"
            )
        if not known.exists():
            atomic_write(known, lambda file: file.write(wanted.encode()))
        return build

    @property
    def request(self) -> dict[str, Any]:
        """What runs depend on; of the data's place only the name."""
        sections = {name: self.spec.to_dict()[name] for name in SECTIONS}
        return {
            **sections,
            "data": {**sections["data"], "root": Path(self.spec.data.root).resolve().name},
        }

    def path(self, layout: Layout, seed: int) -> Path:
        """Where a run is, or will be."""
        return self.folder / f"{layout.layout_id}-{seed}.json"

    def missing(self, share: tuple[int, int]) -> list[tuple[Layout, int]]:
        """Runs still to be made, by the process that has this share of them."""
        mine = planned(self.spec, self.every)[share[0] - 1 :: share[1]]
        return [(layout, seed) for layout, seed in mine if not self.path(layout, seed).exists()]

    def train(self, layout: Layout, seed: int, device: str) -> dict[str, Any]:
        """One run, as it is stored: more than the table has of it."""
        cost = count_cost(
            layout, self.spec.detector, self.facts.num_classes, self.facts.batch_shape[2:]
        )
        row = {
            "layout": str(layout),
            "seed": seed,
            "params": cost.params,
            "flops": cost.flops,
            "memory_predicted_gib": gib(Budget(self.spec, self.facts).predicted_bytes(layout)),
            "device": device,
            "versions": versions(),
            "commit": self.commit,
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "epochs": [],
        }
        with tempfile.TemporaryDirectory() as folder:
            candidate = Candidate.from_spec(
                layout, self.spec, self.facts, Path(folder), seed=seed, device=device
            )
            begun_s = time.process_time()
            try:
                for report in train_candidate(candidate, *self.splits):
                    cpu_s = time.process_time() - begun_s
                    row["device"] = report.device
                    row["epochs"].append(
                        {
                            **report.metrics.precisions(),
                            "loss": report.loss,
                            "val_loss": report.val_loss,
                            "lr": report.lr,
                            "fps": report.fps,
                            "cpu_s": cpu_s,
                            "train_s": report.train_s,
                            "elapsed_s": report.elapsed_s,
                            "peak_bytes": report.memory_peak_bytes,
                        }
                    )
            except CandidateError as error:
                row |= {
                    "fail_reason": f"{type(error).__name__}: {error}",
                    "failed_s": time.process_time() - begun_s,
                }
        return row

    def runs(self) -> Iterator[dict[str, Any]]:
        """What there is."""
        for layout, seed in planned(self.spec, self.every):
            if (path := self.path(layout, seed)).exists():
                yield json.loads(path.read_text())

    def table(self) -> TabularBenchmark:
        """Of what there is."""
        rows = list(self.runs())
        if not rows:
            raise StudyError(f"--raw {str(self.folder)!r} has no runs yet")
        devices = sorted({row["device"] for row in rows})
        if len(devices) > 1:
            raise StudyError(
                f"--raw {str(self.folder)!r} has runs of {', '.join(devices)}, whose seconds "
                "cannot be compared"
            )
        about = {
            "command": f"python benchmarks/tabular/build.py --data {self.request['data']['root']} "
            "--raw FOLDER",
            "runs": len(rows),
            "planned": len(planned(self.spec, self.every)),
            "order_seed": ORDER_SEED,
            "several_seeds": f"every {self.every} layouts",
            "seconds": "of the processor" if devices == ["cpu"] else "of the clock",
            **{
                name: _distinct(row[name] for row in rows)
                for name in ("versions", "commit", "processor", "threads")
            },
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        return TabularBenchmark(
            about, self.request, self.facts, devices[0], sorted_runs(map(compact, rows))
        )


def _rounded(loss: float | None) -> float | None:
    return None if loss is None else round(loss, 4)


def compact(row: dict[str, Any]) -> RecordedRun:
    """What the table has of a stored run."""
    epochs, on_cpu = row["epochs"], row["device"] == "cpu"
    # Training's part of the processor's seconds, by its part of the clock's.
    scale = [epoch["cpu_s"] / epoch["elapsed_s"] if on_cpu else 1.0 for epoch in epochs]
    failed_s = [round(row["failed_s"], 2)] if "fail_reason" in row else []
    return RecordedRun(
        **{
            name: row[name]
            for name in ("layout", "seed", "params", "flops", "memory_predicted_gib")
        },
        fps=round(epochs[-1]["fps"], 1) if epochs else 0.0,
        loss=tuple(round(epoch["loss"], 4) for epoch in epochs),
        lr=tuple(float(f"{epoch['lr']:.4g}") for epoch in epochs),
        map=tuple(round(epoch["map"] or 0.0, 5) for epoch in epochs),
        train_s=tuple(
            round(epoch["train_s"] * factor, 2) for epoch, factor in zip(epochs, scale, strict=True)
        ),
        elapsed_s=(
            *(
                round(epoch["elapsed_s"] * factor, 2)
                for epoch, factor in zip(epochs, scale, strict=True)
            ),
            *failed_s,
        ),
        fail_reason=row.get("fail_reason"),
        val_loss=tuple(_rounded(epoch.get("val_loss")) for epoch in epochs),
    )


def processor() -> str:
    """Its model, where Linux tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def _distinct(values: Iterator[Any]) -> Any:
    """A value that all have in common, or the list of those there are."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found[0] if len(found) == 1 else found


def _share(text: str) -> tuple[int, int]:
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a share is K/N, for example 1/2; got {text!r}") from None
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"a share is 1/N to N/N; got {text!r}")
    return part, parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--spec", type=Path, default=SPEC)
    parser.add_argument("--raw", type=Path, required=True, help="folder of the runs, one file each")
    parser.add_argument(
        "--share", type=_share, default=(1, 1), metavar="K/N", help="train every Nth run only"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=EVERY,
        metavar="N",
        help="train every Nth layout with three seeds",
    )
    parser.add_argument("--runs", type=int, help="train at most so many")
    parser.add_argument("--out", type=Path, help="write the table here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        work(arguments)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


def work(arguments: argparse.Namespace) -> None:
    """Train what is missing, then write the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    build = Build.open(arguments.spec, arguments.data, arguments.raw, arguments.every)
    missing = build.missing(arguments.share)
    for done, (layout, seed) in enumerate(missing[: arguments.runs], start=1):
        row = build.train(layout, seed, device)
        atomic_write(
            build.path(layout, seed), lambda file, row=row: file.write(json.dumps(row).encode())
        )
        reached = (
            row.get("fail_reason")
            or f"mAP {100 * row['epochs'][-1]['map']:.1f} in {row['epochs'][-1]['elapsed_s']:.0f} s"
        )
        print(f"{done} of {len(missing)}: {layout} seed {seed}: {reached}", flush=True)
    if arguments.out:
        build.table().write(arguments.out)


if __name__ == "__main__":
    main()
