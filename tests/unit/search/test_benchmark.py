"""What is measured of a layout, on the user's own images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.config.spec import SearchSpec, load_spec
from nas.data.image_cache import PixelCache
from nas.data.splits import Splits
from nas.errors import NonFiniteLoss
from nas.planning.adaptation import adapt_to_data
from nas.search.forecast.benchmark import SCORED, STEPS, few_images, read_s, time_layouts
from nas.search.forecast.runtime_model import PARTS
from nas.training.candidate import Candidate
from search_spaces.layout import Layout

LAYOUT = Layout.parse("C1-C1-T1-T1@16")


@pytest.fixture(scope="module")
def request_and_splits(digits: Path) -> tuple[SearchSpec, Splits]:
    flags = {
        "data.root": str(digits),
        "space": "tiny",
        "detector": "fcos",
        "recipe.image_size": 64,
        "recipe.batch": 2,
    }
    spec, splits, _ = adapt_to_data(load_spec(None, flags))
    return spec, splits


def candidate(spec: SearchSpec) -> Candidate:
    return Candidate(
        LAYOUT,
        spec.detector,
        spec.recipe,
        spec.calibration,
        10,
        0,
        Path("nowhere"),
        cache_bytes=2**20,
    )


def test_a_layout_is_measured(request_and_splits: tuple[SearchSpec, Splits]):
    spec, splits = request_and_splits
    few, threads = few_images(splits, spec.recipe.batch), torch.get_num_threads()
    assert len(few.train.images) == STEPS * spec.recipe.batch
    assert len(few.val.images) == min(SCORED, len(splits.val.images))
    told: list[tuple[int, int]] = []
    (timing,), start_s = time_layouts(
        [(candidate(spec), 10, 20)],
        few,
        at_once=1,
        threads=1,
        on_timing=lambda *counts: told.append(counts),
    )
    assert told == [(1, 1)]
    assert (start_s, timing.layout, timing.flops, timing.memory_bytes) == (0.0, str(LAYOUT), 10, 20)
    assert all(getattr(timing, part) > 0 for part in PARTS)
    assert not Path("nowhere").exists()
    assert torch.get_num_threads() == threads


def test_what_diverges_is_left_out(request_and_splits: tuple[SearchSpec, Splits]):
    spec, splits = request_and_splits
    few, sound = few_images(splits, spec.recipe.batch), candidate(spec)
    wild = replace(
        sound,
        recipe=spec.recipe.model_copy(update={"lr": 1e30, "warmup_steps": 0, "clip_norm": None}),
    )
    timings, _ = time_layouts(
        [(wild, 1, 1), (sound, 2, 2)], few, at_once=1, threads=1, on_timing=lambda *counts: None
    )
    assert [timing.flops for timing in timings] == [2]
    with pytest.raises(NonFiniteLoss, match="all 1 layouts"):
        time_layouts([(wild, 1, 1)], few, at_once=1, threads=1, on_timing=lambda *counts: None)


@pytest.mark.long
def test_layouts_are_measured_side_by_side(request_and_splits: tuple[SearchSpec, Splits]):
    spec, splits = request_and_splits
    few = few_images(splits, spec.recipe.batch)
    timings, start_s = time_layouts(
        [(candidate(spec), 10, 20)], few, at_once=2, threads=1, on_timing=lambda *counts: None
    )
    assert [timing.layout for timing in timings] == [str(LAYOUT)] * 2
    assert all(timing.step_s > 0 for timing in timings)
    assert start_s > 0


def test_only_images_that_are_not_kept_are_still_to_be_read(
    request_and_splits: tuple[SearchSpec, Splits],
):
    _, splits = request_and_splits
    cache = PixelCache(splits.train, 48, 80, limit_bytes=2**24)
    assert cache.cached_images == 0
    assert read_s(splits.train, 48, 80) > 0
    for index in range(len(splits.train.images)):
        cache.read(index)
    assert cache.cached_images == len(splits.train.images)
    assert read_s(splits.train, 48, 80) == 0
