"""Terminals of every kind: narrow ones, files, CI, and a Python without docstrings."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atelier.apps import layout
from atelier.methods import registry
from atelier.store import records

NARROW = 40
PAGES = [
    "--help",
    "stylize --help",
    "stylize --method strokes --help",
    "generate --help",
    "generate texture --help",
    "replay --help",
    "style save --help",
    "train --help",
    "train encoder --help",
    "weights --help",
    "weights add --help",
    "methods",
    "methods gatys",
    "methods strokes",
    "weights list",
]


# narrow terminals


@pytest.mark.parametrize("line", PAGES)
def test_no_line_is_wider_than_the_terminal(run: Any, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))
    shown = run(line)
    assert shown.code == 0
    wide = [text for text in shown.out.splitlines() if len(text) > NARROW]
    assert all(text.startswith("https://") for text in wide)  # an address in two parts cannot be opened


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_no_word_of_a_table_is_cut(run: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    methods, weights = run("methods").out.split(), run("weights list").out.split()
    for kind in registry.list_methods().values():
        assert set(kind.summary().split()) <= set(methods)
    for record in records.records():
        assert set(record.note.split()) <= set(weights)


def test_narrow_tables_use_the_width(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))
    lines = run("methods").out.splitlines()
    sentences = [line for line in lines if line.startswith("  ") and ":" not in line]
    assert sum(map(len, sentences)) / len(sentences) > NARROW / 2


def test_help_is_laid_out_in_two_columns_where_there_is_room(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "  weights    List, download, add and verify pretrained weights.\n" in run("--help").out
    monkeypatch.setenv("COLUMNS", str(NARROW))
    assert "  weights\n      List, download, add and verify\n      pretrained weights.\n" in run("--help").out


def test_a_choice_breaks_after_its_bars() -> None:
    lines = layout.definitions([("--manner first|second|third", "How.")], 20)
    assert lines == ["  --manner first|", "      second|third", "      How."]


def test_a_table_wraps_long_cells_and_aligns_the_rest() -> None:
    rows = [("a", "1", "some words that go on for longer than the line"), ("bb", "22", "short")]
    assert layout.table(("name", "n", "note"), rows, 36).splitlines() == [
        "name  n   note",
        "a     1   some words that go on for",
        "          longer than the line",
        "bb    22  short",
    ]


def test_a_table_without_room_is_stacked() -> None:
    rows = [("a", "1", "some words that go on for longer than the line")]
    assert layout.table(("name", "n", "note"), rows, 26).splitlines() == [
        "a",
        "  n: 1",
        "  some words that go on",
        "  for longer than the line",
    ]


# progress bars


def _environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("CI", "FORCE_COLOR", "NO_COLOR", "COLUMNS")}
    return {**plain, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", **more}


# A run and a download, at their start and in the middle.
WORK = """
from atelier.apps.show import downloading, say, watching
from atelier.core.progress import Event
with watching() as watch:
    watch(Event(done=1, total=2, stage="paint"))
with downloading("weights") as progress:
    progress(1, 2)
say("done")
"""


@pytest.mark.parametrize("more", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}], ids=str)
def test_no_bar_is_written_into_a_file(tmp_path: Path, more: dict[str, str]) -> None:
    with (tmp_path / "log.txt").open("w") as log:
        subprocess.run([sys.executable, "-c", WORK], stderr=log, env=_environment(**more), check=True)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "done\n"


LIVE = "from atelier.apps.show import live; import sys; sys.exit(0 if live() else 9)"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, 0),
        ({"CI": "false"}, 0),
        ({"CI": "true"}, 9),
        ({"TERM": "dumb"}, 9),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, 9),
        ({"CI": "1", "FORCE_COLOR": "1"}, 9),
    ],
    ids=str,
)
def test_a_bar_is_drawn_only_on_a_terminal_that_can_show_it(more: dict[str, str], code: int) -> None:
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-c", LIVE]
        done = subprocess.run(command, stderr=theirs, env=_environment(**more), check=False)
        assert done.returncode == code
    finally:
        os.close(ours)
        os.close(theirs)


# no docstrings


@pytest.mark.slow  # all of the packages are compiled once more
def test_help_and_lists_do_not_need_docstrings() -> None:
    code = """
import sys
from atelier.apps.cli import main
for line in ("--help", "stylize --help", "train --help", "weights --help", "methods", "methods gatys"):
    sys.stdout.write(f"== {line}\\n")
    sys.stdout.flush()
    main(line.split())
"""
    outputs = []
    for flags in ([], ["-OO"]):
        command = [sys.executable, *flags, "-c", code]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert "Paint a photo in the style of a painting." in outputs[0]
    assert outputs[0] == outputs[1]
