"""Flags and help that follow from what a method declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier.apps.cli.declared import generator_of, value
from atelier.core.errors import UsageError
from atelier.images import Picture
from atelier.methods import registry
from atelier.methods.facts import takes
from atelier.methods.optimise.texture import Texture

METHODS = '''
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.lazy import torch
from atelier.methods.base import Method, Paper, Takes

class _Any(Method):
    paper = Paper("Nobody", 2026, "Nothing", "https://example.org")
    class Knobs(AnyKnobs):
        pass

class Words(_Any):
    """Tint a photo by some words."""
    name = "words"
    takes = Takes(styles=frozenset({"text"}), most=1)
    def transfer(self, job, knobs):
        return torch.full_like(job.content, len(job.texts[0]) / 100)

class Named(_Any):
    """Paint in a style that has a name."""
    name = "named"
    takes = Takes(styles=frozenset({"trained"}), least=1, most=3)
    def transfer(self, job, knobs):
        return torch.full_like(job.content, {"dark": 0.2, "light": 0.8}[job.trained[0]])

class Noise(_Any):
    """Make noise."""
    name = "noise"
    takes = Takes(content="none", styles=frozenset(), least=0)
    def transfer(self, job, knobs):
        return torch.full_like(job.content, 0.25)

class Masked(_Any):
    """Fill a part."""
    name = "masked"
    takes = Takes(styles=frozenset({"picture", "text"}), mask="required", least=0)
    def transfer(self, job, knobs):
        return job.content
'''


@pytest.fixture(autouse=True)
def _own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (folder / "own").mkdir()
    (folder / "own" / "kinds.py").write_text(METHODS)
    monkeypatch.setenv("ATELIER_METHODS", str(folder / "own"))
    registry.list_methods.cache_clear()
    yield
    registry.list_methods.cache_clear()


@pytest.mark.parametrize(
    ("line", "shown", "left_out"),
    [
        ("stylize --help", {"--style", "--region", "--mask", "--style-weights"}, {"--text"}),
        ("stylize -m words --help", {"--text"}, {"--style", "--region", "--style-weights", "--style-scale"}),
        ("stylize -m named --help", {"--style NAME", "--style-weights"}, {"--text", "--region"}),
        ("stylize -m masked --help", {"--text", "--style FILE", "--mask"}, set()),
        ("generate noise --help", {"--size", "--seed"}, {"--style", "--text", "--strength", "--colour"}),
        ("generate texture --help", {"--size", "--style", "--iterations"}, {"--text", "--strength"}),
    ],
)
def test_help_shows_the_flags_of_what_a_method_takes(
    run: Any, line: str, shown: set[str], left_out: set[str]
) -> None:
    text = run(line).out
    assert all(f" {one} " in text for one in shown)
    assert not [one for one in left_out if f" {one} " in text]


def test_help_of_generate_lists_the_methods_that_need_no_photo(run: Any) -> None:
    text = run("generate --help").out
    listed = text[text.index("Methods:") : text.index("Arguments:")]
    assert re.search(r"^  noise +Make noise\.$", listed, re.M)
    assert re.search(rf"^  texture +{re.escape(Texture.summary()[:40])}", listed, re.M)
    assert "gatys" not in listed


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stylize photo.png -m words -s style.png", "words does not take a style picture"),
        ("stylize photo.png -m words --text a --text b", "words takes at most 1 style"),
        ("stylize photo.png --text sea", "the word 'sea' is not known to the model of words"),
        ("stylize photo.png -m masked", "masked needs a mask"),
        ("stylize photo.png -m noise", "noise makes pictures without a photo: use generate"),
        ("generate", "METHOD is missing: see 'atelier generate --help'"),
        ("generate txture", "there is no method 'txture': did you mean 'texture'?"),
        ("generate gatys", "gatys needs a photo"),
        ("generate noise photo.png", "unexpected argument photo.png: generate takes a METHOD and no photo"),
        ("generate noise -s style.png", "noise does not take a style picture: it takes no style"),
        ("generate noise --strength 0.5", "it needs a photo: use 'atelier stylize'"),
        ("generate noise --mask style.png", "it needs a photo: use 'atelier stylize'"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_exit_code_2(run: Any, line: str, sentence: str) -> None:
    shown = run(line)
    assert shown.code == 2
    assert sentence in shown.err
    assert shown.err.count("\n") == 1


def test_the_name_of_a_trained_style_reaches_the_method(run: Any, folder: Path) -> None:
    assert run("stylize photo.png -m named --style light -o out.png --device cpu").code == 0
    np.testing.assert_allclose(Picture.open(folder / "out.png").pixels, 0.8, atol=0.5 / 255)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("noise --size 40x24", "noise"),
        ("--size 40x24 noise", "noise"),
        ("--overwrite noise", "noise"),
        ("--text texture noise", "noise"),
        ("-s=texture.png noise", "noise"),
        ("--help", None),
        ("--size 40x24", None),
        ("", None),
    ],
)
def test_the_method_of_generate_is_found_among_its_flags(line: str, name: str | None) -> None:
    kind = generator_of(line.split())
    assert (kind and kind.name) == name


def test_an_unknown_generator_is_named() -> None:
    with pytest.raises(UsageError, match="there is no method 'nois': did you mean 'noise'"):
        generator_of(["nois", "--size", "40"])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--method a", "a"),
        ("--method=b", "b"),
        ("-m c", "c"),
        ("-mc", "c"),
        ("-m a --method b", "b"),
        ("-m", None),
        ("--other -x", None),
        ("--mask a", None),
    ],
)
def test_the_last_value_of_a_flag(line: str, found: str | None) -> None:
    assert value(line.split(), "--method", "-m") == found


def test_what_a_method_takes_in_words() -> None:
    words = {name: takes(kind) for name, kind in registry.list_methods().items()}
    assert words["gatys"] == "a photo; 1 or more styles (pictures or words)"
    assert words["strokes"] == "a photo; 0 or more styles (pictures)"
    assert words["words"] == "a photo; 1 style (words)"
    assert words["named"] == "a photo; 1 to 3 styles (names)"
    assert words["noise"] == "no photo; no style"
    assert words["masked"] == "a photo; 0 or more styles (pictures or words); a mask"
    assert words["texture"] == "optionally a photo, for its size alone; 1 or more styles (pictures)"
