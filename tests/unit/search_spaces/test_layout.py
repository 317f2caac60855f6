"""The grammar: what parses, what prints, what is the same network, what is refused and in which
words.
"""

from __future__ import annotations

import itertools
import random

import pytest

from search_spaces.errors import LayoutError
from search_spaces.layout import Layout, Stage, doubled, largest_divisor


def random_layout(rng: random.Random) -> Layout:
    widths = (
        doubled(4 * rng.randint(1, 40))
        if rng.random() < 0.5
        else tuple(4 * rng.randint(1, 300) for _ in range(4))
    )
    stages = tuple(Stage(rng.choice("CT"), rng.randint(1, 40), width) for width in widths)
    options = {"stem": rng.choice(["auto", "resnet", "patch"]), "head_dim": rng.choice([8, 32, 64])}
    options |= {
        "window": rng.choice([7, 8, 12]),
        "mlp_ratio": rng.choice([2, 4, 2.5]),
        "norm": rng.choice(["bn", "gn"]),
    }
    return Layout(stages, **options)


def test_text_form_and_long_form_are_complete():
    rng = random.Random(0)
    for _ in range(500):
        layout = random_layout(rng)
        assert Layout.parse(str(layout)) == layout
        assert Layout.from_dict(layout.to_dict()) == layout
        assert Layout.parse(str(layout)).layout_id == layout.layout_id


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        (
            ["C2-C2-T12-T4", "c2-c2-t12-t4@96", " C2-C2-T12-T4 ", "C2-C2-T12-T4@96,192,384,768"],
            "C2-C2-T12-T4",
        ),
        (
            ["C2-C2-T12-T4+stem=auto", "C2-C2-T12-T4+stem=resnet", "C2-C2-T12-T4+stem_width=64"],
            "C2-C2-T12-T4",
        ),
        (
            ["T2-T2-T6-T2+norm=gn", "T2-T2-T6-T2+stem=patch", "T2-T2-T6-T2+mlp_ratio=4.0"],
            "T2-T2-T6-T2",
        ),
        (
            ["C3-C4-C6-C3@256+window=12", "C3-C4-C6-C3@256+head_dim=64+mlp_ratio=2"],
            "C3-C4-C6-C3@256",
        ),
        (["C1-C1-T2-T1@16", "C1-C1-T2-T1@16+stem_width=16"], "C1-C1-T2-T1@16"),
        (
            ["T1-C1-C1-C1@16+head_dim=24", "T1-C1-C1-C1@16+head_dim=16", "T1-C1-C1-C1@16"],
            "T1-C1-C1-C1@16",
        ),
        (
            ["C2-C2-C14-T5@256,512,1024,768+norm=gn+window=8"],
            "C2-C2-C14-T5@256,512,1024,768+window=8+norm=gn",
        ),
    ],
)
def test_two_spellings_of_one_network_are_one_layout(spellings: list[str], canonical: str):
    layouts = {Layout.parse(text) for text in spellings}
    assert {str(layout) for layout in layouts} == {canonical}
    assert len({layout.layout_id for layout in layouts}) == 1


def test_different_networks_have_different_ids():
    texts = [
        "C2-C2-T12-T4",
        "C2-C2-T12-T4@128",
        "C2-C2-T12-T4+window=8",
        "C2-C2-T12-T4+norm=gn",
        "C2-C2-T12-T4+head_dim=64",
    ]
    texts += [
        "C2-C2-T12-T4+stem=patch",
        "C2-C2-T12-T4+stem_width=32",
        "C2-C2-T12-T4+mlp_ratio=2",
        "C2-C2-T12-T5",
    ]
    assert len({Layout.parse(text).layout_id for text in texts}) == len(texts)


def test_ids_are_stable():
    # Studies and checkpoints refer to them: the first twelve digits of the SHA-256 of the canonical
    # text.
    assert Layout.parse("C2-C2-T12-T4").layout_id == "cfa238674664"


def test_default_dimensions():
    layout = Layout.parse("C2-C2-T12-T4")
    assert layout.widths == (96, 192, 384, 768)
    assert layout.depths == (2, 2, 12, 4)
    assert layout.pattern == "C-C-T-T"
    assert [layout.heads(stage) for stage in (2, 3)] == [12, 24]
    assert (layout.stem, layout.stem_width, layout.window, layout.mlp_ratio) == ("resnet", 64, 7, 4)
    assert Layout.parse("T2-T2-T6-T2").stem == "patch"


def test_heads_divide_the_width():
    for width, limit in itertools.product(range(4, 400, 4), (8, 32, 64)):
        divisor = largest_divisor(width, limit)
        assert width % divisor == 0
        assert divisor <= limit
        assert not any(width % other == 0 for other in range(divisor + 1, min(limit, width) + 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "four stages|a kind"),
        ("C2-C2-T12", "4 stages.*got 3"),
        ("C2-C2-T12-T4-T1", "4 stages.*got 5"),
        ("X2-C2-T12-T4", "one of C, T; got 'X'"),
        ("C0-C2-T12-T4", "at least 1, at most 9999; got 0"),
        ("C-C-T-T", "kind .C or T. and a depth.*got 'C'"),
        ("C2-C2-T12-T4@97", "multiple of 4.*got 97"),
        ("C2-C2-T12-T4@96,192", "first stage or of all 4"),
        ("C2-C2-T12-T4@", "first stage or of all 4"),
        ("C2-C2-T12-T4+windw=8", "one of .*did you mean 'window'"),
        ("C2-C2-T12-T4+window", "name=value"),
        ("C2-C2-T12-T4+window=8+window=7", "written once"),
        ("C2-C2-T12-T4+window=1", "at least 2; got 1"),
        ("C2-C2-T12-T4+window=x", "must be a number; got 'x'"),
        ("C2-C2-T12-T4+window=inf", "must be a number"),
        ("C2-C2-T12-T4+mlp_ratio=nan", "must be a number"),
        ("C2-C2-T12-T4+norm=ln", "norm must be one of bn, gn"),
        ("C2-C2-T12-T4+stem=conv", "stem must be one of"),
        ("T2-T2-T6-T2+stem_width=32", "stem_width is free only.*must be 96"),
    ],
)
def test_refusals_state_rule_and_value(text: str, words: str):
    with pytest.raises(LayoutError, match=words):
        Layout.parse(text)


@pytest.mark.parametrize(
    ("long", "words"),
    [
        ({}, "needs `stages`"),
        ({"stages": [{"kind": "C", "depth": 1}] * 3}, "4 stages"),
        ({"stages": [{"kind": "C", "depth": 1}] * 5}, "4 stages"),
        ({"stages": [{"kind": "C"}] * 4}, "kind, depth and perhaps width"),
        ({"stages": [{"kind": "C", "depth": True}] * 4}, "whole number of blocks"),
        ({"stages": [{"kind": "C", "depth": 10_000}] * 4}, "at most 9999; got 10000"),
        ({"stages": [{"kind": "C", "depth": 1, "width": 2**40}] * 4}, "at most 99999; got"),
        (
            {"stages": [{"kind": "C", "depth": 1}] * 4, "channels": "96"},
            "channels must be a whole number",
        ),
        (
            {"stages": [{"kind": "C", "depth": 1}] * 4, "dept": 1},
            "a key of a layout must be one of",
        ),
    ],
)
def test_long_form_refusals(long: dict, words: str):
    with pytest.raises(LayoutError, match=words):
        Layout.from_dict(long)


def test_long_form_with_channels():
    stages = [{"kind": kind, "depth": 2} for kind in "CCTT"]
    assert Layout.from_dict({"stages": stages, "channels": 128}) == Layout.parse("C2-C2-T2-T2@128")
