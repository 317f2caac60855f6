"""A time limit divided, the clock of a search, and the time that commands took; worked out by
hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from helpers.untrained import Driver, report
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nas.errors import OutOfTime
from nas.planning.lengthening import with_epochs
from nas.search.forecast.runtime_model import CandidateCost
from nas.search.time_limit.clock import SearchClock
from nas.search.time_limit.division import Wanted, divide, reserve_s
from nas.search.time_limit.plan import TimePlan, Typical, earlier_s
from nas.search.time_limit.planning import ray_start_s
from nas.study.time_account import TimeAccount, spent_s
from search_spaces.layout import Layout
from workers.backend import TrialEnd, tell

COST = CandidateCost(begin_s=2.0, train_s=8.0, epoch_s=10.0, end_s=0.0)


class Clock:
    """A clock that a test sets."""

    now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_reserve_has_room_for_onnx_from_an_hour_on():
    assert reserve_s(300.0) == 16.0
    assert reserve_s(3600.0) == 10 + 72 + 180


def test_half_is_for_candidates_of_fewer_epochs_half_for_the_winner():
    """516 s, of which 16 are kept: 250 are the search's. Eight candidates end in them if one takes
    31.25 s, 2 to begin and 10 an epoch: of two epochs. But a quarter of 20 is five.
    """
    found = divide(300.0, 516.0, COST, Wanted(epochs=20))
    assert (found.epochs, found.candidates) == (5, 4)  # of 52 s
    assert (found.search_s, found.train_s, found.reserve_s) == (250.0, 250.0, 16.0)
    assert found.room_s == 250.0
    assert found.full_epochs == pytest.approx(24.8)
    assert "to train the best in full (about 25 epochs)" in found.describe()
    longer = divide(300.0, 16 + 2 * 8 * 102.0, COST, Wanted(epochs=20))
    assert (longer.epochs, longer.candidates) == (10, 8)
    longest = divide(300.0, 16 + 2 * 12 * 202.0, COST, Wanted(epochs=20))
    assert (longest.epochs, longest.candidates) == (20, 12)


def test_two_at_once_are_twice_as_many():
    found = divide(300.0, 516.0, COST, Wanted(epochs=20, concurrent=2), worker_s=30.0)
    assert (found.epochs, found.candidates) == (5, 8)  # 220 s of two, after 30 s of their start
    assert (found.search_s, found.train_s) == (250.0, 250.0)


def test_workers_start_as_slowly_as_their_driver_did():
    assert ray_start_s(1.0) == 13.0  # which had been imported before
    assert ray_start_s(20.0) == 43.0
    assert ray_start_s(500.0) == 63.0  # most of which were for the data


def test_too_little_for_three_is_for_one():
    found = divide(300.0, 300.0, COST, Wanted(epochs=20))
    assert (found.candidates, found.search_s, found.train_s) == (0, 0.0, 284.0)
    assert found.room_s == 0.0
    assert "too short to compare 3 candidates, so one layout has all the time" in found.describe()
    assert divide(300.0, 300.0, COST, Wanted(epochs=20, trials=2)).candidates == 2
    assert divide(300.0, -5.0, COST, Wanted(epochs=20)).train_s == 0.0


def test_what_was_asked_for_stays():
    by_hand = Wanted(epochs=2, epochs_are_free=False, trials=5)
    found = divide(300.0, 1016.0, COST, by_hand)
    assert (found.epochs, found.candidates) == (2, 5)
    assert (found.search_s, found.train_s) == (110.0, 890.0)  # five of 22 s; the rest is one's
    assert found.room_s == 500.0  # should they take longer


def test_replicates_have_their_time():
    """250 s are eleven trainings of 22 s, of which six are beside the candidates."""
    wanted = Wanted(epochs=2, epochs_are_free=False, beside=6)
    found = divide(300.0, 516.0, COST, wanted)
    assert (found.candidates, found.beside) == (5, 6)


def test_without_a_full_training_the_search_has_all():
    found = divide(300.0, 516.0, COST, Wanted(epochs=5, epochs_are_free=False, finish="export"))
    assert (found.candidates, found.search_s, found.train_s) == (9, 500.0, 0.0)


def test_a_search_that_goes_on_needs_no_three_more():
    found = divide(300.0, 140.0, COST, Wanted(epochs=5, epochs_are_free=False, trained=4))
    assert (found.candidates, found.search_s) == (1, 62.0)
    assert "about 1 more candidates of 5 epochs" in found.describe()
    done = divide(300.0, 516.0, COST, Wanted(epochs=5, trials=4, trained=4))
    assert (done.candidates, done.search_s, done.train_s) == (0, 0.0, 500.0)


def test_the_clock_begins_what_ends_in_time():
    now = Clock()
    clock = SearchClock(100.0, COST, epochs=2, now=now)  # of 22 s each
    now.now_s = 5078.0
    assert clock.may_begin()
    assert not clock.may_begin(beside=1)
    now.now_s = 5078.1
    assert not clock.may_begin()
    assert not SearchClock(0.0, COST, epochs=2, now=now).may_begin()


def test_the_clock_learns_from_what_candidates_took():
    now = Clock()
    clock = SearchClock(100.0, COST, epochs=2, now=now)
    slow = replace(report(0.5, 1), train_s=20.0, elapsed_s=32.0)
    clock.hear(0, slow)  # 2 s to begin, 30 for an epoch
    assert clock.candidate_s == 62.0
    clock.hear(1, replace(slow, elapsed_s=22.0))
    assert clock.candidate_s == 52.0
    now.now_s = 5080.0
    assert clock.may_go_on(0)  # until 5110, when what runs is stopped
    now.now_s = 5080.1
    assert not clock.may_go_on(0)
    assert clock.may_go_on(1)


def plan(now: Clock, search_s: float) -> TimePlan:
    division = divide(300.0, 516.0, COST, Wanted(epochs=2))
    typical = Typical(Layout.parse("C1-C1-T2-T1@16"), COST, 8)
    clock = SearchClock(search_s, COST, epochs=2, now=now)
    return TimePlan(division, typical, clock, "token", 0.0, 0.0, 0.0)


def test_a_search_ends_with_its_time_and_what_runs_waits_for_the_next(tmp_path: Path):
    now, memory = Clock(), InMemoryStorage()
    planned = plan(now, 50.0)
    driver = Driver(tmp_path, memory=memory, plan=planned)
    driver.train(0.5)
    second = driver.study.ask()
    assert second
    now.now_s = 5060.0  # it may not end another epoch before it would be stopped
    assert not driver.study.report(second.number, report(0.4, 1, train_s=6.0, elapsed_s=8.0))
    assert driver.trial(second.number).state == TrialState.RUNNING
    assert driver.study.ask() is None
    assert driver.study.finished
    assert driver.kinds()[-1] == "halted"

    later = Driver(tmp_path, memory=memory)  # without a limit
    adopted = later.study.ask()
    assert adopted
    assert adopted.number == second.number
    assert not later.study.report(adopted.number, report(0.6, 2))
    assert later.trial(second.number).state == TrialState.COMPLETE


def test_time_of_commands_counts_once():
    assert spent_s([]) == 0.0
    assert spent_s([(10.0, 30.0), (100.0, 110.0)]) == 30.0
    assert spent_s([(20.0, 40.0), (10.0, 30.0), (22.0, 25.0)]) == 30.0


def test_commands_are_noted_in_the_study():
    study, now = optuna.create_study(), Clock()
    assert earlier_s(None) == earlier_s(study) == 0.0
    account = TimeAccount(study, "a", 4990.0, now)
    account.note()
    assert earlier_s(study) == 10.0
    now.now_s = 5004.0
    account.note()  # too soon after the last
    assert earlier_s(study) == 10.0
    account.note(at_once=True)
    assert earlier_s(study) == 14.0
    now.now_s = 6000.0
    TimeAccount(study, "b", 5990.0, now).note()
    assert earlier_s(study) == 24.0


def test_what_depends_on_the_epochs_follows_them(tmp_path: Path):
    asked = Driver(tmp_path, memory=InMemoryStorage(), **{"recipe.decay_epochs": [1]}).spec
    assert with_epochs(asked, 8, 64, "why").recipe.decay_epochs == (4,)
    planned = asked.model_copy(update={"plan": {"recipe.ema": "x", "recipe.epochs": "y"}})
    averaged = planned.recipe.model_copy(update={"ema": 0.9, "batch": 4})
    planned = planned.model_copy(update={"recipe": averaged})
    longer = with_epochs(planned, 50, 64, "why")  # 800 steps, of which a twentieth are 40
    assert longer.recipe.ema == 1 - 1 / 40
    assert longer.plan["recipe.epochs"] == "why"
    assert with_epochs(asked, 50, 64, "why").recipe.ema == asked.recipe.ema


def test_a_training_that_was_stopped_in_the_middle_waits_for_the_next(tmp_path: Path):
    driver = Driver(tmp_path, memory=InMemoryStorage(), plan=plan(Clock(), 50.0))
    assignment = driver.study.ask()
    assert assignment
    ending = TrialEnd.of(OutOfTime("the time of the search is over"))
    assert not tell(driver.study, assignment.number, ending)
    assert driver.trial(assignment.number).state == TrialState.RUNNING
    assert not driver.study.is_running(assignment.number)
    assert driver.study.halted_reason is None
