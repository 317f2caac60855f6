"""What only a GPU can show, in one run of eight minutes at most.

    python benchmarks/gpu.py --out benchmarks/results/gpu-CARD.json

Five parts, each with a share of the time; what one leaves, the next ones have:

- memory: 44 points, predicted beside PyTorch's own counters;
- training: a step of ours beside the same of torchvision's and timm's parts, in fp32, TF32 and
  bf16, compiled and with channels last;
- shapes: what the allocator reserves under batches of many shapes, with and without expandable
  segments;
- evaluation: images a second that each detector is shown;
- search: four candidates on the card.

Every row is printed and written as soon as it is known, so that a run that is cut keeps what it
has; a part that ran out of its time says so. `--short` runs a few small rows of each, on a machine
without a GPU too.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import memory
import torch
import torchvision
import training

from nas.config.recipe import Recipe
from nas.config.sections import DetectorSpec
from nas.data.dataset import Batch
from nas.models.detectors import DETECTORS, build_detector
from nas.profiling.memory import Training
from nas.profiling.memory.measurement import random_target
from nas.study.leaderboard import load_study, trial_row
from nas.study.storage import open_storage
from nas.training.gpu_memory import free_memory
from nas.training.loop import train_epoch
from nas.training.network import prepare_network
from nas.training.optimizer import make_optimizer
from nas.utils.device import default_device, hardware
from nas.utils.distributed import World
from nas.utils.formatting import gib
from nas.utils.gpu_presence import has_hopper
from search_spaces.layout import Layout

MINUTES = 8.0
POINTS, CLASSES = 40, 80
LAYOUT, SMALL_LAYOUT = "C2-C2-T12-T4", "C1-C1-T2-T1@16"
SIZE, SMALL_SIZE = (800, 1344), (160, 224)
ORDER = (("swin", "bf16"), ("swin", "tf32"), ("swin", "fp32"), ("resnet", "bf16"))
SIDES = range(480, 801, 32)  # of multi-scale training
RATIOS = (1.0, 4 / 3, 3 / 2, 1333 / 800)
STEPS = 40  # of changing shapes
SHOWN = 20  # batches of evaluation
CANDIDATES = 4

Row = dict[str, Any]


class Part(NamedTuple):
    """A part of the run: its share of the time, what measures its rows, and a row as text."""

    share: float
    rows: Callable[[bool], Iterator[Row]]
    line: Callable[[Row], str]


def memory_rows(short: bool) -> Iterator[Row]:
    """Predicted and measured memory: one point of every detector, then of many layouts."""
    device, gpu = torch.device(default_device()), torch.cuda.is_available()
    if short:
        yield memory.compare(
            SMALL_LAYOUT, "fcos", Training((1, 3, *SMALL_SIZE), 5, cuda=gpu), device
        )
        return
    known = [name for name in DETECTORS if name not in memory.DETECTORS]
    for name in known:
        point = Training(memory.GPU_SHAPE, 20, hopper=has_hopper(), cuda=gpu)
        yield memory.compare(LAYOUT, name, point, device)
    points = sorted(
        memory.points(gpu),
        key=lambda p: (p[2].batch_shape != memory.PAPER_SHAPE, p[2].checkpointing != "none"),
    )
    for layout, detector, point in points[:POINTS]:
        yield memory.compare(layout, detector, point, device)


def training_rows(short: bool) -> Iterator[Row]:
    """A step beside those of others."""
    if short:
        yield from training.compare("fcos", "swin", (1, *SMALL_SIZE), 1, precision="fp32")
        return
    for backbone, precision in ORDER:
        yield from training.compare("faster_rcnn", backbone, (4, *SIZE), 8, precision=precision)


def shape_rows(short: bool) -> Iterator[Row]:
    """Reserved beside allocated; the CPU's allocator keeps nothing, and has no row."""
    if not torch.cuda.is_available():
        return
    for expandable in (False, True):
        free_memory()
        torch.cuda.memory._set_allocator_settings(f"expandable_segments:{expandable}")
        started = time.perf_counter()
        _train_shapes(5 if short else STEPS)
        peak_bytes, reserved_bytes = (
            torch.cuda.max_memory_allocated(),
            torch.cuda.max_memory_reserved(),
        )
        yield {
            "expandable_segments": expandable,
            "peak_bytes": peak_bytes,
            "reserved_bytes": reserved_bytes,
            "elapsed_s": round(time.perf_counter() - started, 2),
        }
    torch.cuda.memory._set_allocator_settings("expandable_segments:False")


def _train_shapes(steps: int) -> None:
    """Multi-scale training of two images a step, the same shapes each time."""
    device, draw = torch.device("cuda"), random.Random(0)
    torch.manual_seed(0)
    layout = Layout.parse(LAYOUT)
    recipe = Recipe(epochs=1, batch=2, lr=1e-5)
    network = build_detector(layout, DetectorSpec(name="faster_rcnn"), CLASSES)
    network = prepare_network(network, recipe, layout.norm, device, World())
    optimizer = make_optimizer(network, recipe)
    batches = (_random_batch(draw, device) for _ in range(steps))
    rates = [recipe.lr] * steps
    train_epoch(
        network,
        batches,
        optimizer,
        lrs=rates,
        accumulate=1,
        clip_norm=None,
        precision="fp32",
        device=device,
    )


def _random_batch(draw: random.Random, device: torch.device) -> Batch:
    short_side = draw.choice(SIDES)
    sides = [short_side, round(short_side * draw.choice(RATIOS))]
    draw.shuffle(sides)
    targets = [random_target(10, CLASSES, *sides) for _ in range(2)]
    return Batch([torch.rand(3, *sides) for _ in range(2)], targets).to(device)


def evaluation_rows(short: bool) -> Iterator[Row]:
    """Images a second of detection, in batches."""
    device = torch.device(default_device())
    size, count = (SMALL_SIZE, 1) if short else (SIZE, 4)
    text, steps = (SMALL_LAYOUT, 1) if short else (LAYOUT, SHOWN)
    for name in ["fcos"] if short else DETECTORS:
        free_memory()
        torch.manual_seed(0)
        network = build_detector(Layout.parse(text), DetectorSpec(name=name), CLASSES)
        network = network.to(device).eval()
        images = [torch.rand(3, *size, device=device) for _ in range(count)]
        seconds = _seconds(lambda network=network, images=images: network(images), steps, device)
        yield {
            "detector": name,
            "layout": text,
            "shape": [count, 3, *size],
            "images_per_s": round(count * steps / seconds, 2),
        }


@torch.inference_mode()
def _seconds(detect: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds of all steps together, after two that do not count."""
    for step in range(-2, steps):
        if step == 0:
            _wait(device)
            started = time.perf_counter()
        detect()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def search_rows(short: bool) -> Iterator[Row]:
    """Four candidates on made-up digits, by the command that users type."""
    with tempfile.TemporaryDirectory() as folder:
        storage, started = f"sqlite:///{folder}/nas.db", time.perf_counter()
        _command("make-data", f"{folder}/digits")
        keys = ["recipe.epochs=1", "recipe.image_size=64" if short else "recipe.image_size=112"]
        keys += ["search.baselines=false", f"data.train_fraction={0.05 if short else 1.0}"]
        settings = [word for key in keys for word in ("--set", key)]
        places = ["--storage", storage, "--output", f"{folder}/runs"]
        request = ["--data", f"{folder}/digits", "--space", "tiny", "--detector", "fcos"]
        request += ["--recipe", "tiny", "--trials", str(CANDIDATES), "--study", "gpu"]
        _command("submit", *request, *places, *settings, *(["--local"] if short else []))
        elapsed_s = time.perf_counter() - started
        for trial in load_study(open_storage(storage, create=False), "gpu").get_trials():
            row = trial_row(trial).to_dict()
            names = ("layout", "state", "map", "memory_predicted_gib", "memory_peak_gib")
            yield {**{name: row.get(name) for name in names}, "search_s": round(elapsed_s, 1)}


def _command(*words: str) -> None:
    """Run `nas`. It ends with this program: an exception in `run` kills it."""
    program = [sys.executable, "-c", "from nas.cli.main import main; main()"]
    subprocess.run([*program, *words], check=True, stdout=subprocess.DEVNULL)


def _shape_line(row: Row) -> str:
    ratio = row["reserved_bytes"] / row["peak_bytes"]
    sizes = f"{gib(row['peak_bytes'])} GiB allocated, {gib(row['reserved_bytes'])} reserved"
    kind = "expandable" if row["expandable_segments"] else "fixed"
    return f"{kind:10} segments: {sizes} ({ratio:.2f}), {row['elapsed_s']:.1f} s"


PARTS = {
    "memory": Part(0.42, memory_rows, memory.line),
    "training": Part(0.22, training_rows, training.line),
    "shapes": Part(0.08, shape_rows, _shape_line),
    "evaluation": Part(
        0.08,
        evaluation_rows,
        lambda row: f"{row['detector']:18} {row['images_per_s']:8.2f} images/s",
    ),
    "search": Part(
        0.2,
        search_rows,
        lambda row: ", ".join(f"{name} {value}" for name, value in row.items()),
    ),
}


class OutOfTime(Exception):
    """The time of a part is over."""


def measured(part: Part, seconds: float, *, short: bool) -> Iterator[Row]:
    """Rows of a part, for as long as it may take.

    Raises:
        OutOfTime: there would have been more.
    """

    def stop(*_: object) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield from part.rows(short)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--short", action="store_true", help="a few small rows of each part")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.short:
        sys.exit("no GPU here: --short shows that the program runs")
    content = _about(arguments)
    shares = sum(PARTS[name].share for name in arguments.parts)
    started, end_s = time.monotonic(), 0.0
    for name in arguments.parts:
        end_s += 60 * arguments.minutes * PARTS[name].share / shares
        rows = content["parts"].setdefault(name, [])
        print(f"# {name}", flush=True)
        try:
            for row in measured(
                PARTS[name], started + end_s - time.monotonic(), short=arguments.short
            ):
                rows.append(row)
                print(PARTS[name].line(row), flush=True)
                _write(arguments.out, content)
        except OutOfTime:
            content["out_of_time"].append(name)
            print(f"{name}: out of time", flush=True)
        _write(arguments.out, content)
    print(f"{time.monotonic() - started:.0f} s")


def _about(arguments: argparse.Namespace) -> Row:
    return {
        "command": " ".join(["python", *sys.argv]),
        **hardware(torch.device(default_device())),
        "short": arguments.short,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "out_of_time": [],
        "parts": {},
    }


def _write(path: Path | None, content: Row) -> None:
    if path:
        path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
