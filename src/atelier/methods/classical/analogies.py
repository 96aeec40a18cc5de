"""Image analogies: apply to the photo B the transformation from A to A', using only pixels of A'.

A' is the style. Each pixel of the result is the style pixel whose neighbourhood is most similar, in the
photo, in the result so far, and at a coarser size. If it is nearly as similar, the pixel that continues the
match of a neighbour is used instead (Hertzmann et al. 2001). The method covers all uses in the paper: a
painting style; a filter learned from one pair of pictures (`--quality filter --unfiltered BEFORE`, best at
their own size); and texture by numbers, where the photo and `unfiltered` are maps of coloured regions
(`--quality numbers`).

Differences from the paper (`--quality published` is closest to it): above 200 x 200 pixels the search is
PatchMatch; the same rule then chooses or continues its matches in two passes, forwards and backwards. If the
unstyled version of the style is not known, A is the style after an anisotropic Kuwahara filter as wide as its
strokes; the paper uses a blur. Colours are compared and taken from the style: the photo's colours are first
moved to A's, half by a linear map and half by matching whole distributions. The paper matches the luminances
of A and A' to B's and keeps B's colours (`--channels luminance`). The photo has five times the weight of the
result so far, to preserve faces, and noise is added to its tones, so that flat areas do not repeat one patch.
When learning a filter, the output of the best linear filter is compared too, and its difference between a
pixel and its match is added, so that a blur is learned from one pair almost without error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from atelier.core.errors import InputError, UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images import Picture
from atelier.images.resize import resize
from atelier.maths.layout import to_array, to_tensor
from atelier.methods.base import Job, Method, Paper
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    import numpy.typing as npt

    from atelier.patches.analogy import Level, Rules
    from atelier.patches.analogy_channels import Prediction

    Floats = npt.NDArray[np.float32]

_COARSEST = 16  # pixels of the shortest side
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class Analogies(Method):
    """Rebuild the photo from pixels of the style, by analogy with the style's unstyled original."""

    name = "analogies"
    paper = Paper(
        "Hertzmann, Jacobs, Oliver, Curless & Salesin",
        2001,
        "Image analogies",
        "https://doi.org/10.1145/383259.383295",
    )

    class Knobs(AnyKnobs):
        """The features to compare, and the search."""

        unfiltered: str = knob(
            "",
            "Unstyled version of the style (A), in the same proportions; by default the smoothed style.",
            file="picture",
        )
        smoothing: float = knob(
            1.2, "Width of that smoothing, relative to the stroke width of the style; 0 for none.", ge=0, le=8
        )
        channels: Literal["colour", "luminance"] = knob(
            "colour", "Colours of the style, or its luminance with the photo's colours."
        )
        remap: bool = knob(True, "Match the colours or luminances of photo and style before the search.")
        coherence: float = knob(
            2.0,
            "Coherence (kappa): how much worse a match may be if it continues a neighbour's.",
            ge=0,
            le=100,
        )
        structure: float = knob(
            5.0, "Weight of the photo, relative to what is already painted.", gt=0, le=100
        )
        orientation: float = knob(0.5, "Weight of edge direction, relative to colours.", ge=0, le=10)
        variation: float = knob(
            0.25,
            "Noise added to the tones of the photo, so that flat areas do not repeat one patch; 0 for none.",
            ge=0,
            le=2,
        )
        prediction: bool = knob(False, "Also compare the output of the best linear filter from A to A'.")
        window: int = knob(5, "Side of the neighbourhood that is compared, in pixels; odd.", ge=1, le=15)
        levels: int = knob(
            0,
            "Number of pyramid levels, each twice the size of the previous one; 0 starts at about 16 pixels.",
            ge=0,
            le=12,
        )
        search: Literal["patchmatch", "tree"] = knob(
            "patchmatch", "Search method: quick, or as published, which takes ten times as long."
        )
        rounds: int = knob(2, "Rounds of PatchMatch and synthesis at each level.", ge=1, le=20)

    qualities = {  # noqa: RUF012
        "draft": {"rounds": 1},
        "good": {},
        "best": {"rounds": 4},
        "filter": {
            "remap": False,
            "coherence": 0.0,
            "structure": 10.0,
            "orientation": 0.0,
            "variation": 0.0,
            "prediction": True,
            "window": 1,
            "levels": 1,
            "search": "tree",
        },
        "numbers": {
            "remap": False,
            "coherence": 5.0,
            "structure": 3.0,
            "orientation": 0.0,
            "variation": 0.0,
        },
        "published": {
            "channels": "luminance",
            "coherence": 5.0,
            "structure": 1.0,
            "orientation": 0.0,
            "variation": 0.0,
            "search": "tree",
        },
    }
    sizes = {  # noqa: RUF012
        "draft": 512,
        "good": 768,
        "best": 1024,
        "filter": 1024,
        "numbers": 768,
        "published": 512,
    }

    def transfer(self, job: Job, knobs: Analogies.Knobs) -> torch.Tensor:
        from atelier.patches.analogy import synthesise

        if knobs.window % 2 == 0:
            raise UsageError(f"window must be odd, not {knobs.window}: use {knobs.window + 1}")
        trio = prepared(job, knobs)
        levels = knobs.levels or _levels(trio)
        made = trio.filtered

        def preview() -> torch.Tensor:
            return _picture(job, knobs, made)

        for done, total, level in synthesise(
            trio.source, trio.filtered, trio.target, _rules(knobs), levels=levels, seed=job.seed
        ):
            made = trio.finished(level)
            if not job.progress.report(done, total, stage="matching", preview=preview):
                break
        return _picture(job, knobs, made)


@dataclass
class Trio:
    """A and A' (H', W', C) and B (H, W, C) as compared: three colour channels, or luminance only."""

    source: Floats
    filtered: Floats
    target: Floats
    prediction: Prediction | None = None

    def finished(self, level: Level) -> Floats:
        """B' of a level; at the last level with the correction by the linear filter."""
        if self.prediction is None or level.made.shape != self.prediction.target.shape:
            return level.made
        return self.prediction.corrected(level.made, level.field)


def prepared(job: Job, knobs: Analogies.Knobs) -> Trio:
    """The three pictures of the analogy. Raises InputError if `unfiltered` does not fit the style."""
    from atelier.patches.analogy_channels import predicted

    style, photo = to_array(visible_part(job)), to_array(job.content)
    trio = Trio(_unfiltered(style, knobs, job.files.get("unfiltered")), style, photo)
    trio = _in_luminance(trio, knobs) if knobs.channels == "luminance" else _in_colour(trio, knobs, job.seed)
    if knobs.variation:
        trio.target = trio.target + knobs.variation * _uneven(trio, job.seed)
    if knobs.prediction:
        trio.prediction = predicted(trio.source, trio.filtered, trio.target, job.seed)
        first, second = trio.prediction.trusted()
        trio.source = np.concatenate([trio.source, first], 2)
        trio.target = np.concatenate([trio.target, second], 2)
    return trio


def _unfiltered(style: Floats, knobs: Analogies.Knobs, picture: Picture | None) -> Floats:
    """A: the picture in the file, or the style with its strokes smoothed away."""
    from atelier.filtering.kuwahara import anisotropic_kuwahara
    from atelier.filtering.stroke_width import stroke_width

    if picture is None:
        if not knobs.smoothing:
            return style
        # Shapes can be measured as wide strokes; this limits the width.
        most = max(2.0, max(style.shape[:2]) / 40)
        return anisotropic_kuwahara(style, knobs.smoothing * min(max(stroke_width(style), 2.0), most))
    height, width = style.shape[:2]
    (own_width, own_height), slack = picture.size, 0.02 + 1 / min(height, width)
    if abs(math.log(own_width * height / (own_height * width))) > slack:
        raise InputError(
            f"'{knobs.unfiltered}' ({own_width} x {own_height} pixels) must have the proportions of the style"
            f" ({width} x {height}): use the uncropped picture that the style was made from"
        )
    return picture.resized((height, width)).pixels


def _in_colour(trio: Trio, knobs: Analogies.Knobs, seed: int) -> Trio:
    """The analogy with the photo in A's colours, if `remap` is set."""
    from atelier.colour import match_moments
    from atelier.colour.transfer import sliced

    if not knobs.remap:
        return trio
    photo, source = to_tensor(trio.target), to_tensor(trio.source)
    moved = 0.5 * (match_moments(photo, source) + sliced(photo, source, iterations=8, seed=seed))
    return Trio(trio.source, trio.filtered, to_array(moved))


def _in_luminance(trio: Trio, knobs: Analogies.Knobs) -> Trio:
    """The analogy in luminance (H, W, 1); `remap` gives A and A' B's mean and deviation (section 3.4)."""
    source, filtered, target = (one @ _matrix()[0] for one in (trio.source, trio.filtered, trio.target))
    if knobs.remap:
        mean, goal = source.mean(), target.mean()
        # Limits for flat pictures: a flat photo would erase the style, a flat style would only give noise.
        scale = np.clip(target.std() / max(float(source.std()), 1e-6), 0.25, 4.0)
        source, filtered = ((one - mean) * scale + goal for one in (source, filtered))
    planes = [np.ascontiguousarray(one[..., None], np.float32) for one in (source, filtered, target)]
    return Trio(planes[0], planes[1], planes[2])


def _uneven(trio: Trio, seed: int) -> Floats:
    """Multi-scale noise (H, W, 1) with the amplitude of A's tonal variation."""
    from atelier.filtering.noise import noise

    height, width = trio.target.shape[:2]
    hills = noise((height, width), 32.0, seed, octaves=4)[..., None]
    return hills * np.float32(trio.source.mean(axis=2).std())


def _levels(trio: Trio) -> int:
    shortest = min(*trio.source.shape[:2], *trio.target.shape[:2])
    return 1 + max(0, math.floor(math.log2(shortest / _COARSEST)))


def _rules(knobs: Analogies.Knobs) -> Rules:
    from atelier.patches.analogy import Rules

    return Rules(
        coherence=knobs.coherence,
        window=knobs.window,
        structure=knobs.structure,
        orientation=knobs.orientation,
        exact=math.inf if knobs.search == "tree" else Rules.exact,
        rounds=knobs.rounds,
        threads=torch.get_num_threads(),
    )


def _picture(job: Job, knobs: Analogies.Knobs, made: Floats) -> torch.Tensor:
    """The result at the photo's size, with the photo's colours if only luminance was computed."""
    height, width = job.content.shape[-2:]
    picture = resize(to_tensor(made).to(job.device), (height, width))
    if knobs.channels == "luminance":
        matrix = torch.from_numpy(_matrix()).to(job.content)
        yiq = torch.einsum("ij,bjhw->bihw", matrix, job.content)
        yiq = torch.cat([picture, yiq[:, 1:]], 1)
        picture = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(matrix), yiq)
    return picture.clamp(0, 1)


def _matrix() -> Floats:
    return np.array(_YIQ, np.float32)
