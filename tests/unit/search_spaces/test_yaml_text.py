"""YAML that is read: values of a size that the text shows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from nas.config.parsing import read_yaml
from nas.errors import SpecError
from search_spaces.yaml_text import MOST_DEPTH, parse_yaml

GROWING = "study: [&b0 [l,l,l,l,l,l,l,l,l,l], " + ", ".join(
    f"&b{n} [{', '.join([f'*b{n - 1}'] * 10)}]" for n in range(1, 11)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("study: 2024-02-30", {"study": "2024-02-30"}),
        ("study: 2024-02-20 10:00:00", {"study": "2024-02-20 10:00:00"}),
        ("", None),
        ("n: 0x" + "f" * 900, {"n": 16**900 - 1}),
        ("n: -1_000", {"n": -1000}),
    ],
)
def test_values(text: str, value: object):
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GROWING + "]", "an alias "),
        ("[" * 20_000, f"more than {MOST_DEPTH} levels|maximum nesting depth"),
        ("[" * 200, f"more than {MOST_DEPTH} levels"),
        ("n: " + "7" * 5000, "a number of more than 1,000 digits"),
        ("n: 0x" + "f" * 5000, "a number of more than 1,000 digits"),
        ("n: 1" + ":59" * 100_000, "a number of more than 1,000 digits"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: &x 1\nb: *x", "write the value out"),
        pytest.param("a: [" + "{}," * 5_000_000 + "]", "more than 300,000 values", id="many"),
        pytest.param("- ab\n" * 3_000_000, "more than 300,000 values", id="lines"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str):
    started = time.process_time()
    with pytest.raises(yaml.YAMLError, match=said):
        parse_yaml(text)
    assert time.process_time() - started < 5
    path = tmp_path / "request.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"request\.yaml' is not YAML: "):
        read_yaml(path)


def test_categories_by_the_hundred_thousand():
    names = [f"class {number}" for number in range(100_000)]
    started = time.process_time()
    assert parse_yaml("names:\n" + "".join(f"- {name}\n" for name in names)) == {"names": names}
    assert time.process_time() - started < 15


def test_the_same_as_safe_yaml_of_our_own_files():
    root = Path(__file__).parents[3]
    files = [*root.glob("examples/**/*.yaml"), *root.glob("nas/**/*.yaml")]
    assert len(files) > 5
    for path in files:
        assert parse_yaml(path.read_text()) == yaml.safe_load(path.read_text())
