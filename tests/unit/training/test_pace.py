"""A training by the clock: how many steps fit, and the schedule over them; worked out by hand."""

from __future__ import annotations

import math

import pytest

from nas.config.recipe import Recipe
from nas.training.lr_schedule import lr_at
from nas.training.pace import Pace, TimeSlot, fitting_steps


def recipe(**keys: object) -> Recipe:
    return Recipe.model_validate(
        {"epochs": 4, "image_size": 64, "batch": 4, "lr": 0.1, "schedule": "cosine", **keys}
    )


class Clock:
    """A clock that a test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("left_s", "steps"),
    [
        (12.0, 10),  # ten steps and their scoring, exactly
        (11.9, 9),  # nine, and the scoring
        (24.0, 20),
        (30.0, 20 + 4),  # 6 s more: four steps and another scoring
        (27.0, 20),  # 3 s more: one step and a scoring, which are not worth it
        (1.0, 1),  # at least one, however little there is
        (-5.0, 1),
    ],
)
def test_steps_that_fit(left_s: float, steps: int):
    """Ten steps of a second make an epoch, whose scoring takes two."""
    assert fitting_steps(left_s, step_s=1.0, score_s=2.0, steps_per_epoch=10) == steps


def test_the_plan_follows_the_clock():
    clock = Clock()
    pace = Pace(TimeSlot(ends_at=1040.0, step_s=1.0, score_s=2.0, end_s=4.0), clock)
    pace.plan(0, 0, 10, recipe())  # 36 s: three epochs of 12
    assert (pace.epochs, pace.steps) == (3, 10)
    clock.now_s = 1022.0  # the first epoch took 22 s instead of 12: two seconds a step
    pace.took(step_s=2.0)
    pace.plan(1, 0, 10, recipe())  # 14 s: six steps of 2 and the scoring
    assert (pace.epochs, pace.steps) == (2, 6)
    clock.now_s = 1033.9
    assert not pace.is_over()
    clock.now_s = 1034.0  # two seconds of scoring and four of the end are left
    assert pace.is_over()


def test_what_is_done_of_an_epoch_is_not_trained_again():
    pace = Pace(TimeSlot(ends_at=1006.0, step_s=1.0, score_s=2.0), Clock())
    pace.plan(5, 4, 10, recipe())  # of the sixth epoch four steps: 6 s are four more and a scoring
    assert (pace.epochs, pace.steps) == (6, 8)
    pace.slot = TimeSlot(ends_at=1000.0, step_s=1.0, score_s=2.0)
    pace.plan(5, 4, 10, recipe())
    assert (pace.epochs, pace.steps) == (6, 5)


def test_an_epoch_without_a_score_takes_its_steps_alone():
    pace = Pace(TimeSlot(ends_at=1055.0, step_s=1.0, score_s=5.0), Clock())
    pace.plan(0, 0, 10, recipe(eval_every=5))  # five epochs of 11 s on average
    assert (pace.epochs, pace.steps) == (5, 10)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_the_schedule_is_stretched_over_the_steps_that_fit(schedule: str):
    asked = recipe(schedule=schedule, decay_epochs=[2, 3], warmup_steps=4, warmup_share=1.0, lr=0.5)
    pace = Pace(TimeSlot(ends_at=1096.0, step_s=1.0, score_s=2.0), Clock())
    rates = []
    for epoch in range(8):  # twice as many as the recipe's four
        pace.took(step_s=1.0)
        pace.slot = TimeSlot(1096.0 - 12 * epoch, 1.0, 2.0)
        pace.plan(epoch, 0, 10, asked)
        assert pace.epochs == 8
        rates += pace.learning_rates(epoch, 10, asked, 0)
    assert rates == pytest.approx([lr_at(step / 2, 10, asked) for step in range(80)])


def test_a_cosine_ends_at_the_bottom_in_a_part_of_an_epoch():
    asked = recipe(epochs=20)
    pace = Pace(TimeSlot(ends_at=1008.0, step_s=1.0, score_s=2.0), Clock())
    pace.plan(0, 0, 10, asked)
    rates = pace.learning_rates(0, 10, asked, 0)
    expected = [0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert rates == pytest.approx(expected)
