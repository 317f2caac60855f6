"""Made-up truths: their spread, what each is about, and that a search on one ends with regrets."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tables import PROGRAMS, program, table_of

from search_spaces.loading import space_from_dict


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch: pytest.MonkeyPatch):
    """Python puts a script's folder in front of the path."""
    monkeypatch.syspath_prepend(PROGRAMS)


@pytest.mark.parametrize(
    "truth", ["additive", "interactions", "rough", "small is better", "one pattern fails"]
)
def test_every_truth_has_the_spread_that_is_told_and_shows_it_with_noise(truth: str):
    made_up = program("made_up")
    table, means = made_up.made_up(table_of(), truth, 0)
    assert len(means) == 1350
    assert np.mean(means) == pytest.approx(0.30)
    assert np.std(means) == pytest.approx(0.023)
    shown = np.array([each.map[0] for each in table.runs])
    assert np.std(shown - means) == pytest.approx(0.015, rel=0.1)
    assert made_up.made_up(table_of(), truth, 1)[1] != means


def test_small_is_better_where_that_is_the_truth():
    made_up = program("made_up")
    layouts = list(space_from_dict(made_up.SPACE, "test"))
    sizes = made_up.Described(layouts).sizes.sum(axis=1)
    for seed in range(3):
        _, means = made_up.made_up(table_of(), "small is better", seed)
        assert np.corrcoef(sizes, means)[0, 1] < -0.3


def test_regret_never_rises_where_a_training_shows_the_truth(monkeypatch: pytest.MonkeyPatch):
    made_up = program("made_up")
    monkeypatch.setattr(made_up, "NOISE", 0.0)
    monkeypatch.setattr(made_up, "TRAININGS", (1, 3, 8))
    table, means = made_up.made_up(table_of(), "additive", 0)
    found = made_up.regrets(table, means, "random", seed=0)
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] >= 0
    possible = [100 * (max(means) - mean) for mean in means]
    assert all(min(abs(each - one) for one in possible) < 1e-3 for each in found)
