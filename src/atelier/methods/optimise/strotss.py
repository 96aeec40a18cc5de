"""STROTSS: match the picture's features to the style's by optimal transport, and keep its self-similarity.

Feature columns at a thousand positions are matched to thousands of the style's. The content loss compares
self-similarity, so that shapes stay while all colours can change. The picture's Laplacian pyramid is
optimised, coarse to fine, and regions of the content can be tied to regions of the style.

Differences from the paper and its code, where they cost nothing or improve the result: positions are evenly
sampled single pixels (the code shuffles rows and columns separately, so that positions leave their region),
inputs are scaled down with antialiasing, a black pixel does not break the palette, the nearest-neighbour
search runs in bfloat16 if the processor supports it, and the result is the average of the last iterates. The
bundled encoder uses its own layers, fewer steps and half the content weight, because with these layers the
content loss would otherwise preserve every brick of a tower. `--quality published` uses VGG-16 and the
code's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from atelier import features, maths
from atelier.core.errors import UsageError
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.base import Job, Paper
from atelier.methods.optimise.coarse_to_fine import EncoderKnobs, size_of, stages, style_at
from atelier.methods.optimise.common import _Optimising

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Masks = Sequence[tuple["torch.Tensor", "torch.Tensor"]]
_LEVELS = 6


class Strotss(_Optimising):
    """Match the picture's features to the style's by optimal transport, keeping its self-similarity."""

    name = "strotss"
    paper = Paper(
        "Kolkin, Salavon & Shakhnarovich",
        2019,
        "Style Transfer by Relaxed Optimal Transport and Self-Similarity",
        "https://arxiv.org/abs/1904.12785",
    )
    native = frozenset({"styles", "regions"})

    class Knobs(EncoderKnobs):
        """Loss weights, steps, and numbers of sampled positions."""

        layers: tuple[str, ...] = knob(
            ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu4_3"),
            "Taps that form a column, from fine to coarse; the pixel's colour always comes first.",
        )
        content_weight: float = knob(
            0.5, "The paper's alpha: weight of the content, 16 times this at the coarsest size.", ge=0
        )
        smallest: int = knob(64, "Long side of the coarsest size in pixels.", ge=16)
        iterations: int = knob(60, "Steps at the final size.", ge=1)
        coarse_iterations: int = knob(120, "Steps at each coarser size.", ge=1)
        step_size: float = knob(
            2e-3, "Learning rate at the coarser sizes; halved at the final size.", gt=0, le=1
        )
        average: float = knob(
            0.9, "Decay of the running average of iterates; 0 returns the last iterate.", ge=0, lt=1
        )
        places: int = knob(1024, "Positions of the picture compared at each step.", ge=16)
        style_places: int = knob(5000, "Positions sampled from the style.", ge=16)
        content_regions: str = knob(
            "", "Picture whose flat colours mark regions of the content.", file="data"
        )
        style_regions: str = knob(
            "", "Picture with the same colours on the matching regions of the style.", file="data"
        )

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 25, "coarse_iterations": 60},
        "good": {},
        "best": {"iterations": 120, "coarse_iterations": 250},
        "published": {
            "encoder": "vgg16.imagenet",
            "layers": (
                *("relu1_1", "relu1_2", "relu2_1", "relu2_2"),
                *("relu3_1", "relu3_2", "relu3_3", "relu4_3", "relu5_3"),
            ),
            "padding": "zeros",
            "half": False,
            "content_weight": 1.0,
            "iterations": 250,
            "coarse_iterations": 250,
            "average": 0.0,
        },
    }

    def paint(self, job: Job, knobs: Strotss.Knobs, encoder: features.VGG) -> torch.Tensor:
        from atelier.maths import sizes

        areas, final = _areas(job, knobs), size_of(job.content)
        weight, picture, previous = 16 * knobs.content_weight, job.content, None
        for stage in stages(job, knobs, sizes(final, smallest=knobs.smallest)):
            styles = [style_at(job, style, stage.size) for style in job.styles]
            mean = mean_colour(styles, areas, job.looks.seen)
            start = first_picture(stage.content, mean, previous, final=stage.final)
            step_size = knobs.step_size / 2 if stage.final else knobs.step_size
            descent = pyramid_descent(
                _objective(job, knobs, encoder, stage.content, styles, areas, weight),
                **{**stage.options, "step_size": step_size},
            )
            picture = descent.run(start)
            # The next size starts from the last evaluation, as in the published code, not from the average.
            previous = picture if descent.failed else descent.image.detach()
            weight /= 2
        return resize(picture, final)


# the picture at one size


def first_picture(
    content: torch.Tensor, colour: torch.Tensor, previous: torch.Tensor | None, *, final: bool
) -> torch.Tensor:
    """The initial picture of a size, (1, 3, H, W): the previous one enlarged, plus fine detail.

    The first size uses the style's mean `colour` (1, 3, 1, 1) instead of a previous picture. The last size
    adds no detail, because it would cover strokes.
    """
    height, width = content.shape[-2:]
    if previous is not None:
        whole = _resized(previous, (height, width))
        if final:
            return whole
    else:
        whole = colour
    half = _resized(content, (max(1, height // 2), max(1, width // 2)))
    return whole + content - _resized(half, (height, width))


def mean_colour(
    styles: Sequence[torch.Tensor],
    areas: Sequence[Area],
    seen: Sequence[torch.Tensor | None] = (),
) -> torch.Tensor:
    """The mean colour (1, 3, 1, 1) of the styles (1, 3, H, W), weighted by their shares of the content.

    `seen` are their alphas (1, 1, H', W'): hidden pixels are ignored.
    """
    weights = [maths.weight_at(a, size_of(style)) for style, a in zip(styles, seen, strict=bool(seen))]
    weights = weights or [None] * len(styles)
    means = torch.cat(
        [
            style.mean((2, 3), keepdim=True)
            if weight is None
            else (style * weight).sum((2, 3), keepdim=True) / weight.sum()
            for style, weight in zip(styles, weights, strict=True)
        ]
    )
    shares = sum(area.content.mean() * means.new_tensor(area.shares) for area in areas)
    assert isinstance(shares, torch.Tensor)
    return (means * (shares / shares.sum()).view(-1, 1, 1, 1)).sum(0, keepdim=True)


def pyramid_descent(objective: Any, **options: Any) -> Any:
    """The descent of the paper: RMSprop on the levels of a Laplacian pyramid."""
    from atelier.maths.free_descent import PyramidDescent

    return PyramidDescent(objective, split=split, merge=merge, **options)


def split(image: torch.Tensor) -> list[torch.Tensor]:
    """The published pyramid of an image (1, 3, H, W): five details, fine to coarse, and the residual."""
    return maths.split(image, _LEVELS, halving="corners")


def merge(levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Reconstruct the image from a pyramid."""
    return maths.merge(levels, halving="corners")


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    from torch.nn import functional

    return functional.interpolate(image, size, mode="bilinear", align_corners=False)


# the objective


class Region:
    """The target for a region of the content: the columns `style` (M, C) of the matching style region.

    `draw` returns the positions (N, 2) of the region to compare next.
    """

    def __init__(
        self, style: torch.Tensor, draw: Callable[[], torch.Tensor], *, dtype: torch.dtype | None = None
    ) -> None:
        from atelier.losses.transport import ColumnMomentLoss, PaletteLoss, TransportLoss

        self.draw = draw
        self.transport, self.moments = TransportLoss(style, dtype=dtype), ColumnMomentLoss(style)
        self.palette = PaletteLoss(style[:, :3])

    def terms(self, now: torch.Tensor, before: torch.Tensor, weight: float) -> dict[str, torch.Tensor]:
        """The weighted terms of the picture's columns `now` (N, C), given the content's columns `before`."""
        from atelier.losses.transport import SelfSimilarityLoss

        return {
            "content": weight * SelfSimilarityLoss(before)(now),
            "transport": self.transport(now),
            "moments": self.moments(now),
            "palette": self.palette(now[:, :3]) / max(weight, 1.0),
        }


class StrotssObjective:
    """The objective at one size (eq. 1): the mean over the regions of their terms over `weight` + 2."""

    def __init__(
        self,
        encoder: features.VGG,
        taps: Sequence[str],
        content: torch.Tensor,
        regions: Sequence[Region],
        weight: float,
    ) -> None:
        from atelier.features.columns import layers

        self.encoder, self.taps, self.regions, self.weight = encoder, tuple(taps), regions, weight
        with torch.no_grad():
            self.content = layers(encoder, content, taps)

    def __call__(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        from atelier.features.columns import columns, layers

        found = layers(self.encoder, picture, self.taps)
        unit = (self.weight + 2) * len(self.regions)
        sums: dict[str, Any] = {}
        for region in self.regions:
            places = region.draw()
            now = columns(found, places, smooth=True)
            before = columns(self.content, places, smooth=True)
            for name, term in region.terms(now, before, self.weight).items():
                sums[name] = sums.get(name, 0) + term / unit
        return sums


def _objective(
    job: Job,
    knobs: Strotss.Knobs,
    encoder: features.VGG,
    content: torch.Tensor,
    styles: Sequence[torch.Tensor],
    areas: Sequence[Area],
    weight: float,
) -> StrotssObjective:
    """The objective at the content's size, with positions sampled from the job's seed."""
    from atelier.features.columns import columns, layers

    generator = torch.Generator().manual_seed(job.seed)
    regions = []
    with torch.no_grad():
        found = [layers(encoder, style, knobs.layers) for style in styles]
        for area in areas:
            parts = [
                columns(one, draw(_inside(area.style, one[0], seen), count, generator), smooth=False)
                for one, share, seen in zip(found, area.shares, job.looks.seen, strict=True)
                if (count := round(share * knobs.style_places))
            ]
            inside = _inside(area.content, content, job.content_seen)
            places = partial(draw, inside, knobs.places, generator)
            regions.append(Region(torch.cat(parts), places, dtype=encoder.dtype))
    return StrotssObjective(encoder, knobs.layers, content, regions, weight)


def draw(places: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` of the positions (N, 2), one from each of `count` equal runs; all if there are fewer."""
    if len(places) <= count:
        return places
    runs = torch.arange(count + 1) * len(places) // count
    within = torch.rand(count, dtype=torch.float64, generator=generator) * (runs[1:] - runs[:-1])
    return places[(runs[:-1] + within.long()).to(places.device)]


# regions


@dataclass(frozen=True)
class Area:
    """Matching areas of the content and the styles, as masks (H, W) of any size, with style shares."""

    content: torch.Tensor
    style: torch.Tensor
    shares: Sequence[float]


def _areas(job: Job, knobs: Strotss.Knobs) -> list[Area]:
    """The regions of the guides or the job, or one region that covers everything.

    Raises UsageError for guides that cannot be used.
    """
    everywhere = torch.ones(1, 1, device=job.device)
    if knobs.content_regions or knobs.style_regions:
        masks = _read_guides(job, knobs)
        return [
            Area(of_content.to(job.device), of_style.to(job.device), (1.0,)) for of_content, of_style in masks
        ]
    if job.regions is None:
        return [Area(everywhere, everywhere, job.style_weights)]
    best = torch.where(job.regions.sum(0)[0] > 0, job.regions[:, 0].argmax(0), -1)
    areas = []
    for index in range(len(job.styles)):
        inside = (best == index).float()
        if inside.any():
            shares = tuple(float(one == index) for one in range(len(job.styles)))
            areas.append(Area(inside, everywhere, shares))
    return areas or [Area(everywhere, everywhere, job.style_weights)]


def region_masks(content: npt.NDArray[np.uint8], style: npt.NDArray[np.uint8], smallest: int) -> Masks:
    """The regions of two guides (H, W, 3): one for each colour on at least `smallest` pixels of the style's.

    Each region is a pair of masks (H, W), 0 or 1, in the order of their colours.
    """
    import numpy as np

    colours, counts = np.unique(style.reshape(-1, 3), axis=0, return_counts=True)
    return [
        (
            torch.from_numpy((content == colour).all(2)).float(),
            torch.from_numpy((style == colour).all(2)).float(),
        )
        for colour in colours[counts >= smallest]
    ]


def mask_at(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The mask (H, W) at `size`, 0 or 1; all 1 if the region vanishes at that size."""
    scaled = _resized(mask[None, None], size)[0, 0]
    highest = float(scaled.max())
    if highest < 0.1:
        return torch.ones_like(scaled)
    return (scaled > min(0.5, highest / 2)).float()


def _inside(mask: torch.Tensor, picture: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
    """The positions (N, 2) of a picture (1, 3, H, W) that are inside a mask of any size and visible.

    If a region is entirely hidden, its hidden positions count.
    """
    inside, visible = mask_at(mask, size_of(picture)), maths.mask_at(seen, size_of(picture))
    both = inside if visible is None else inside * visible
    return (both if bool(both.any()) else inside).nonzero()


def _read_guides(job: Job, knobs: Strotss.Knobs) -> Masks:
    """The regions from the two guide files in the knobs."""
    if not (knobs.content_regions and knobs.style_regions):
        raise UsageError("content_regions and style_regions belong together: give both files, or neither")
    if len(job.styles) > 1 or job.regions is not None:
        raise UsageError("content_regions need exactly one style: give one style and no other regions")
    content, style = (
        (job.files[name].pixels * 255 + 0.5).astype("uint8") for name in ("content_regions", "style_regions")
    )
    # The published code requires more than 10000 pixels, for pictures of any size.
    masks = region_masks(content, style, smallest=max(1, style.shape[0] * style.shape[1] // 100))
    if not any(of_content.any() for of_content, _ in masks):
        raise UsageError(
            f"no colour of {knobs.style_regions} is in {knobs.content_regions}: mark matching regions "
            "with the same flat colour, and save both files as PNG (JPEG changes flat colours)"
        )
    return masks
