"""How long a training step takes on the CPU, by how PyTorch's threads wait for each other.

    python benchmarks/threads.py --busy 3 --out benchmarks/results/threads.json

Each way of waiting is an environment of a process of its own, one after the other, `--rounds` times
in turn: on the machine as it is, then beside `--busy` programs that compute without end. Run it on
an idle machine. `spin 10000` is what `import nas` sets where the environment says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAYS = {
    "as GNU's OpenMP does": {"GOMP_SPINCOUNT": "300000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
LAYOUT, IMAGES, SIZE, CHANNELS = "C1-C1-C3-T1@24", 4, (256, 320), 64


def step_s(seconds: float) -> float:
    """Mean seconds of a training step with all threads that PyTorch takes by itself."""
    import torch

    from nas.config.sections import DetectorSpec
    from nas.models.detectors import build_detector
    from search_spaces.layout import Layout

    torch.manual_seed(0)
    spec = DetectorSpec(name="fcos", channels=CHANNELS)
    detector = build_detector(Layout.parse(LAYOUT), spec, num_classes=3).train()
    images = [torch.rand(3, *SIZE) for _ in range(IMAGES)]
    boxes, labels = torch.tensor([[10.0, 10.0, 80.0, 90.0]]), torch.tensor([1])
    targets = [{"boxes": boxes, "labels": labels}] * IMAGES

    def step() -> None:
        torch.stack([*detector(images, targets).values()]).sum().backward()
        detector.zero_grad()

    step()  # what is made once
    began_s, steps = time.perf_counter(), 0
    while time.perf_counter() - began_s < seconds:
        step()
        steps += 1
    return (time.perf_counter() - began_s) / steps


def measured(way: dict[str, str], seconds: float) -> float:
    """`step_s` in a process of its own."""
    command = [sys.executable, __file__, "--step", str(seconds)]
    return float(subprocess.check_output(command, env={**os.environ, **way}, text=True))


def rounds(arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step of each way, the ways in turn."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.rounds):
        for name, way in WAYS.items():
            found[name].append(measured(way, arguments.seconds))
    return {name: round(statistics.median(times), 3) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--step", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.step:
        print(step_s(arguments.step))
        return
    result: dict[str, Any] = {"idle": rounds(arguments)}
    endless = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(endless) for _ in range(arguments.busy)]
    try:
        result[f"beside {arguments.busy} programs"] = rounds(arguments)
    finally:
        for other in others:
            other.kill()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    result |= {"seconds of": f"a step of {LAYOUT}, {IMAGES} images of {SIZE}", "machine": machine}
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
