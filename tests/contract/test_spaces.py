"""Every search space, shipped or a user's own, keeps one contract."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import pytest

from search_spaces.errors import LayoutError, SpaceError
from search_spaces.layout import Layout
from search_spaces.loading import load_space, preset_names, space_from_dict
from search_spaces.space import SearchSpace

OWN = """
name: own
stages:
  - {kinds: [T, C], depths: [1, 3]}
  - {kinds: [C, T], depths: {low: 1, high: 2}}
  - {kinds: [T], depths: {low: 2, high: 6, step: 2}}
  - {kinds: [T], depths: [1]}
channels: [16, 32]
stems: [auto, patch]
conditions: [T never after C]
layout: {window: 8, norm: gn}
"""

FUNCTION = """
from search_spaces import SearchSpace

def make():
    return SearchSpace("made", kinds=(("C",), ("C",), ("T",), ("T",)),
        depths=((1,), (1, 2), (2, 4, 8), (1,)), channels=(16,))
"""


@pytest.fixture(params=[*preset_names(), "own.yaml", "my_space:make"])
def space(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SearchSpace:
    (tmp_path / "own.yaml").write_text(OWN)
    (tmp_path / "my_space.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return load_space(request.param)


def sample(space: SearchSpace, count: int = 300) -> list[Layout]:
    return list(itertools.islice(space.shuffled(seed=1), count))


def test_size_is_the_number_of_different_layouts(space: SearchSpace):
    layouts = list(space)
    assert (
        len(space)
        == len(layouts)
        == len(set(layouts))
        == len({layout.layout_id for layout in layouts})
    )


def test_shuffling_is_a_permutation_that_the_seed_decides(space: SearchSpace):
    assert set(space.shuffled(seed=1)) == set(space)
    assert sample(space) == sample(space)
    assert sample(space) != list(itertools.islice(space.shuffled(seed=2), 300))


def test_encode_is_the_inverse_of_decode(space: SearchSpace):
    for layout in sample(space):
        parameters = space.encode(layout)
        assert set(parameters) == set(space.parameters())
        assert space.decode(parameters) == layout
        assert layout in space


def test_every_choice_decodes_to_a_layout_that_meets_the_conditions(space: SearchSpace):
    names = space.parameters()
    for position in range(max(len(values) for values in names.values())):
        layout = space.decode(
            {name: values[position % len(values)] for name, values in names.items()}
        )
        assert layout.pattern in space.patterns
        assert all(
            depth in allowed for depth, allowed in zip(layout.depths, space.depths, strict=True)
        )


def test_survives_its_yaml_form(space: SearchSpace):
    assert space_from_dict(space.to_dict(), "again") == space


def test_nothing_is_shallower_than_shallowest(space: SearchSpace):
    shallowest = {
        (layout.pattern, layout.widths, layout.stem): layout.depths for layout in space.shallowest()
    }
    for layout in sample(space):
        smallest = shallowest[(layout.pattern, layout.widths, layout.stem)]
        assert all(mine >= least for mine, least in zip(layout.depths, smallest, strict=True))


def test_strangers_are_refused(space: SearchSpace):
    with pytest.raises(SpaceError, match="is not in space"):
        space.encode(Layout.parse("C99-C99-C99-C99@4"))
    with pytest.raises(SpaceError, match="must be one of"):
        space.decode(
            {**{name: values[0] for name, values in space.parameters().items()}, "depth_3": 1000}
        )
    with pytest.raises(SpaceError, match="also needs a value"):
        space.decode({})


def test_paper_space_is_table_3():
    paper = load_space("paper")
    assert set(paper.patterns) == {"C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T", "T-T-T-T"}
    assert len(paper) == 5 * 4 * 4 * 23 * 8
    for text in ("C2-C2-C16-C6", "C2-C2-C14-T5", "C2-C2-T12-T4", "C2-T2-T8-T3", "T2-T2-T6-T2"):
        assert Layout.parse(text) in paper


def test_scales_space_has_the_rows_of_table_4():
    scales = load_space("scales")
    for depths, channels in itertools.product(("T2-T2-T18-T2", "C2-C2-T36-T4"), (96, 128, 192)):
        assert Layout.parse(f"{depths}@{channels}") in scales


def test_free_and_tiny_spaces():
    free, tiny = load_space("free"), load_space("tiny")
    assert len(free.patterns) == 16
    assert Layout.parse("T2-C2-T2-C2") in free
    assert len(tiny) >= 200
    assert min(layout.widths[0] for layout in tiny) == 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("name: [", "is not YAML"),
        ("- 1", "must be a mapping"),
        (OWN.replace("channels", "chanels"), "did you mean 'channels'"),
        (
            OWN.replace("T never after C", "T before C"),
            "a condition must be one of C never after T",
        ),
        (OWN.replace("[T, C]", "[T, X]"), "kinds must be one of C, T; got 'X'"),
        (OWN.replace("depths: [1]", "depths: []"), "depths must be a list of whole numbers"),
        (
            OWN.replace("depths: [1]", "depths: {low: 3, high: 1}"),
            "depths must be a list of whole numbers",
        ),
        (OWN.replace("depths: [1]", "depths: {low: a, high: 1}"), "not well formed|whole numbers"),
        (
            OWN.replace("depths: [1]", "depths: {low: 1, high: 3, step: 0}"),
            "not well formed|whole numbers",
        ),
        (OWN.replace("depths: [1, 3]", "depths: [0, 3]"), "whole numbers from 1"),
        (OWN.replace("[16, 32]", "[16, 33]"), "multiple of 4"),
        (OWN.replace("window: 8", "windows: 8"), "a key of layout must be one of"),
        (OWN.replace("  - {kinds: [T], depths: [1]}\n", ""), "list of 4"),
        (
            OWN.replace("kinds: [T, C]", "kinds: [C]").replace("kinds: [C, T]", "kinds: [T]"),
            "no pattern",
        ),
    ],
)
def test_files_that_are_wrong_say_why(tmp_path: Path, change: str, words: str):
    path = tmp_path / "wrong.yaml"
    path.write_text(textwrap.dedent(change))
    with pytest.raises((SpaceError, LayoutError), match=words) as error:
        load_space(str(path))
    assert "wrong.yaml" in str(error.value) or "own" in str(error.value)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("papr", "did you mean 'paper'"),
        ("missing.yaml", "cannot be read"),
        ("no_such_module:make", "ModuleNotFoundError"),
        ("json:nothing", "AttributeError"),
        ("os:getpid", "must return a SearchSpace; got int"),
    ],
)
def test_references_that_lead_nowhere(reference: str, words: str):
    with pytest.raises(SpaceError, match=words):
        load_space(reference)


@pytest.mark.parametrize("reference", ["os:abort", "sys:exit", "my_space:make"])
def test_a_function_is_run_only_where_that_is_allowed(reference: str):
    with pytest.raises(SpaceError, match="would be run: --allow-code where you trust it"):
        load_space(reference, allow_code=False)


def test_a_function_that_ends_the_program_does_not():
    with pytest.raises(SpaceError, match="SystemExit"):
        load_space("sys:exit")
