"""Equal memory: the solution against a search through the whole family, and the paper's own
example.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from nas.config.sections import DetectorSpec
from nas.profiling.memory import Training, predict_memory
from nas.search.equalizer import WIDTHS, Equalizer
from search_spaces.layout import Layout
from search_spaces.loading import load_space
from search_spaces.space import SearchSpace


def cost(layout: Layout) -> int:
    """Grows with every depth and width."""
    return sum(
        depth * (5 if stage.kind == "T" else 2) * stage.width
        for depth, stage in zip(layout.depths, layout.stages, strict=True)
    )


def equalizer(
    space: SearchSpace, budget: int, vary: str = "depth", tolerance: float = 0.05
) -> Equalizer:
    return Equalizer(space, budget, tolerance=tolerance, vary=vary, predict=cost)


def deepest(layout: Layout, space: SearchSpace, budget: int) -> Layout | None:
    """By trying every depth of the third stage, the fourth at its share."""
    best = None
    for depth in space.depths[2]:
        share = layout.depths[3] / layout.depths[2]
        last = min(space.depths[3], key=lambda choice: abs(choice - share * depth))
        stages = (
            *layout.stages[:2],
            replace(layout.stages[2], depth=depth),
            replace(layout.stages[3], depth=last),
        )
        if cost(tried := replace(layout, stages=stages)) <= budget:
            best = tried
    return best


@pytest.mark.parametrize("budget", [9_000, 20_000, 40_000])
def test_depth_is_the_largest_that_fits(budget: int):
    space = load_space("free")
    solver, solved = equalizer(space, budget), 0
    for layout in itertools.islice(space.shuffled(1), 200):
        found = solver.solve(layout)
        if budget * 0.95 <= cost(layout) <= budget:
            assert found == layout  # it uses the budget as it is
            continue
        best = deepest(layout, space, budget)
        expected = best if best and cost(best) >= budget * 0.95 else None
        assert found == expected
        solved += found is not None
        if found:
            assert found in space
            assert solver.solve(found) == found
            assert found.pattern == layout.pattern
    assert solved


def test_width_is_the_largest_that_fits():
    space, budget = load_space("paper"), 22_000
    solver = equalizer(space, budget, "width")
    layout = Layout.parse("C2-C2-T6-T2")
    options = [f"C2-C2-T6-T2@{width},{2 * width},384,768" for width in WIDTHS]
    fitting = [text for text in options if cost(Layout.parse(text)) <= budget]
    found = solver.solve(layout)
    assert found == Layout.parse(fitting[-1])
    assert found.stem_width == 64
    assert solver.solve(Layout.parse("T1-T1-T2-T1")) is None  # nothing to widen


def test_patterns_without_a_solution_are_listed_with_their_nearest():
    space = load_space("paper")
    largest = max(cost(layout) for layout in space if layout.pattern == "C-C-C-C")
    fits = {fit.pattern: fit for fit in equalizer(space, 2 * largest).patterns()}
    assert set(fits) == set(space.patterns)
    none = fits["C-C-C-C"]
    assert not none.solved
    assert none.peak_bytes == cost(none.layout) <= largest
    assert fits["T-T-T-T"].solved
    assert 1.9 * largest <= fits["T-T-T-T"].peak_bytes <= 2 * largest


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_the_papers_layout_uses_what_swin_t_does(detector: str):
    """Section 5.1.1 of the paper: C2-C2-T12-T4 at the memory of Swin-T."""
    training = Training((4, 3, 800, 1344))

    def predict(layout: Layout) -> int:
        return predict_memory(layout, DetectorSpec(name=detector), 80, training).peak_bytes

    budget = predict(Layout.parse("T2-T2-T6-T2"))
    solver = Equalizer(load_space("paper"), budget, tolerance=0.05, vary="depth", predict=predict)
    hybrid = Layout.parse("C2-C2-T12-T4")
    assert solver.solve(hybrid) == hybrid
    widened = Equalizer(load_space("paper"), budget, tolerance=0.05, vary="width", predict=predict)
    narrow = Layout.parse("C2-C2-C14-T5")
    assert predict(narrow) < 0.65 * budget
    assert (wide := widened.solve(narrow)) is not None
    assert 200 < wide.widths[0] < 300  # near ResNet's 256
