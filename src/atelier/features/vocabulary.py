"""Reading a style in words: which known words a text holds, and the nearest ones to those that it does not.

The vocabulary is closed: a model knows the words that it was trained with. Other forms of them are read too:
adjectives ("cubist"), plurals, American spelling, and the synonyms below.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from atelier.core.errors import UsageError

_PLAIN = """
a an and art artwork as at beautiful by canvas colour colours from image in landscape like look looking made
manner of on or paint painted painter painting painting's paintings palette photo picture pictures piece
portrait print prints scene school style styled the this to tones very with work works
"""
#: Words that say nothing about the style.
FILLERS = frozenset(_PLAIN.split())

#: Other names of words, and what they mean. Those that mean an unknown word are not read.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "abstraction": ("abstract",),
    "aquarelle": ("watercolour",),
    "bright": ("light",),
    "calm": ("smooth",),
    "chiaroscuro": ("dark", "high contrast"),
    "chinese ink": ("ink wash",),
    "contrasty": ("high contrast",),
    "cool": ("cold",),
    "desaturated": ("muted",),
    "divisionism": ("pointillism",),
    "dotted": ("dots",),
    "dramatic": ("high contrast",),
    "dull": ("muted",),
    "engraving": ("etching",),
    "fauve": ("fauvism",),
    "flat colour": ("flat",),
    "geometrical": ("geometric",),
    "gloomy": ("dark",),
    "golden": ("gold",),
    "high-contrast": ("high contrast",),
    "ink": ("ink wash",),
    "ink painting": ("ink wash",),
    "japanese": ("ukiyo-e",),
    "leaded glass": ("stained glass",),
    "linocut": ("woodcut",),
    "low-contrast": ("low contrast",),
    "monochrome": ("muted",),
    "neo-impressionism": ("pointillism",),
    "pale": ("light",),
    "pencil": ("drawing",),
    "post impressionism": ("post-impressionism",),
    "purple": ("violet",),
    "saturated": ("colourful",),
    "sketch": ("drawing",),
    "soft": ("smooth",),
    "stained-glass": ("stained glass",),
    "stippled": ("dots",),
    "sumi-e": ("ink wash",),
    "tesserae": ("mosaic",),
    "textured": ("rough",),
    "ukiyo e": ("ukiyo-e",),
    "vivid": ("colourful",),
    "wash": ("ink wash",),
    "woodblock": ("ukiyo-e",),
    "woodblock print": ("ukiyo-e",),
}

#: What comes nearest to words that no model here knows.
RELATED: Mapping[str, tuple[str, ...]] = {
    "anime": ("flat", "colourful"),
    "art deco": ("geometric", "gold"),
    "bauhaus": ("geometric", "constructivism"),
    "cartoon": ("flat", "colourful"),
    "charcoal": ("drawing",),
    "comic": ("flat", "lines"),
    "de stijl": ("geometric", "suprematism"),
    "expressionism": ("fauvism", "post-impressionism"),
    "gouache": ("watercolour",),
    "lithograph": ("etching",),
    "manga": ("drawing", "lines"),
    "mondrian": ("geometric", "constructivism"),
    "pastel": ("light", "impressionism"),
    "photorealism": ("realism",),
    "picasso": ("cubism",),
    "pixel art": ("mosaic",),
    "pop art": ("flat", "colourful"),
    "rembrandt": ("baroque", "dark"),
    "romanticism": ("realism", "baroque"),
    "sculpture": ("renaissance",),
    "surrealism": ("abstract",),
    "symbolism": ("post-impressionism",),
    "turner": ("smooth", "light"),
    "vermeer": ("baroque",),
}

_SPELLINGS = {"color": "colour", "gray": "grey"}
_LONGEST = 4  # words in a phrase


def plain(text: str) -> str:
    """The text in lower case, without accents, in British spelling.

    >>> plain("Cézanne, in Watercolor")
    'cezanne, in watercolour'
    """
    letters = unicodedata.normalize("NFD", text.lower())
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    for american, british in _SPELLINGS.items():
        bare = bare.replace(american, british)
    return bare


def read(text: str, known: Iterable[str], names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The known words of a text, each once, in order; the longest phrases first ("van gogh").

    `names` gives other names of known words, such as the full names of artists.

    Raises UsageError with one sentence that names every unknown word and the nearest known ones.

    >>> read("A cubist painting, warm colours", ["cubism", "warm", "cold"])
    ('cubism', 'warm')
    >>> read("a pointilist garden", ["pointillism", "cubism"])
    Traceback (most recent call last):
    ...
    atelier.core.errors.UsageError: the words 'pointilist', 'garden' are not known to the model of words: ...
    """
    words, allowed = _tokens(text), {**{word: word for word in known}, **(names or {})}
    found: list[str] = []
    unknown: list[str] = []
    place = 0
    while place < len(words):
        length, meaning = _phrase(words[place:], allowed)
        found += meaning
        if not length and words[place] not in FILLERS:
            unknown.append(words[place])
        place += max(length, 1)
    if unknown:
        raise UsageError(_refusal(text, unknown, allowed))
    if not found:
        raise UsageError(f"the text '{text}' names no style: 'atelier words' lists the known words")
    return tuple(dict.fromkeys(found))


def forms(word: str) -> tuple[str, ...]:
    """The known forms that a word may stand for: itself, a movement's noun, a singular, a plural.

    >>> forms("cubist")
    ('cubist', 'cubism', 'cubists')
    """
    options = [word]
    for ending in ("istic", "ists", "ist"):
        if word.endswith(ending):
            options.append(word.removesuffix(ending) + "ism")
            break
    options += [word.removesuffix(ending) for ending in ("es", "s", "'s") if word.endswith(ending)]
    return tuple(dict.fromkeys([*options, f"{word}s", *([f"{word}es"] if word.endswith("ch") else [])]))


def _tokens(text: str) -> list[str]:
    return re.findall(r"[\w'][\w'-]*", plain(text))


def _phrase(words: Sequence[str], known: Mapping[str, str]) -> tuple[int, tuple[str, ...]]:
    """How many words the longest known phrase at the beginning has, and the known words that it means."""
    for length in range(min(_LONGEST, len(words)), 0, -1):
        if meaning := _meaning(" ".join(words[:length]), known):
            return length, meaning
    return 0, ()


def _meaning(phrase: str, known: Mapping[str, str]) -> tuple[str, ...]:
    for form in forms(phrase):
        if form in known:
            return (known[form],)
        meant = SYNONYMS.get(form, ())
        if meant and known.keys() >= {*meant}:
            return meant
    return ()


def _refusal(text: str, unknown: Sequence[str], known: Mapping[str, str]) -> str:
    """The sentence on unknown words."""
    quoted = ", ".join(f"'{word}'" for word in dict.fromkeys(unknown))
    one = len(set(unknown)) == 1
    what = f"the word {quoted} is" if one else f"the words {quoted} are"
    near = dict.fromkeys(word for each in unknown for word in nearest(each, known, _tokens(text)))
    remedy = f"leave {'it' if one else 'them'} out;"
    if near:
        remedy = f"did you mean {' or '.join(repr(word) for word in near)}?"
    return f"{what} not known to the model of words: {remedy} 'atelier words' lists what it knows"


def nearest(word: str, known: Mapping[str, str], words: Sequence[str] = ()) -> tuple[str, ...]:
    """The known words nearest to an unknown one: by meaning where that is listed, else by spelling.

    `words` is the whole text, of which the unknown word may be a part with a listed meaning ("pop art").
    """
    phrases = [" ".join(pair) for pair in pairwise(words) if word in pair]
    for phrase in (*phrases, *forms(word)):
        related = tuple(one for one in RELATED.get(phrase, ()) if one in known)
        if related:
            return related
    others = (name for name, meant in SYNONYMS.items() if known.keys() >= {*meant})
    names = dict(known) | {name: name for name in others}
    parts = {part: names[name] for name in sorted(names) for part in name.split()} | names
    return tuple(parts[one] for one in difflib.get_close_matches(word, parts, n=1, cutoff=0.7))
