"""Reading styles in words: known words, their other forms, and sentences about unknown ones."""

from __future__ import annotations

import pytest

from atelier.core.errors import UsageError
from atelier.features.vocabulary import FILLERS, RELATED, SYNONYMS, forms, nearest, plain, read

KNOWN = (
    "cezanne",
    "cold",
    "cubism",
    "dark",
    "dots",
    "drawing",
    "fauvism",
    "flowers",
    "high contrast",
    "impressionism",
    "ink wash",
    "light",
    "lines",
    "patches",
    "pointillism",
    "post-impressionism",
    "stained glass",
    "ukiyo-e",
    "van gogh",
    "warm",
    "watercolour",
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cubism", ("cubism",)),
        ("A CUBIST painting.", ("cubism",)),
        ("cubism, warm", ("cubism", "warm")),
        ("in the style of Vincent van Gogh", ("van gogh",)),
        ("Cézanne", ("cezanne",)),
        ("impressionistic, impressionists", ("impressionism",)),
        ("post-impressionist", ("post-impressionism",)),
        ("Post Impressionism", ("post-impressionism",)),
        ("watercolor, light tones", ("watercolour", "light")),
        ("pointillism dot", ("pointillism", "dots")),
        ("patch", ("patches",)),
        ("an ukiyo e print", ("ukiyo-e",)),
        ("japanese woodblock print", ("ukiyo-e",)),
        ("ink painting", ("ink wash",)),
        ("stained-glass", ("stained glass",)),
        ("chiaroscuro", ("dark", "high contrast")),
        ("high-contrast drawing", ("high contrast", "drawing")),
        ("warm, warm, cold", ("warm", "cold")),
    ],
)
def test_words_are_read_in_many_forms(text: str, words: tuple[str, ...]) -> None:
    assert read(text, KNOWN, {"vincent van gogh": "van gogh"}) == words


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cubizm", r"the word 'cubizm' is not known to the model of words: did you mean 'cubism'\?"),
        ("a pointilist view of zanzibar", r"the words 'pointilist', 'view', 'zanzibar' are not known"),
        ("watercolur", r"did you mean 'watercolour'\?"),
        (
            "van gough",
            r"the words 'van', 'gough' are not known to the model of words: did you mean 'van gogh'\?",
        ),
        ("expressionism", r"did you mean 'fauvism' or 'post-impressionism'\?"),
        ("xylophone", r"the word 'xylophone' is not known to the model of words: leave it out"),
        ("a painting in the style of", "names no style"),
        ("?!", "names no style"),
    ],
)
def test_unknown_words_are_named_with_the_nearest_known_ones(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        read(text, KNOWN)
    assert "'atelier words' lists" in str(caught.value)


def test_a_synonym_needs_all_the_words_that_it_means() -> None:
    assert read("chiaroscuro", ["dark", "high contrast"]) == ("dark", "high contrast")
    with pytest.raises(UsageError, match="chiaroscuro"):
        read("chiaroscuro", ["dark"])


def test_tables_are_plain_and_do_not_contradict_one_another() -> None:
    for table in (SYNONYMS, RELATED):
        assert all(plain(word) == word for word in table)
    assert not SYNONYMS.keys() & RELATED.keys()
    assert not FILLERS & (SYNONYMS.keys() | RELATED.keys())
    assert not any(word in meant for word, meant in SYNONYMS.items())


def test_forms_begin_with_the_word_itself() -> None:
    assert all(forms(word)[0] == word for word in ("dots", "realist", "church"))
    assert "realism" in forms("realistic")
    assert "churches" in forms("church")


NAMES = {"cubism": "cubism", "pissarro": "pissarro"}


def test_nearest_prefers_meaning_to_spelling() -> None:
    assert nearest("picasso", NAMES) == ("cubism",)
    assert nearest("pisarro", NAMES) == ("pissarro",)
    assert nearest("qqq", NAMES) == ()
