"""What the bar of a training says while epochs go by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from nas.cli.progress import EpochProgress


def test_epochs_are_counted_whether_they_are_scored_or_not():
    progress: Any = EpochProgress(quiet=True)
    progress.on_begin("a layout", 9)
    seen = []
    for epoch in (1, 2, 3, 4):
        for step in (1, 2):
            progress.on_step(step, 2, 0.5)
            seen.append(progress.epoch)
        if epoch == 3:
            metrics = SimpleNamespace(map=0.1, map_50=0.2, map_segm=None)
            progress.on_report(SimpleNamespace(epoch=3, epochs=9, loss=0.5, metrics=metrics))
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4]
