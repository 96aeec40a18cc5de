"""Strokes: paint the photo with brush strokes, coarse ones first and finer ones where detail is missing.

Four published manners paint in layers (Hertzmann 1998: impressionist, expressionist, colourist wash,
pointillist). "numbers" uses straight strokes (Haeberli 1990), which a relaxation moves, adds and removes. A
style picture is optional: if there is one, strokes take their colours from its palette and their size from
the width of its brush marks.

Differences from the papers: strokes follow the smoothed structure tensor instead of the gradient at one
point; brushes have bristles, and paint has a height, which is shaded; radii scale with the picture, so that
a larger picture is not painted with relatively smaller brushes; and finer brushes correct coarser ones at
half the published threshold (`detail`), to preserve faces.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import to_array, to_tensor
from atelier.methods.base import Job, Method, Paper, Result, Takes
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    import numpy.typing as npt

    from atelier.strokes.canvas import Strokes as Painted
    from atelier.strokes.layers import Manner

    Floats = npt.NDArray[np.float32]
    WeightedStyles = Sequence[tuple[torch.Tensor, float | Floats]]

_FRAMES = 28  # frames of the timelapse for each layer


class Strokes(Method):
    """Paint the photo with brush strokes, in the palette and stroke size of a style if one is given."""

    name = "strokes"
    paper = Paper(
        "Hertzmann",
        1998,
        "Painterly rendering with curved brush strokes of multiple sizes",
        "https://doi.org/10.1145/280814.280951",
    )
    native = frozenset({"styles", "regions"})
    takes = Takes(least=0)

    class Knobs(AnyKnobs):
        """Brush, paint and exports."""

        manner: Literal["impressionist", "expressionist", "wash", "pointillist", "numbers"] = knob(
            "impressionist", "Painting style: a published one; 'numbers' is Haeberli's, with relaxation."
        )
        brush: float = knob(1.0, "Brush size, relative to that of the manner or of the style.", ge=0.2, le=8)
        sizes: Literal["style", "manner"] = knob(
            "style", "Source of the stroke size: the style picture, if there is one, or the manner."
        )
        palette: Literal["style", "photo"] = knob(
            "style", "Source of the colours: the style picture, if there is one, or the photo."
        )
        colours: int = knob(
            24, "Number of palette colours taken from the style; 0 for no palette.", ge=0, le=256
        )
        detail: float = knob(
            2.0, "Fidelity: how closely fine brushes correct coarse ones; 1 is as published.", ge=0.2, le=10
        )
        opacity: float = knob(0.0, "Opacity of the strokes; 0 uses that of the manner.", ge=0, le=1)
        texture: float = knob(0.6, "Strength of the bristle marks.", ge=0, le=1)
        impasto: float = knob(0.25, "Strength of the shading of thick paint.", ge=0, le=1)
        iterations: int = knob(2, "Rounds of relaxation for 'numbers'.", ge=0, le=100)
        svg: str = knob("", "File for the strokes as vectors, .svg.", writes=(".svg",))
        timelapse: str = knob(
            "", "File for an animation of the painting process, .gif or .webp.", writes=(".gif", ".webp")
        )

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 1},
        "good": {},
        "best": {"iterations": 8},
    }
    sizes = {"draft": 640, "good": 1024, "best": 2048}  # noqa: RUF012

    def transfer(self, job: Job, knobs: Strokes.Knobs) -> Result:
        easel = Easel(job, knobs)
        for strokes in easel.work():
            easel.paint(strokes)
        return Result(easel.tensor(), exports(easel, knobs))


class Easel:
    """The state of a painting: the recoloured photo, the canvas, and the strokes so far."""

    def __init__(self, job: Job, knobs: Strokes.Knobs) -> None:
        from atelier.strokes.canvas import Canvas
        from atelier.strokes.layers import MANNERS

        self.job, self.knobs = job, knobs
        self.layered = _manner(MANNERS.get(knobs.manner), knobs)
        photo = to_array(job.content)
        styles = _styles(job)
        self.size = (photo.shape[0], photo.shape[1])
        # The published radii are for pictures of about 512 pixels.
        self.unit = max(self.size) / 512 * knobs.brush * _style_scale(styles, knobs, max(self.size) / 512)
        self.source, self.palette = _in_palette(photo, styles, knobs, job.seed)
        self.ground = _ground(self.source, knobs.manner)
        opacity = self.layered.opacity if self.layered else knobs.opacity or 1.0
        self.canvas = Canvas(
            self.size, self.ground, opacity=opacity, texture=knobs.texture, seed=job.seed % 2**32
        )
        self.painted: list[Painted] = []
        self.frames: list[npt.NDArray[np.uint8]] = []

    def work(self) -> Iterator[Painted]:
        """The strokes, in groups. Each group must be painted before the next is requested."""
        return self._layers(self.layered) if self.layered else self._numbers()

    def _layers(self, manner: Manner) -> Iterator[Painted]:
        from atelier.strokes.layers import layers

        radii = tuple(max(radius * self.unit, 0.5) for radius in manner.radii)
        for done, strokes in enumerate(layers(self.source, self.canvas, manner, radii, self.job.seed), 1):
            yield dataclasses.replace(strokes, colours=self.mixed(strokes.colours))
            if not self.job.progress.report(done, len(radii), stage="painting", preview=self.tensor):
                return

    def _numbers(self) -> Iterator[Painted]:
        from atelier.strokes.relaxation import Painting

        radius = max(3.0 * self.unit, 0.5)
        painting = Painting.by_numbers(self.source, radius, price=0.004 * radius**2, seed=self.job.seed)
        steps = self.knobs.iterations + 1
        for done, energy in enumerate(painting.relax(self.knobs.iterations, self.job.seed), 1):
            more = self.job.progress.report(
                done,
                steps,
                stage="relaxing",
                losses={"energy": energy},
                preview=lambda: to_tensor(painting.render()),
            )
            if not more:
                break
        strokes = painting.strokes()
        yield dataclasses.replace(strokes, colours=self.mixed(strokes.colours))
        self.job.progress.report(steps, steps, stage="painting", preview=self.tensor)

    def mixed(self, colours: Floats) -> Floats:
        """Colours (N, 3) moved to the palette: hue and chroma of the nearest colour, lightness half way."""
        from atelier.colour.cielab import from_lab, to_lab
        from atelier.colour.palette import nearest

        if self.palette is None or not len(colours):
            return colours
        lab = to_lab(colours[None])[0]
        near = self.palette[nearest(lab, self.palette)]
        near[:, 0] = 0.5 * (near[:, 0] + lab[:, 0])
        mixed: Floats = from_lab(near[None])[0]
        return mixed

    def paint(self, strokes: Painted) -> None:
        """Paint the strokes on the canvas, and record frames if a timelapse is requested."""
        parts = _FRAMES if self.knobs.timelapse else 1
        edges = [len(strokes) * index // parts for index in range(parts + 1)]
        for first, last in itertools.pairwise(edges):
            self.canvas.paint(strokes.part(first, last))
            if self.knobs.timelapse:
                self.frames.append(_frame(self.picture()))
        self.painted.append(strokes)

    def picture(self) -> Floats:
        """The canvas so far (H, W, 3)."""
        body = self.layered.body if self.layered else 1.0
        return self.canvas.picture(self.knobs.impasto * body)

    def tensor(self) -> torch.Tensor:
        """The canvas so far, (1, 3, H, W) on the job's device."""
        return to_tensor(self.picture()).to(self.job.device)


def _manner(published: Manner | None, knobs: Strokes.Knobs) -> Manner | None:
    if published is None:
        return None
    return dataclasses.replace(
        published,
        threshold=published.threshold / knobs.detail,
        opacity=knobs.opacity or published.opacity,
    )


def _styles(job: Job) -> WeightedStyles:
    """The styles with a weight above 0, and their shares, per pixel (H, W, 1) or global, summing to 1."""
    if job.regions is None:
        shares: list[Any] = list(job.style_weights)
    else:
        # Outside all regions, the photo is restored afterwards.
        everywhere = job.regions / job.regions.sum(0).clamp(min=1e-6)
        shares = [share[0, ..., None].cpu().numpy() for share in everywhere]
    styles = [visible_part(job, index) for index in range(len(job.styles))]
    return [(style, share) for style, share in zip(styles, shares, strict=True) if np.max(share) > 0]


def _style_scale(styles: WeightedStyles, knobs: Strokes.Knobs, published: float) -> float:
    """The width of the style's brush marks relative to the manner's middle brush."""
    from atelier.filtering.stroke_width import stroke_width

    if knobs.sizes == "manner" or not styles:
        return 1.0
    sizes = [math.log(stroke_width(to_array(style)) / (8 * published)) for style, _ in styles]
    mean = float(np.average(sizes, weights=[float(np.mean(share)) for _, share in styles]))
    return min(max(math.exp(mean), 0.5), 2.5)


def _in_palette(
    photo: Floats, styles: WeightedStyles, knobs: Strokes.Knobs, seed: int
) -> tuple[Floats, Floats | None]:
    """The photo in the styles' colours, and their palette (K, 3) in CIELAB, or None without a palette."""
    from atelier.colour.cielab import to_lab
    from atelier.colour.palette import palette
    from atelier.colour.transfer import sliced
    from atelier.maths.compiled import floats

    if knobs.palette == "photo" or not styles:
        return photo, None
    content = to_tensor(photo)
    moved = [
        share * to_array(sliced(content, style.cpu(), iterations=8, seed=seed)) for style, share in styles
    ]
    source = floats(np.add.reduce(moved).clip(0, 1))
    if not knobs.colours:
        return source, None
    counts = [max(1, round(knobs.colours * float(np.mean(share)))) for _, share in styles]
    found = [
        palette(to_lab(to_array(style)), count, seed)
        for (style, _), count in zip(styles, counts, strict=True)
    ]
    return source, np.concatenate(found)


def _ground(source: Floats, manner: str) -> Floats:
    """The colour of the canvas: paper for washes, otherwise the picture's mean colour."""
    if manner == "wash":
        return np.array([0.97, 0.96, 0.93], np.float32)
    ground: Floats = source.mean(axis=(0, 1))
    return ground


# exports


def exports(easel: Easel, knobs: Strokes.Knobs) -> dict[str, bytes]:
    """The requested exports: the strokes as SVG, and the timelapse."""
    from atelier.strokes.canvas import Strokes as Painted
    from atelier.strokes.svg import to_svg

    made: dict[str, bytes] = {}
    if knobs.svg:
        text = to_svg(Painted.joined(easel.painted), easel.size, easel.ground, easel.canvas.opacity)
        made["svg"] = text.encode()
    if knobs.timelapse:
        made["timelapse"] = _film(easel.frames, knobs.timelapse.lower())
    return made


def _frame(picture: Floats) -> npt.NDArray[np.uint8]:
    """A frame of the timelapse, with a long side of at most 640 pixels."""
    import cv2

    from atelier.maths.compiled import floats

    scale = 640 / max(picture.shape[:2])
    if scale < 1:
        picture = floats(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    whole: npt.NDArray[np.uint8] = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return whole


def _film(frames: Sequence[npt.NDArray[np.uint8]], name: str) -> bytes:
    """Encode the frames as WebP or GIF, according to the extension of `name`."""
    import io

    from PIL import Image

    webp = name.endswith(".webp")
    images = [Image.fromarray(frame) for frame in frames]
    durations = [70] * (len(images) - 1) + [2500]
    buffer = io.BytesIO()
    more: dict[str, Any] = {"quality": 85, "method": 2} if webp else {"optimize": False}
    images[0].save(
        buffer,
        "WEBP" if webp else "GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        **more,
    )
    return buffer.getvalue()
