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
    rates = pace.begin_epoch(0, 0, 10, recipe(), 0)  # 36 s: three epochs of 12
    assert (pace.epochs, len(rates)) == (3, 10)
    clock.now_s = 1002.0
    _ = rates[2]  # of two steps nothing is believed yet
    assert pace.step_s == 1.0
    clock.now_s = 1010.0  # five steps took 2 s each, so scoring is to take 4 and the end 8
    _ = rates[5]
    assert (pace.step_s, pace.epochs, len(rates)) == (2.0, 1, 10)  # 32 s: one of 24, no part of 8
    clock.now_s = 1018.0
    pace.begin_scoring()
    clock.now_s = 1021.0  # with what follows it took three seconds
    rates = pace.begin_epoch(1, 0, 10, recipe(), 0)  # 11 s: four steps of 2 and the scoring
    assert (pace.epochs, len(rates)) == (2, 4)
    clock.now_s = 1028.9
    assert not pace.is_over()
    clock.now_s = 1029.0  # three seconds of scoring and eight of the end are left
    assert pace.is_over()


def test_an_epoch_that_is_quicker_than_predicted_grows():
    clock = Clock()
    pace = Pace(TimeSlot(ends_at=1020.0, step_s=4.0, score_s=2.0), clock)
    rates = pace.begin_epoch(0, 0, 10, recipe(), 0)
    assert (pace.epochs, len(rates)) == (1, 4)
    clock.now_s = 1003.0
    _ = rates[
        3
    ]  # a second each: 17 s are seven more, the scoring, and six of the next with its own
    assert (pace.epochs, len(rates)) == (2, 10)


def test_what_is_done_of_an_epoch_is_not_trained_again():
    pace = Pace(TimeSlot(ends_at=1006.0, step_s=1.0, score_s=2.0), Clock())
    # Of the sixth epoch four steps are done: 6 s are four more and a scoring.
    assert len(pace.begin_epoch(5, 4, 10, recipe(), 0)) == 8
    assert pace.epochs == 6
    pace.slot = TimeSlot(ends_at=1000.0, step_s=1.0, score_s=2.0)
    assert len(pace.begin_epoch(5, 4, 10, recipe(), 0)) == 5


def test_an_epoch_without_a_score_takes_its_steps_alone():
    pace = Pace(TimeSlot(ends_at=1055.0, step_s=1.0, score_s=5.0), Clock())
    pace.begin_epoch(0, 0, 10, recipe(eval_every=5), 0)  # five epochs of 11 s on average
    assert pace.epochs == 5


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_the_schedule_is_stretched_over_the_steps_that_fit(schedule: str):
    """Over twice as many as the recipe has, if every step takes a second and every scoring two."""
    asked = recipe(schedule=schedule, decay_epochs=[2, 3], warmup_steps=4, warmup_share=1.0, lr=0.5)
    clock = Clock()
    pace = Pace(TimeSlot(ends_at=1096.0, step_s=1.0, score_s=2.0), clock)
    found = []
    for epoch in range(8):
        rates, step = pace.begin_epoch(epoch, 0, 10, asked, 0), 0
        while step < len(rates) and not pace.is_over():
            found.append(rates[step])
            step, clock.now_s = step + 1, clock.now_s + 1.0
        assert (pace.epochs, step) == (8, 10)
        clock.now_s += 2.0
    assert found == pytest.approx([lr_at(step / 2, 10, asked) for step in range(80)])


def test_a_cosine_ends_at_the_bottom_in_a_part_of_an_epoch():
    asked = recipe(epochs=20)
    pace = Pace(TimeSlot(ends_at=1008.0, step_s=1.0, score_s=2.0), Clock())
    rates = pace.begin_epoch(0, 0, 10, asked, 0)
    expected = [0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(3)]
    assert [rates[step] for step in range(3)] == pytest.approx(expected)
    assert len(rates) == 6
