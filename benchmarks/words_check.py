"""Whether words predict the style of paintings that the model of words has not seen.

python benchmarks/words_check.py --pictures FOLDER --index index.csv --run runs/words

60 paintings are held out and a model is fitted to the rest: to other pictures by artists that it does not see
either, or to all other pictures. Each held-out painting is described by its known words, and the predicted
statistics are compared with its own and with those of each of the other 59. `--run` is the folder of an
earlier `atelier train words`, whose measurements are used; without them, measuring takes minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from measure import Promise, arguments, report, set_threads

from atelier.core.progress import Progress
from atelier.features.words import Words
from atelier.lexicon.traits import WORDS as TRAITS
from atelier.lexicon.word_model import CARRIED, Array, Data, axes_of, part_weights
from atelier.lexicon.words import WordsRun, numbers
from atelier.training.settings import WordsSettings

HELD_OUT, TURNS = 60, 3
#: The share of pairs in which the prediction must be nearer to the painting's own statistics.
WANTED = 0.85


def held_out(data: Data, by: str, seed: int) -> list[int]:
    """60 paintings at random; where artists are held out, two each of those with four pictures at most."""
    painted = [place for place, one in enumerate(data.pictures) if not one.drawn]
    order = np.random.default_rng(seed).permutation(painted).tolist()
    if by == "picture":
        return order[:HELD_OUT]
    of: dict[str, list[int]] = {}
    for place in order:
        of.setdefault(data.pictures[place].artist, []).append(place)
    return [place for places in of.values() if len(places) <= 4 for place in places[:2]][:HELD_OUT]


def rest(data: Data, test: Sequence[int], by: str) -> Data:
    """The pictures to learn from."""
    unseen = {data.pictures[place].artist for place in test} if by == "artist" else set()
    kept = [
        place
        for place, one in enumerate(data.pictures)
        if place not in set(test) and one.artist not in unseen
    ]
    return Data(data.vectors[kept], data.traits[kept], [data.pictures[place] for place in kept])


def words_of(data: Data, place: int, model: Words, kinds: Sequence[str]) -> list[str]:
    """The words that a picture carries: its labels, and what is measured of it."""
    found = list(data.pictures[place].words) if "labels" in kinds else []
    if "measured" in kinds:
        scores = axes_of(data, len(data.pictures)).values[place, -len(TRAITS) :]
        for score, (high, low) in zip(scores, TRAITS.values(), strict=True):
            found += [high] if score > CARRIED else [low] if score < -CARRIED else []
    return [word for word in found if word in model.known]


def nearer(predicted: Array, own: Array) -> float:
    """The share of pairs of pictures in which a prediction is nearer to its own than to the other."""
    distances = np.square(predicted[:, None] - own[None]).sum(axis=2)
    others = ~np.eye(len(own), dtype=bool)
    return float((np.diag(distances)[:, None] < distances)[others].mean())


def checked(run: WordsRun, data: Data, by: str, kinds: Sequence[str], seed: int) -> tuple[float, float]:
    """The share of pairs, and how many words a picture is described by."""
    test = held_out(data, by, seed)
    seen = rest(data, test, by)
    fitted = run.fit(seen)
    model = Words(numbers(fitted, seen), run.facts(fitted))
    described = {place: words_of(data, place, model, kinds) for place in test}
    test = [place for place in test if described[place]]
    predicted = np.stack([model.vector(described[place])[1].double().numpy() for place in test])
    weights = part_weights(seen.vectors, run.layout)
    share = nearer(predicted * weights, data.vectors[test] * weights)
    return share, mean(len(described[place]) for place in test)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", required=True, help="folder of the paintings that the index lists")
    parser.add_argument("--index", required=True, help="CSV file with a row a painting")
    parser.add_argument("--run", type=Path, default=Path("runs/words"), help="folder with measurements")
    options = parser.parse_args()
    set_threads(options)
    run = WordsRun(WordsSettings(pictures=options.pictures, index=options.index), options.run)
    data = run.measured(Progress())
    assert data is not None
    lines: list[tuple[str | float, ...]] = []
    promises = []
    for by in ("artist", "picture"):
        for kinds in (("labels", "measured"), ("labels",), ("measured",)):
            found = [checked(run, data, by, kinds, seed) for seed in range(TURNS)]
            share, count = (mean(one) for one in zip(*found, strict=True))
            lines.append((by, " and ".join(kinds), share, count))
            if len(kinds) == 2:
                promises.append(Promise(f"nearer to its own, held out by {by}", share, WANTED, at_least=True))
    head = ("held out by", "described by", "nearer to its own", "words each")
    return report(
        f"{HELD_OUT} held-out paintings, {TURNS} turns", head, lines, promises, as_json=options.json
    )


if __name__ == "__main__":
    sys.exit(main())
