from __future__ import annotations

from pathlib import Path

import pytest

from nas.config.sections import RunSpec
from nas.config.spec import load_spec
from nas.errors import SpecError
from nas.utils.formatting import GIB
from nas.utils.gpu_presence import has_hopper, smallest_card_bytes
from workers.resources import Node, TrialResources, plan, this_process


@pytest.mark.parametrize(
    ("run", "cpus", "gpus", "share"),
    [
        ({}, 2, 0, TrialResources(2, 1, 0.0)),
        ({}, 1, 0, TrialResources(1, 1, 0.0)),
        ({}, 64, 0, TrialResources(4, 16, 0.0)),
        ({}, 16, 1, TrialResources(1, 16, 1.0)),
        ({}, 32, 8, TrialResources(8, 4, 1.0)),
        ({"gpus_per_trial": 0.5}, 16, 2, TrialResources(4, 4, 0.5)),
        ({"gpus_per_trial": 0}, 16, 2, TrialResources(4, 4, 0)),
        ({"concurrent": 2}, 16, 8, TrialResources(2, 8, 1.0)),
        ({"concurrent": 3, "cpus_per_trial": 2}, 16, 0, TrialResources(3, 2, 0.0)),
    ],
)
def test_shares(run: dict, cpus: int, gpus: float, share: TrialResources):
    assert plan(RunSpec(**run), [Node(cpus, gpus)]) == share


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"gpus_per_trial": 1}, "at most the 0 GPUs of a machine; got 1"),
        ({"concurrent": 3}, "at most the 2 cores there are; got 3 x 1"),
        ({"cpus_per_trial": 4}, "at most the 2 cores"),
    ],
)
def test_more_than_there_is_is_refused(run: dict, words: str):
    with pytest.raises(SpecError, match=words):
        plan(RunSpec(**run), [Node(2)])


@pytest.mark.parametrize(
    ("budget_gib", "card_gib", "gpus", "share"),
    [
        # 16 GiB take 20 with the allocator's margin, 0.5 of workspaces and 0.75 of context: 21.25
        (16, 24, 1, TrialResources(1, 16, 1.0)),
        (4, 16, 1, TrialResources(2, 8, 0.5)),  # 6.25 GiB each
        (16, 80, 1, TrialResources(2, 8, 0.375)),
        (16, 80, 4, TrialResources(8, 2, 0.375)),  # two on each card, not ten on four
        (16, 141, 1, TrialResources(4, 4, 0.25)),
        (4, 80, 1, TrialResources(8, 2, 0.125)),
        (16, None, 2, TrialResources(2, 8, 1.0)),
    ],
)
def test_candidates_are_packed_by_the_budget(
    budget_gib: int, card_gib: int | None, gpus: int, share: TrialResources
):
    card = card_gib and card_gib * GIB
    assert plan(RunSpec(), [Node(16, gpus, card)], budget_gib * GIB) == share


@pytest.mark.parametrize("run", [{}, {"gpus_per_trial": 1}, {"gpus_per_trial": 2}])
@pytest.mark.parametrize("budget_gib", [15, 16, 24])
def test_a_budget_beyond_the_card_is_refused(run: dict, budget_gib: int):
    """A card of 16 GiB leaves 14.75, without any margin of the allocator, which takes a fifth."""
    with pytest.raises(
        SpecError,
        match=rf"budget of {budget_gib}.0 GiB takes {budget_gib + 1}\.\d+ GiB of a GPU at least.*"
        r"the smallest GPU has 16.0 GiB: lower budget.memory to 11.8GiB",
    ):
        plan(RunSpec(**run), [Node(8, 2, 80 * GIB), Node(8, 2, 16 * GIB)], budget_gib * GIB)


@pytest.mark.parametrize("run", [{}, {"gpus_per_trial": 1}])
def test_a_budget_that_only_just_holds_is_warned_of(run: dict):
    share = plan(RunSpec(**run), [Node(8, 1, 16 * GIB)], 12 * GIB)  # 13.25 to 16.25 GiB
    assert (share.concurrent, share.gpus) == (1, 1.0)
    assert "may run out of memory" in share.warning
    assert "budget.memory to 11.8GiB there is room" in share.warning
    assert not plan(RunSpec(**run), [Node(8, 1, 16 * GIB)], int(11.7 * GIB)).warning


def test_a_part_of_a_card_holds_less():
    half = RunSpec(gpus_per_trial=0.5)
    node = Node(8, 1, 16 * GIB)
    assert plan(half, [node], 5 * GIB) == TrialResources(2, 4, 0.5)  # 7.5 GiB
    assert "0.5 of the smallest GPU has 8.0 GiB" in plan(half, [node], 6 * GIB).warning
    with pytest.raises(SpecError, match="raise run.gpus_per_trial where it is below 1"):
        plan(half, [node], 7 * GIB)
    assert not plan(RunSpec(gpus_per_trial=0), [node], 99 * GIB).warning


def test_a_local_search_is_held_against_the_card(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.resources.gpu_count", lambda: 2)
    monkeypatch.setattr("workers.resources.smallest_card_bytes", lambda: 16 * GIB)
    assert this_process(4 * GIB).gpus == 1.0
    assert not this_process(4 * GIB).warning
    assert this_process(12 * GIB).warning
    with pytest.raises(SpecError, match="takes 25"):
        this_process(24 * GIB)


@pytest.mark.parametrize(("card_gib", "budget"), [(16, "11.8GiB"), (80, "63GiB"), (2, "0.6GiB")])
def test_an_automatic_budget_is_what_the_card_leaves(
    monkeypatch: pytest.MonkeyPatch, card_gib: int, budget: str
):
    """(card - 0.745 - 0.5) / 1.25, in tenths, which a whole card holds without a warning."""
    monkeypatch.setattr("nas.config.spec.has_gpu", lambda: True)
    monkeypatch.setattr("nas.config.spec.smallest_card_bytes", lambda: card_gib * GIB)
    keys = {"data.root": "data", "space": "tiny", "budget": "auto"}
    spec = load_spec(None, keys)
    assert str(spec.budget.memory) == budget
    card = [Node(8, 1, card_gib * GIB)]
    assert plan(RunSpec(gpus_per_trial=1), card, int(spec.budget.memory)).warning == ""
    with pytest.raises(SpecError, match="where candidates run on a cluster"):
        load_spec(None, {**keys, "run.cluster": "http://head:8265"})
    monkeypatch.setattr("nas.config.spec.smallest_card_bytes", lambda: None)
    with pytest.raises(SpecError, match="does not tell its size"):
        load_spec(None, keys)
    monkeypatch.setattr("nas.config.spec.has_gpu", lambda: False)
    assert str(load_spec(None, keys).budget.memory) == "16GiB"


def test_the_smallest_card_is_asked_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81559\necho 24564\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert smallest_card_bytes() == 24564 * 2**20
    tool.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert smallest_card_bytes() is None


@pytest.mark.parametrize(
    ("answer", "hopper"), [("8.9", False), ("7.5\n9.0", True), ("12.0", True), ("[N/A]", False)]
)
def test_the_generation_is_asked_of_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, hopper: bool
):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("nas.utils.gpu_presence.has_gpu", lambda: True)
    asked = has_hopper.__wrapped__
    assert asked() is hopper
    monkeypatch.setattr("nas.utils.gpu_presence.has_gpu", lambda: False)
    assert not asked()


def test_more_gpu_trials_than_gpus_is_refused():
    with pytest.raises(SpecError, match="run.concurrent must be at most 2"):
        plan(RunSpec(concurrent=3), [Node(8, 2)])


@pytest.mark.parametrize(
    ("run", "nodes", "share"),
    [
        ({}, [Node(1), Node(1)], TrialResources(2, 1, 0.0)),
        (
            {"concurrent": 3},
            [Node(8), Node(8)],
            TrialResources(3, 4, 0.0),
        ),  # five cores each would leave room for two
        (
            {},
            [Node(16, 2, 80 * GIB), Node(8, 1, 48 * GIB)],
            TrialResources(6, 4, 0.5),
        ),  # two on the smallest card
        ({"gpus_per_trial": 2}, [Node(16, 2), Node(16, 3)], TrialResources(2, 16, 2.0)),
    ],
)
def test_a_candidate_stays_on_one_machine(run: dict, nodes: list[Node], share: TrialResources):
    assert plan(RunSpec(**run), nodes, 16 * GIB) == share


def test_shares_that_no_machine_has():
    with pytest.raises(
        SpecError, match="at most the 4 cores there are, each within one of 2 machines; got 1 x 3"
    ):
        plan(RunSpec(concurrent=1, cpus_per_trial=3), [Node(2), Node(2)])
    with pytest.raises(SpecError, match="at most the 1 GPUs of a machine; got 2"):
        plan(RunSpec(gpus_per_trial=2), [Node(4, 1), Node(4, 1)])
