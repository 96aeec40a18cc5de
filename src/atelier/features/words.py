"""Styles in words without CLIP: a closed vocabulary, and the statistics of style that its words stand for.

A model is a set of prototypes, each the statistics of one picture, and the covariances of words and
statistics over all pictures. A text is answered by the prototypes that fit its words best, changed where they
lack a word. The average of all pictures that carry a word would be grey; a prototype is a palette and a brush
that somebody once used together. `atelier train words` fits a model to a folder of paintings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from atelier import colour
from atelier.core.errors import UsageError, WeightsError, did_you_mean
from atelier.features import vocabulary
from atelier.features.style_vector import Layout, correlations_of
from atelier.maths import Gaussian
from atelier.store import weights
from atelier.store.models import kept

NAME = "words.atelier"
#: Colours of a palette, and the side of the swatch that is filled with them.
COLOURS, _SWATCH = 12, 64
#: How many prototypes are mixed at most, and how sharply the best is preferred.
_MOST, _SHARPNESS = 3, 150.0
#: Added to fits before the logarithm: a picture without a word may still answer a text that holds it.
FLOOR = 0.05
#: How far a measured word goes, in standard deviations over all paintings: further than 49 of 50 of them.
FAR = 2.0


@dataclass(frozen=True)
class Word:
    """A known word: its kind, the number of pictures that carry it, and how well they are told from others.

    `auc` is the area under the receiver operating characteristic on pictures that were held out: of artists
    whom the model had not seen, or single pictures where `split` says so. `axis` is the row of the model
    that the word moves along; `sign` is the direction for a word that is measured from the pixels, and 0 for
    one that pictures carry or not. `names` are other names of the same.
    """

    name: str
    kind: str
    pictures: int
    auc: float
    split: str
    axis: int
    sign: int = 0
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Prediction:
    """The statistics predicted for a text, in the form in which a style picture's are measured.

    `words` are the known words that were read; `swatch` (1, 3, S, S), sRGB 0..1, is filled with the palette.
    """

    words: tuple[str, ...]
    swatch: Tensor
    layout: Layout
    vector: Tensor
    correlations: Mapping[str, Tensor]

    def gaussian(self, tap: str, side: float) -> Gaussian:
        """The mean (1, C) and covariance (1, C, C) at `tap` for a style with a long side of `side` pixels.

        Between the measured sides they are interpolated, beyond them those of the nearest. Raises UsageError
        for a tap that was not measured.
        """
        if tap not in self.layout.channels:
            allowed = did_you_mean(tap, self.layout.channels)
            raise UsageError(f"a style in words has no statistics at the layer '{tap}': {allowed}")
        parts = [(self._at(tap, one), share) for one, share in _between(self.layout.sides, side)]
        mean = sum(share * found.mean for found, share in parts)
        covariance = sum(share * found.covariance for found, share in parts)
        return Gaussian(torch.as_tensor(mean), torch.as_tensor(covariance))

    def details(self, side: float) -> list[Tensor]:
        """The covariances (3, 3) of the detail bands at `side` pixels, as `colour.covariances`."""
        parts = _between(self.layout.sides, side)
        bands = sum(share * self.layout.details(self.vector, one) for one, share in parts)
        return list(torch.as_tensor(bands))

    def _at(self, tap: str, side: int) -> Gaussian:
        mean, deviation = self.layout.moments(self.vector, tap, side)
        correlations = self.correlations[f"{tap} {side}"]
        return Gaussian(mean[None], (deviation[:, None] * correlations * deviation)[None])


class Words:
    """A model of words, as `atelier train words` writes it.

    >>> from atelier.features.words import load
    >>> found = load().predict("a cubist painting, warm")
    >>> found.words, tuple(found.gaussian("relu3_1", 512).covariance.shape)
    (('cubism', 'warm'), (1, 128, 128))
    """

    def __init__(self, state: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        self.known = {one["name"]: Word(**one) for one in json.loads(facts["vocabulary"])}
        self.names = {name: word.name for word in self.known.values() for name in word.names}
        self.layout = Layout(json.loads(facts["channels"]), tuple(json.loads(facts["sides"])))
        #: The hash of the encoder whose statistics are predicted.
        self.encoder = facts["encoder"]
        self.state = {name: value.float() for name, value in state.items()}

    def read(self, text: str) -> tuple[str, ...]:
        """The known words of a text. Raises UsageError that names the unknown ones."""
        return vocabulary.read(text, self.known, self.names)

    def predict(self, text: str) -> Prediction:
        """The statistics that a text stands for. Raises UsageError if it holds an unknown word."""
        words = self.read(text)
        shares, vector = self.vector(words)
        swatch, correlations = self._swatch(vector, shares), self._correlations(shares)
        return Prediction(words, swatch, self.layout, vector, correlations)

    def vector(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The shares (P,) of the prototypes in the answer to known words, and its style vector (D,)."""
        known = [self.known[word] for word in words]
        shares = self._shares(known)
        traits = shares @ self.state["traits"]
        code = shares @ self.state["codes"] + self._change(known, traits)
        return shares, self.state["mean"] + code @ self.state["basis"]

    def _change(self, words: Sequence[Word], traits: Tensor) -> Tensor:
        """The most likely change (K,) of a code whose traits (A,) change to those that the words ask for.

        It is the conditional mean of a Gaussian with the covariances of traits and codes. Words that are not
        in the text are free: what is bluer is mostly colder as well.
        """
        lacking = torch.tensor([_lacking(word, traits) for word in words])
        axes = [word.axis for word in words]
        together = self.state["covariance"][axes][:, axes] + self.state["noise"] * torch.eye(len(axes))
        change: Tensor = torch.linalg.solve(together, lacking) @ self.state["directions"][axes]
        return change

    def _shares(self, words: Sequence[Word]) -> Tensor:
        """The share (P,) of each prototype in the answer; all but a few are 0."""
        columns = [list(self.known).index(word.name) for word in words]
        fits = self.state["fits"][:, columns]
        if all(word.sign for word in words):  # "dark" asks for a usual picture that is dark
            fits = torch.cat([fits, self.state["typical"][:, None]], 1)
        scores = _SHARPNESS * (fits + FLOOR).log().mean(1)
        best = scores.topk(min(_MOST, len(scores)))
        return torch.zeros_like(scores).scatter(0, best.indices, best.values.softmax(0))

    def _correlations(self, shares: Tensor) -> dict[str, Tensor]:
        found = {}
        used = shares.nonzero()[:, 0].tolist()
        for tap in self.layout.channels:
            factors = self.state[f"factors {tap}"] / 127
            for place, side in enumerate(self.layout.sides):
                parts = [shares[one] * correlations_of(factors[one, place]) for one in used]
                found[f"{tap} {side}"] = torch.stack(parts).sum(0)
        return found

    def _swatch(self, vector: Tensor, shares: Tensor) -> Tensor:
        """The prototypes' palettes in their shares, moved to the predicted mean and covariance."""
        palettes = self.state["palettes"]
        parts = (shares[:, None] * palettes[..., 3] / palettes[..., 3].sum(1, keepdim=True)).flatten()
        ends = (parts.double().cumsum(0) * _SWATCH**2).round().long()
        counts = ends.diff(prepend=ends.new_zeros(1))
        colours = palettes[..., :3].flatten(0, 1).repeat_interleave(counts, 0) / 255
        swatch = colours.T.reshape(1, 3, _SWATCH, _SWATCH)
        return _with_moments(swatch, *self.layout.colours(vector))


def _lacking(word: Word, traits: Tensor) -> float:
    """How far the prototypes' mixture, whose traits are (A,), must go along the word's axis."""
    have = float(traits[word.axis])
    return max(0.0, FAR - word.sign * have) * word.sign if word.sign else 1 - have


def _with_moments(swatch: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """A swatch (1, 3, H, W) with the given mean (3,) and covariance (3, 3) of colours, clamped to 0..1.

    Within a colour of a palette nothing varies; what the covariance asks for beyond the palette is noise.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(swatch.shape, generator=generator)
    values, vectors = torch.linalg.eigh(covariance.double())
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    wanted = mean.view(1, 3, 1, 1) + torch.einsum("ij,bjhw->bihw", root.float(), noise)
    grain = torch.einsum("ij,bjhw->bihw", 0.3 * root.float(), noise)
    return colour.match_moments(swatch + grain, wanted).clamp(0, 1)


def _between(sides: Sequence[int], side: float) -> list[tuple[int, float]]:
    """The measured sides around `side` and their shares, linear in the logarithm.

    >>> _between((1, 16, 256), 4), _between((128, 256), 1000)
    ([(1, 0.5), (16, 0.5)], [(256, 1.0)])
    """
    place = min(max(side, sides[0]), sides[-1])
    for low, high in pairwise(sides):
        if low <= place < high:
            share = math.log(place / low) / math.log(high / low)
            return [(low, 1 - share), (high, share)] if share else [(low, 1.0)]
    return [(sides[-1], 1.0)]


def load(name: str | Path = NAME) -> Words:
    """The model called `name`, or that of a file. Raises WeightsError if it is not a model of words."""
    return _loaded(str(name), weights.fingerprint(name))


@kept
@torch.inference_mode(False)  # it is kept, and a later caller may need gradients
def _loaded(name: str, fingerprint: str) -> Words:
    facts = weights.metadata(name)
    try:
        return Words(weights.load(name), facts)
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{name} holds no words: use a file that 'atelier train words' wrote") from None
