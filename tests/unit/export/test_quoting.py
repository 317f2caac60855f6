"""Any text as a name in generated files: it stays that text, and is never code or markup."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest

from nas.export.mmdetection.modules import classes_text
from nas.export.quoting import markdown_text, python_text

HOSTILE = [
    "",
    "{{$X:.*\\}}",
    ', open("PWNED","w"))#',
    '"""',
    "'\\",
    "{{ fileDirname }}",
    "_base_",
    "${HOME}",
    "\ud800",
    "a\nb\r\x00",
    "\u202eexe.py",
    "école 日本 🙂",
]


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    pieces = ["{{", "}}", "$X", ":", "\\", '"', "'", "#", "\n", "{", "(", "a", "é", "\U0001f600"]
    return ["".join(rng.choices(pieces, k=rng.randrange(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_literal_is_the_text(text: str):
    assert ast.literal_eval(python_text(text)) == text


def test_any_text_is_a_literal_without_what_templates_look_for():
    for text in texts(5000):
        literal = python_text(text)
        assert ast.literal_eval(literal) == text
        assert literal.isascii()
        assert not set("{}$'\n") & set(literal)
        assert '"' not in literal[1:-1]


def test_mmengine_reads_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = pytest.importorskip("mmengine.config")
    monkeypatch.chdir(tmp_path)
    names = tuple(name for name in (*HOSTILE, *texts(300)) if name != "\ud800")
    (tmp_path / "names.py").write_text(f"classes = {classes_text(names)}\n")
    loaded: Any = config.Config.fromfile(tmp_path / "names.py")
    assert tuple(loaded.classes) == names
    assert [path.name for path in tmp_path.iterdir()] == ["names.py"]


def test_markdown_shows_the_text_and_no_more():
    markdown = pytest.importorskip("markdown_it")
    for text in [*HOSTILE, "<script>alert(1)</script>", "![x](http://y/z)", "[a](javascript:b)"]:
        html = markdown.MarkdownIt().render("- " + markdown_text(text))
        plain = html.replace("&lt;", "").replace("&gt;", "")
        assert not any(tag in plain for tag in ("<script", "<img", "<a ", "<code", "<em"))


def test_markdown_stays_a_cell():
    assert markdown_text("a\nb|c") == "a b\\|c"
    assert markdown_text("plain words, 1.5 and a_b") == "plain words, 1.5 and a_b"
