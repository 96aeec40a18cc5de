"""The fit of a model of words: codes of style statistics, word directions, held-out scores, prototypes.

About a thousand paintings cannot make a network that reads words. Everything here is linear and regularised:
principal components for the statistics, covariances with the words, and for the answer a painting that
exists, chosen by how well it fits the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from atelier.core.errors import TrainingError
from atelier.features.style_vector import Layout
from atelier.features.words import FLOOR, Word
from atelier.lexicon.labels import Labelled, full_name, surname
from atelier.lexicon.traits import KINDS
from atelier.lexicon.traits import WORDS as TRAITS

Array = npt.NDArray[np.float64]

#: A measured word is carried by pictures whose trait lies so many standard deviations from the middle.
CARRIED = 1.0
#: The share of each part of the vector in the components' variance, and of each tap.
_PARTS = {"mean": 1.0, "deviation": 1.0, "colours": 2.5, "details": 0.7}
_TAPS = (0.7, 0.8, 1.0, 1.2)
_FOLDS, _TURNS = 5, 5  # of cross-validation: five partitions into five folds
_PENALTY = 30.0  # of the classifiers, for codes of unit variance
_LEADING = 16  # components in which a picture's distance from others is seen


@dataclass(frozen=True)
class Data:
    """What is known of N pictures: style vectors (N, D), measured traits (N, T), and labels."""

    vectors: Array
    traits: Array
    pictures: Sequence[Labelled]


@dataclass(frozen=True)
class Components:
    """Principal components: a vector is `mean` + code @ `basis`; codes have unit variance."""

    mean: Array
    basis: Array
    scale: Array  # (D, K): code = (vector - mean) @ scale

    def codes(self, vectors: Array) -> Array:
        """The codes (N, K) of vectors (N, D)."""
        return (vectors - self.mean) @ self.scale


@dataclass(frozen=True)
class Axes:
    """The axes of the words: one for each label and each trait; `values` (N, A) are 0 or 1, or deviations."""

    names: Sequence[str]
    kinds: Sequence[str]
    values: Array


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    `covariance` (A, A) is that of the axes, `directions` (A, K) that of axes and codes, and `noise` is added
    to the variances of axes. `fits` (N, W) says how well each picture fits each word, 0..1; `typical` (N,)
    how near it is to the middle of all, 0 for drawn examples.
    """

    components: Components
    axes: Axes
    covariance: Array
    directions: Array
    noise: float
    vocabulary: Sequence[Word]
    dropped: Sequence[Word]
    fits: Array
    typical: Array
    prototypes: Sequence[int]


def fit(
    data: Data,
    layout: Layout,
    *,
    components: int,
    prototypes: int,
    shrinkage: float,
    least: int,
    worst: float,
    seed: int,
) -> Fitted:
    """Fit a model: `components` codes, `prototypes` pictures; words with fewer pictures than `least` or an
    area under the curve below `worst` are left out. Raises TrainingError if none is left."""
    found = principal(data.vectors, layout, components)
    codes = found.codes(data.vectors)
    axes = axes_of(data, least)
    covariance, directions = _covariances(axes.values, codes)
    words = [_scored(word, codes, data.pictures, axes, seed) for word in _words(axes, data.pictures)]
    kept = [word for word in words if word.auc >= worst]
    if not kept:
        raise TrainingError(
            f"no word can be told from the {len(codes)} pictures, held out with a score of {worst} at least: "
            "give more pictures, or lower --worst"
        )
    fits = np.stack([_fit(word, codes, axes) for word in kept], axis=1)
    painted = np.array([not one.drawn for one in data.pictures])
    typical = _rank(-np.square(codes[:, :_LEADING]).sum(axis=1)) * painted
    chosen = choose(fits, typical, kept, prototypes)
    dropped = [word for word in words if word.auc < worst]
    noise = shrinkage / len(codes)
    return Fitted(found, axes, covariance, directions, noise, kept, dropped, fits, typical, chosen)


def principal(vectors: Array, layout: Layout, count: int) -> Components:
    """The leading `count` principal components of vectors (N, D), each part scaled to its share."""
    mean = vectors.mean(axis=0)
    weights = part_weights(vectors, layout)
    _, sizes, axes = np.linalg.svd((vectors - mean) * weights, full_matrices=False)
    count = min(count, int((sizes > 1e-9 * sizes[0]).sum()))
    deviation = sizes[:count] / np.sqrt(len(vectors))
    return Components(
        mean, deviation[:, None] * axes[:count] / weights, (weights * axes[:count]).T / deviation
    )


def part_weights(vectors: Array, layout: Layout) -> Array:
    """Weights (D,) that give each part of the vector its share of the variance."""
    found, start = np.empty(vectors.shape[1]), 0
    taps = dict(zip(layout.channels, _TAPS, strict=True))
    for name, length in layout.lengths.items():
        words = name.split()
        share = _PARTS[words[-1] if words[0] in taps else words[0]] * taps.get(words[0], 1.0)
        part = slice(start, start + length)
        found[part] = np.sqrt(share / max(float(vectors[:, part].var(axis=0).sum()), 1e-12))
        start += length
    return found


def axes_of(data: Data, least: int) -> Axes:
    """The axes of labels that at least `least` pictures carry, then those of the traits."""
    kinds: dict[str, str] = {}
    for one in data.pictures:
        kinds |= one.words
    labels = {word: np.array([float(word in one.words) for one in data.pictures]) for word in sorted(kinds)}
    labels = {word: carried for word, carried in labels.items() if carried.sum() >= least}
    traits = {name: _normal_scores(column) for name, column in zip(TRAITS, data.traits.T, strict=True)}
    return Axes(
        names=[*labels, *traits],
        kinds=[*(kinds[word] for word in labels), *(KINDS.get(name, "colour") for name in traits)],
        values=np.stack([*labels.values(), *traits.values()], axis=1),
    )


def _normal_scores(values: Array) -> Array:
    """Values (N,) as the standard normal deviations of their ranks; equal values share a rank."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores: Array = ndtri((rankdata(values) - 0.5) / len(values))
    return scores.clip(-2.5, 2.5)


def _covariances(values: Array, codes: Array) -> tuple[Array, Array]:
    """The covariances of the axes (A, A), and of axes with codes (A, K), over the pictures."""
    centred = values - values.mean(axis=0)
    return centred.T @ centred / len(codes), centred.T @ (codes - codes.mean(axis=0)) / len(codes)


def _words(axes: Axes, pictures: Sequence[Labelled]) -> list[Word]:
    """The candidate words, still without scores."""
    found = []
    full = {surname(one.artist): full_name(one.artist) for one in pictures if one.artist}
    for axis, (name, kind) in enumerate(zip(axes.names, axes.kinds, strict=True)):
        if name in TRAITS:
            signed = [(word, sign) for word, sign in zip(TRAITS[name], (1, -1), strict=True) if word]
        else:
            signed = [(name, 0)]
        for word, sign in signed:
            count = int(carried(axes, axis, sign).sum())
            # An artist's word cannot be held out by artist.
            split = "picture" if kind == "artist" else "artist"
            names = (full[word],) if kind == "artist" and full[word] != word else ()
            found.append(Word(word, kind, count, 0.0, split, axis, sign, names))
    return found


def carried(axes: Axes, axis: int, sign: int) -> npt.NDArray[np.bool_]:
    """Which pictures (N,) carry a word."""
    values = axes.values[:, axis]
    return values > 0.5 if sign == 0 else sign * values > CARRIED


def _scored(word: Word, codes: Array, pictures: Sequence[Labelled], axes: Axes, seed: int) -> Word:
    """The word with its area under the curve on held-out artists, or pictures."""
    truth = carried(axes, word.axis, word.sign)
    groups = [one.artist or one.file if word.split == "artist" else f"{n}" for n, one in enumerate(pictures)]
    aucs = [held_out_auc(codes, truth, groups, seed + turn) for turn in range(_TURNS)]
    return replace(word, auc=round(float(np.mean(aucs)), 3))


def held_out_auc(codes: Array, truth: npt.NDArray[np.bool_], groups: Sequence[str], seed: int) -> float:
    """The area under the curve of a ridge classifier, each group scored by the fit to the other folds."""
    from scipy.stats import rankdata

    fold = _folds(groups, seed)
    scores = np.zeros(len(codes))
    for part in range(_FOLDS):
        inside = fold == part
        if inside.any() and 0 < truth[~inside].sum() < (~inside).sum():
            scores[inside] = codes[inside] @ _classifier(codes[~inside], truth[~inside])
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return 0.5
    ranks = rankdata(scores)[truth].sum() - positive * (positive + 1) / 2
    return float(ranks / (positive * negative))


def _folds(groups: Sequence[str], seed: int) -> npt.NDArray[np.intp]:
    """The fold (N,) of each picture; a group is in one fold."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    of_group = {name: int(place) % _FOLDS for name, place in zip(names, order, strict=True)}
    return np.array([of_group[name] for name in groups])


def _classifier(codes: Array, truth: npt.NDArray[np.bool_]) -> Array:
    """The weights (K,) of a ridge regression of the truth on the codes."""
    square = codes.T @ codes + _PENALTY * np.eye(codes.shape[1])
    found: Array = np.linalg.solve(square, codes.T @ (truth - truth.mean()))
    return found


def _fit(word: Word, codes: Array, axes: Axes) -> Array:
    """How well pictures (N,) fit a word, 0..1: the rank of the trait, or for a label, of two ranks together.

    The classifier's score says what sets the word apart, and the distance from the mean of its pictures what
    they share; the first alone finds caricatures. A picture without the label fits at most half.
    """
    if word.sign:
        return _rank(word.sign * axes.values[:, word.axis])
    truth = carried(axes, word.axis, 0)
    leading = codes[:, :_LEADING]
    away = np.square(leading - leading[truth].mean(axis=0)).sum(axis=1)
    both = _rank(codes @ _classifier(codes, truth)) + _rank(-away)
    return _rank(both) * np.where(truth, 1.0, 0.5)


def _rank(values: Array) -> Array:
    """The ranks of values (N,), from above 0 to 1 for the largest."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values) / len(values))


def choose(fits: Array, typical: Array, words: Sequence[Word], count: int) -> list[int]:
    """`count` pictures: the best for each label, then those that fit short texts best together.

    The texts are single words, and each label with each measured word; the pictures are added one by one
    (greedy facility location).
    """
    logs, usual = np.log(fits + FLOOR), np.log(typical + FLOOR)
    labels = [place for place, word in enumerate(words) if not word.sign]
    measured = [place for place, word in enumerate(words) if word.sign]
    texts = [logs[:, place] + usual for place in measured] + [2 * logs[:, place] for place in labels]
    texts += [logs[:, place] + logs[:, other] for place in labels for other in measured]
    scores = np.stack(texts, axis=1)
    chosen = list(dict.fromkeys(int(logs[:, place].argmax()) for place in labels))[:count]
    best = scores[chosen].max(axis=0) if chosen else np.full(scores.shape[1], scores.min())
    for _ in range(min(count, len(scores)) - len(chosen)):
        gain = np.maximum(scores - best, 0).sum(axis=1)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        best = np.maximum(best, scores[chosen[-1]])
    return chosen
