"""`atelier train words`: measure paintings, fit a model of words to them, and write it.

Measuring takes nearly all the time: the encoder sees each painting at three sizes. The measurements stay in
the folder of the run, and a run that was stopped continues.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atelier import examples, features
from atelier.core import device as devices
from atelier.core.atomic import atomic
from atelier.core.errors import TrainingError
from atelier.core.progress import Progress
from atelier.features import style_vector
from atelier.features.style_vector import Layout, correlation, factor, layout_of
from atelier.features.words import COLOURS
from atelier.images import Picture, fit
from atelier.lexicon import labels, traits, word_model
from atelier.lexicon.labels import Labelled
from atelier.lexicon.word_model import Data, Fitted
from atelier.store import weights
from atelier.training.loop import portable
from atelier.training.settings import WordsSettings

#: Size in pixels of drawn examples.
_DRAWN = 512
_SAVE_EVERY = 100
State = dict[str, Tensor]


class WordsRun:
    """A fit of a model of words in a folder. Raises TrainingError for an index or pictures that do not do."""

    def __init__(self, settings: WordsSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.pictures = [*labels.read_index(Path(settings.index)), *labels.drawn(settings.drawn)]
        for one in self.pictures:
            if one.file and not (Path(settings.pictures) / one.file).is_file():
                raise TrainingError(
                    f"the index lists {one.file}, and {settings.pictures} has no such file: "
                    "give --pictures the folder that the index was written for"
                )
        if len(settings.ranks) != len(style_vector.TAPS):
            raise TrainingError(f"ranks needs {len(style_vector.TAPS)} numbers, one for each layer")
        self.device = devices.choose(settings.device)
        self.encoder = features.load(settings.encoder, padding="replicate").prepare(self.device)
        self.layout: Layout = layout_of(self.encoder)

    def measured(self, progress: Progress) -> Data | None:
        """The measurements of all pictures; None if the listener stopped them, after saving what is done."""
        found = self._kept()
        for place in range(len(found["vectors"]), len(self.pictures)):
            picture = self.picture(self.pictures[place])
            with torch.no_grad():
                vector = style_vector.measure(self.encoder, picture, self.layout, self.device)
            row = torch.tensor(list(traits.measured(picture).values()))
            found["vectors"] = torch.cat([found["vectors"], vector[None]])
            found["traits"] = torch.cat([found["traits"], row[None]])
            going = progress.report(place + 1, len(self.pictures), stage="measuring")
            if not going or (place + 1) % _SAVE_EVERY == 0 or place + 1 == len(self.pictures):
                self._keep(found)
            if not going:
                return None
        vectors, rows = (found[name].double().numpy() for name in ("vectors", "traits"))
        return Data(vectors, rows, self.pictures)

    def picture(self, one: Labelled) -> Picture:
        """A picture to learn from."""
        if one.drawn:
            return Picture.of(examples.style(one.drawn, size=_DRAWN, seed=one.seed))
        return Picture.open(Path(self.settings.pictures) / one.file)

    def fit(self, data: Data) -> Fitted:
        """The model of these measurements."""
        names = ("components", "prototypes", "shrinkage", "least", "worst", "seed")
        options: dict[str, Any] = {name: getattr(self.settings, name) for name in names}
        return word_model.fit(data, self.layout, **options)

    def state(self, fitted: Fitted, data: Data) -> State:
        """The tensors of the model; correlations and palettes are measured for the prototypes alone."""
        pictures = [self.picture(self.pictures[place]) for place in fitted.prototypes]
        palettes = torch.stack([_palette(picture) for picture in pictures])
        return numbers(fitted, data) | {"palettes": palettes} | self._factors(pictures)

    def facts(self, fitted: Fitted) -> dict[str, str]:
        """The model's metadata: its vocabulary, layout, encoder and settings."""
        return {
            "vocabulary": json.dumps([vars(word) for word in fitted.vocabulary]),
            "dropped": json.dumps({word.name: word.auc for word in fitted.dropped}),
            "channels": json.dumps(dict(self.layout.channels)),
            "sides": json.dumps(list(self.layout.sides)),
            "encoder": weights.fingerprint(self.settings.encoder),
            "training": json.dumps(portable(self.settings.model_dump(mode="json"))),
        }

    def write(self, path: Path, state: State, fitted: Fitted) -> None:
        """Write the model as a safetensors file."""
        from safetensors.torch import save_file

        with atomic(path) as beside:
            save_file({name: one.contiguous() for name, one in state.items()}, beside, self.facts(fitted))

    def _factors(self, pictures: Sequence[Picture]) -> State:
        """The factors of the correlations, (P, sides, C, rank) int8 in units of 1/127, by tap."""
        rows = [[self._factors_at(picture, side) for side in self.layout.sides] for picture in pictures]
        return {
            f"factors {tap}": torch.stack([torch.stack([one[tap] for one in row]) for row in rows])
            for tap in self.layout.channels
        }

    def _factors_at(self, picture: Picture, side: int) -> State:
        """The factors (C, rank) of a picture at one size, by tap."""
        image = picture.resized(fit(picture.shape, side)).tensor(self.device)
        with torch.no_grad():
            found = self.encoder(image, list(self.layout.channels))
        ranks = dict(zip(self.layout.channels, self.settings.ranks, strict=True))
        return {
            tap: (127 * factor(correlation(one).cpu(), min(ranks[tap], one.shape[1]))).round().to(torch.int8)
            for tap, one in found.items()
        }

    def _kept(self) -> State:
        """The measurements that an earlier run left in the folder, or none."""
        from safetensors.torch import load_file

        path = self._measurements
        if path.is_file() and weights.metadata(path).get("of") == self._of():
            return load_file(path)
        width = sum(self.layout.lengths.values())
        return {"vectors": torch.empty(0, width), "traits": torch.empty(0, len(traits.WORDS))}

    def _keep(self, found: State) -> None:
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(self._measurements) as beside:
            save_file(found, beside, metadata={"of": self._of()})

    @property
    def _measurements(self) -> Path:
        return self.folder / "measured.safetensors"

    def _of(self) -> str:
        """A hash of what is measured: the pictures' names, the encoder, and what is measured of them."""
        names = [(one.file, one.drawn, one.seed) for one in self.pictures]
        facts = (names, weights.fingerprint(self.settings.encoder), self.layout.lengths, list(traits.WORDS))
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def numbers(fitted: Fitted, data: Data) -> State:
    """The tensors of a model that follow from the fit, float16: all but palettes and correlations."""
    chosen = list(fitted.prototypes)
    parts = {
        "mean": fitted.components.mean,
        "basis": fitted.components.basis,
        "codes": fitted.components.codes(data.vectors[chosen]),
        "covariance": fitted.covariance,
        "directions": fitted.directions,
        "noise": np.array(fitted.noise),
        "traits": fitted.axes.values[chosen],
        "fits": fitted.fits[chosen],
        "typical": fitted.typical[chosen],
    }
    return {name: torch.from_numpy(np.ascontiguousarray(one)).half() for name, one in parts.items()}


def _palette(picture: Picture) -> Tensor:
    """The palette (COLOURS, 4) of a picture, uint8: sRGB, and the share of each colour, 255 for the largest.

    With fewer distinct colours the rest have no share.
    """
    from atelier.colour import cielab
    from atelier.colour.palette import nearest, palette

    pixels = picture.resized(fit(picture.shape, 256)).pixels
    points = cielab.to_lab(pixels).reshape(-1, 3)
    centres = palette(points, COLOURS, seed=0)
    counts = np.bincount(nearest(points, centres), minlength=len(centres))
    rows = np.zeros((COLOURS, 4), np.uint8)
    rows[: len(centres), :3] = np.round(255 * cielab.from_lab(centres[None])[0])
    rows[: len(centres), 3] = np.maximum(np.round(255 * counts / counts.max()), 1)
    return torch.from_numpy(rows)
