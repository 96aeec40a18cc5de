"""The words that pictures of an index carry: movements, techniques, subjects and artists.

An index is a CSV file with one row a picture. Of its columns `file`, `kind`, `style`, `title`, `artist` and
`source_path` those are read that it has. A picture carries a word where the word's pattern is found there.
Some techniques, of which collections of paintings have few, are learned from the styles that
`atelier.examples` draws.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atelier.core.errors import TrainingError
from atelier.features.vocabulary import plain

#: Patterns in the style and in the folder of the source: "/baroque/ /jpegimages/classicism/", in lower case.
MOVEMENTS: Mapping[str, str] = {
    "abstract": "/abstract/",
    "academicism": "academicism",
    "art nouveau": "art.?nouveau",
    "baroque": "baroque",
    "biedermeier": "biedermeier",
    "classicism": "/classicism",
    "constructivism": "constructivism",
    "cubism": "cubism|cubo.?futurism",
    "expressionism": "/expressionism",
    "futurism": "futurism",
    "gothic": "gothic",
    "high renaissance": "high.?renaissance",
    "impressionism": r"(?<!post)(?<!post.)impressionism",
    "ink wash": "ink.?wash",
    "japonism": "japonism",
    "medieval": "medieval",
    "naturalism": "naturalism",
    "neoclassicism": "neoclassicism",
    "northern renaissance": "northern.?renaissance",
    "pointillism": "pointillism|divisionism",
    "post-impressionism": "post.?impressionism",
    "realism": "/realism",
    "renaissance": "renaissance",
    "rococo": "rococo",
    "romanticism": "romanticism",
    "shin-hanga": "shin.?hanga",
    "suprematism": "suprematism",
    "symbolism": "symbolism",
    "synthetism": "synthetism",
    "tonalism": "tonalism",
    "ukiyo-e": "ukiyo.?e(?!.*shin.?hanga)",  # shin-hanga is its revival
}
TECHNIQUES: Mapping[str, str] = {
    "drawing": "drawing",
    "oil": "impressionism|pointillism|realism|romanticism|rococo|baroque|expressionism|tonalism|cubism",
}
#: Patterns in the title.
SUBJECTS: Mapping[str, str] = {
    "animals": r"\b(cat|dog|horse|tiger|lion|cow|bull|cattle|deer|elephant)s?\b",
    "autumn": r"autumn|\bfall\b",
    "birds": r"bird|duck|crane|rooster|goose|geese|eagle|swallow|heron|\b(cock|hen)s?\b",
    "city": r"street|boulevard|city|paris|town|village|houses|roofs",
    "dance": r"\bdanc|ballet|\bball\b",
    "flowers": r"flower|roses?\b|iris|chrysanth|blossom|peon|orchid|lil(y|ies)|bouquet|popp(y|ies)|花",
    "forest": r"forest|trees|\bwoods?\b|grove|birch",
    "garden": r"garden|\bpark\b",
    "geometric": r"composition|construction|suprematis|proun|geometr",
    "interior": r"interior|\broom\b|studio|kitchen|\bcafe",
    "mountains": r"mountain|\bmount\b|\bmont\b|\bfuji\b|peak|\balps\b|山",
    "night": r"\bnight|moon|nocturne|starry|evening|dusk",
    "religion": r"christ|madonna|\bsaint|annunciation|virgin|angel|crucif",
    "river": r"river|canal|\bseine\b|bridge|\blakes?\b|pond",
    "sea": r"\bsea\b|seascape|waves?\b|beach|coast|harbour|ships?\b|boats?\b|shore|sail|marine|ocean",
    "snow": r"snow|winter|\bice\b",
    "spring": r"\bspring\b",
    "still life": r"still life|\bvase|fruit|apples?\b|bottle|\bbowl|\bjug\b",
    "sunset": r"sunset|sunrise|\bdawn\b|twilight",
}
#: Techniques that are learned from drawn examples: the word, and the example's name.
DRAWN: Mapping[str, str] = {
    "etching": "etching",
    "fauvism": "fauve",
    "mosaic": "mosaic",
    "stained glass": "stained_glass",
    "watercolour": "watercolour",
    "woodcut": "woodcut",
}

#: An artist becomes a word with so many pictures; so does every other word.
LEAST = 7
_SAY_LITTLE = frozenset({"north", "martin"})
_PARTICLES = frozenset({"de", "del", "della", "der", "di", "du", "el", "la", "le", "van", "von"})


@dataclass(frozen=True)
class Labelled:
    """A picture to learn from: a file of the folder or a drawn example (`drawn`, `seed`), and its words.

    `words` holds each word's kind.
    """

    file: str
    artist: str
    words: Mapping[str, str] = field(default_factory=dict)
    drawn: str = ""
    seed: int = 0


def read_index(path: Path) -> list[Labelled]:
    """The paintings of an index. Raises TrainingError if it cannot be read or lists none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("kind", "painting") == "painting"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"the index {path} cannot be read as CSV: {error}") from error
    if not rows or "file" not in rows[0]:
        raise TrainingError(f"the index {path} lists no paintings: it needs a column 'file', a row a picture")
    names = artists(row.get("artist") or "" for row in rows)
    return [Labelled(row["file"], row.get("artist") or "", dict(_words_of(row, names))) for row in rows]


def drawn(count: int) -> list[Labelled]:
    """`count` drawn examples of each technique that is learned from them; each seed counts as an artist."""
    return [
        Labelled("", f"drawn {seed}", {word: "technique"}, drawn=name, seed=seed)
        for word, name in DRAWN.items()
        for seed in range(count)
    ]


def artists(names: Iterator[str] | Sequence[str]) -> dict[str, str]:
    """The word for each artist with enough pictures: the last name with its particles.

    >>> artists(["Vincent van Gogh"] * LEAST + ["Claude Monet"])
    {'Vincent van Gogh': 'van gogh'}
    """
    counts = Counter(name for name in names if name and "unknown" not in name.lower())
    return {name: surname(name) for name, count in counts.items() if count >= LEAST}


def surname(name: str) -> str:
    """The name that an artist is known by, in lower case: the last one, unless it says too little.

    >>> surname("Joaquín Torres-García"), surname("Shitao (石涛), attributed"), surname("El Lissitzky")
    ('torres-garcia', 'shitao', 'lissitzky')
    """
    whole = full_name(name)
    words = whole.split()
    if words[-1] in _SAY_LITTLE or re.search(r"[\u4e00-\u9fff]", name):  # Chinese names begin with the family
        return whole
    start = len(words) - 1
    while start > 1 and words[start - 1] in _PARTICLES:
        start -= 1
    return " ".join(words[start:])


def full_name(name: str) -> str:
    """A name in lower case, without what follows in brackets or after a comma."""
    return re.sub(r"\(.*|,.*", "", plain(name)).strip()


def _words_of(row: Mapping[str, str], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The words of a row and their kinds."""
    folder = (row.get("source_path") or "").rpartition("/")[0]
    places = plain(f"/{row.get('style') or ''}/ /{folder}/")
    title = plain(row.get("title") or "")
    for kind, patterns in (("movement", MOVEMENTS), ("technique", TECHNIQUES)):
        for word, pattern in patterns.items():
            if re.search(pattern, places):
                yield word, kind
    for word, pattern in SUBJECTS.items():
        if re.search(pattern, title):
            yield word, "subject"
    if row.get("artist") in names:
        yield names[row["artist"]], "artist"
