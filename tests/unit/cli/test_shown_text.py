"""Text of others on the terminal: it stays text, whatever it is."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import changed_copy
from helpers.commands import run_here
from rich.console import Console

from nas.cli.tables import TextTable
from nas.utils.shown_text import in_one_line, shown

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\u202egnp.exe\u200b[/x] [bold]b\x9b"


def test_plain_text_stays():
    for text in ("blood cells, 3 µm", "école 日本 🙂", "a\tb\nc", "[bold]"):
        assert shown(text) == text
    assert in_one_line("a\tb\nc") == "a\\tb\\nc"


def test_what_a_terminal_obeys_is_written_out():
    assert shown("\x1b[31m\u202e\ud800\x07") == "\\x1b[31m\\u202e\\ud800\\x07"
    every = "".join(map(chr, range(0x3000)))
    kinds = {unicodedata.category(each) for each in shown(every) if each not in "\n\t"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def test_cells_are_no_markup():
    table = TextTable(title="t")
    table.add_column("[red]head[/]")
    for text in ("cannot open [/usr/lib/x.so]", "[enforce fail at alloc_cpu.cpp:117]", HOSTILE):
        table.add_row(text)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    printed = console.export_text()
    assert "cannot open [/usr/lib/x.so]" in printed
    assert "[enforce fail at alloc_cpu.cpp:117]" in printed
    assert "[red]head[/]" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("name", [HOSTILE, "a\nb: 7 images"])
def test_names_of_a_data_set(digits: Path, tmp_path: Path, name: str):
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = name
        content["images"][0]["file_name"] += name

    root = changed_copy(digits, tmp_path / "data", change)
    ran = run_here("nas", "check-data", root)
    said = ran.out + ran.err
    assert in_one_line(name) in said
    assert not {each for each in said if unicodedata.category(each) in ("Cc", "Cf")} - {"\n"}
