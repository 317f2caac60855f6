"""Images that are decoded at a time: never more pixels together than allowed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nas.data.deep_images import DEEPEST, as_eight_bits, white_level
from nas.data.pixel_budget import PixelBudget


def test_no_more_pixels_than_allowed_and_everybody_has_a_turn():
    budget, lock = PixelBudget(100), threading.Lock()
    held: list[int] = []
    highest = [0]

    def decode(pixels: int) -> None:
        with budget.taken(pixels):
            with lock:
                held.append(min(pixels, 100))
                highest[0] = max(highest[0], sum(held))
            threading.Event().wait(0.001)
            with lock:
                held.remove(min(pixels, 100))

    rng = random.Random(0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [rng.choice([1, 30, 70, 100, 1000]) for _ in range(200)]))
    assert held == []
    assert 70 <= highest[0] <= 100


def test_room_comes_back_after_an_error():
    budget = PixelBudget(10)
    for _ in range(3):
        with pytest.raises(KeyError), budget.taken(10):
            raise KeyError


@pytest.mark.parametrize("brightest", [200, 1000, 4000, 60_000])
def test_eight_bits_by_the_formula(brightest: int):
    white = white_level(brightest)
    values = np.arange(DEEPEST + 1, dtype=np.int32).reshape(256, 256)
    expected = (np.minimum(values.astype(np.float64) / white, 1.0) * 255).round()
    assert np.array_equal(np.asarray(as_eight_bits(values, white))[..., 0], expected)
