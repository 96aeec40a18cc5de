"""Elad-Milanfar: repaint the photo with patches of the style, coarse to fine, keeping salient content.

At each size, patches of the current picture are replaced by their nearest patches of the style, overlapping
patches are merged by a robust vote, the photo is blended in where it is salient, and the colours are moved to
the style's. Large patches come first, then small ones.

Differences from the paper: the saliency mask is computed from regions; the paper offers several options. The
coarsest size is the same for all pictures, so larger pictures have more levels. The very last round does not
blend in the photo, so that the surface comes from the style alone. Style patches are searched for on a grid
and then refined to the best neighbouring position. Patches have lower weight towards their border and are
averaged less (`robustness`, 0.8 in the paper), because otherwise patch borders show and brush marks vanish.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.maths.layout import to_array, to_tensor
from atelier.methods.base import Job, Method, Paper
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

_NOISE = 50 / 255  # standard deviation, added to the first picture so that large patches vary


class EladMilanfar(Method):
    """Repaint the photo with patches of the style, coarse to fine, keeping what is salient."""

    name = "elad_milanfar"
    paper = Paper(
        "Elad & Milanfar",
        2017,
        "Style Transfer Via Texture Synthesis",
        "https://arxiv.org/abs/1609.03057",
    )

    class Knobs(AnyKnobs):
        """The patches, and the weight of the photo."""

        content_weight: float = knob(
            1.0, "Weight of the photo against the patches in salient areas.", ge=0, le=100
        )
        background: float = knob(0.4, "Weight elsewhere, as a share of that; 1 is uniform.", ge=0, le=1)
        patches: tuple[int, ...] = knob((33, 21, 13, 9), "Patch sizes in pixels, from large to small.")
        gaps: tuple[int, ...] = knob((28, 18, 8, 5), "Stride between patches in pixels, for each patch size.")
        smallest: int = knob(
            128, "Long side of the coarsest level; a large value means a single level.", ge=16
        )
        iterations: int = knob(3, "Rounds for each patch size.", ge=1, le=100)
        robustness: float = knob(
            0.3,
            "Exponent of the vote: 2 is the mean of the patches; less is more robust to outliers.",
            gt=0,
            le=2,
        )
        votes: int = knob(10, "Iterations of each robust vote.", ge=1, le=100)
        energy: float = knob(
            0.95, "Share of the patch variance that the PCA keeps for the search.", gt=0, le=1
        )
        smoothing: float = knob(
            0.2, "Edge-aware smoothing after each round; 1 has a radius of 5 pixels, 0 is none.", ge=0, le=10
        )

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 1, "votes": 5},
        "good": {},
        "best": {"iterations": 5},
    }
    sizes = {"draft": 512, "good": 1024, "best": 1536}  # noqa: RUF012

    def transfer(self, job: Job, knobs: EladMilanfar.Knobs) -> torch.Tensor:
        _check(knobs)
        return Repainting(job, knobs).run().to(job.device)


def _check(knobs: EladMilanfar.Knobs) -> None:
    """Raise UsageError if the patches would leave gaps."""
    if not knobs.patches or len(knobs.patches) != len(knobs.gaps):
        raise UsageError(
            f"there are {len(knobs.patches)} patch sizes but {len(knobs.gaps)} gaps: "
            "give one gap for each patch size"
        )
    if min(knobs.patches) < 3 or max(knobs.patches) > 99:
        raise UsageError("patch sizes must be 3 to 99 pixels")
    if min(knobs.gaps) < 1 or any(a > b for a, b in zip(knobs.gaps, knobs.patches, strict=True)):
        raise UsageError("each gap must be at least 1 pixel and at most its patch size")


class Repainting:
    """The state of one run, from the coarsest size to the finest."""

    def __init__(self, job: Job, knobs: EladMilanfar.Knobs) -> None:
        from atelier.colour.transfer import regularised, sliced
        from atelier.filtering.saliency import foreground
        from atelier.maths.pyramid import sizes

        self.job, self.knobs = job, knobs
        photo, self.style = job.content.cpu(), visible_part(job).cpu()
        self.size = _size(photo)
        moved = sliced(photo, self.style, iterations=8, seed=job.seed)
        radius = round(max(self.size) / 128)
        self.content = regularised(moved, photo, radius=radius, strength=0.5).clamp(0, 1)
        standing = torch.from_numpy(foreground(to_array(photo)))[None, None]
        self.keep = knobs.content_weight * (knobs.background + (1 - knobs.background) * standing)
        self.levels = [self._level(size) for size in sizes(self.size, smallest=knobs.smallest)]

    def run(self) -> torch.Tensor:
        """The picture (1, 3, H, W), on the CPU."""
        first = self.levels[0].content
        generator = torch.Generator().manual_seed(self.job.seed)
        picture = first + _NOISE * torch.randn(first.shape, generator=generator)
        done, total = 0, sum(len(level.patches) for level in self.levels) * self.knobs.iterations
        for level in self.levels:
            for painted in level.rounds(picture):
                picture, done = painted, done + 1
                stage = f"{level.size[1]} x {level.size[0]}"
                if not self.job.progress.report(
                    done, total, stage=stage, preview=partial(torch.clamp, picture, 0, 1)
                ):
                    return resize(picture, self.size).clamp(0, 1)
        return picture.clamp(0, 1)

    def _level(self, size: tuple[int, int]) -> Level:
        ratio = max(size) / max(self.size)
        height, width = (max(1, round(side * ratio)) for side in _size(self.style))
        return Level(
            resize(self.content, size),
            resize(self.style, (height, width)),
            resize(self.keep, size),
            self.knobs,
            self.job.seed,
            last=size == self.size,
        )


class Level:
    """One size: photo, style and weight of the photo, (1, C, h, w) each, and the patch sizes that fit."""

    def __init__(
        self,
        content: torch.Tensor,
        style: torch.Tensor,
        keep: torch.Tensor,
        knobs: EladMilanfar.Knobs,
        seed: int,
        *,
        last: bool,
    ) -> None:
        self.content, self.knobs, self.seed, self.last = content, knobs, seed, last
        self.size = _size(content)
        self.colours = style
        self.keep = to_array(keep)
        least = min(knobs.patches)
        self.style, self.photo = (_at_least(to_array(one), least) for one in (style, content))
        limit = min(*self.style.shape[:2], *self.photo.shape[:2])
        self.patches = [
            (patch, gap) for patch, gap in zip(knobs.patches, knobs.gaps, strict=True) if patch <= limit
        ]

    def rounds(self, before: torch.Tensor) -> Iterator[torch.Tensor]:
        """The picture (1, 3, h, w) after each round, starting from a picture `before` of any size."""
        from atelier.maths.compiled import floats
        from atelier.patches.subspace import PatchSpace
        from atelier.patches.voting import corners, robust_vote

        picture = resize(before, self.size)
        for patch, gap in self.patches:
            space = PatchSpace(self.style, patch, energy=self.knobs.energy, seed=self.seed)
            places = corners(self.photo.shape[:2], patch, gap)
            for index in range(self.knobs.iterations):
                canvas = _at_least(to_array(picture), min(self.knobs.patches))
                voted = robust_vote(
                    canvas,
                    self.style,
                    places,
                    space.match(canvas, places),
                    patch,
                    power=self.knobs.robustness,
                    iterations=self.knobs.votes,
                )
                closing = self.last and patch == self.patches[-1][0] and index == self.knobs.iterations - 1
                picture = self._finished(floats(voted[: self.size[0], : self.size[1]]), closing)
                yield picture

    def _finished(self, voted: Floats, closing: bool) -> torch.Tensor:
        """Blend in the photo, apply the style's colours, and smooth; (1, 3, h, w)."""
        from atelier.colour.transfer import monge_kantorovich
        from atelier.maths.compiled import floats

        if not closing:
            photo = self.photo[: self.size[0], : self.size[1]]
            voted = floats((voted + self.keep * photo) / (1 + self.keep))
        picture = monge_kantorovich(to_tensor(voted), self.colours).clamp(0, 1)
        return to_tensor(_smooth(to_array(picture), self.knobs.smoothing))


def _smooth(picture: Floats, amount: float) -> Floats:
    """Domain transform filter (Gastal & Oliveira 2011); amount 1 is 5 pixels and a fifth of the range."""
    import cv2

    from atelier.maths.compiled import floats

    if not amount:
        return picture
    return floats(cv2.ximgproc.dtFilter(picture, picture, 5.0 * amount, 0.2 * amount))


def _at_least(picture: Floats, side: int) -> Floats:
    """A picture (H, W, C), padded by repeated mirroring to sides of at least `side`."""
    import numpy as np

    from atelier.maths.compiled import floats

    border = [(0, max(0, side - length)) for length in picture.shape[:2]]
    return floats(np.pad(picture, (*border, (0, 0)), mode="symmetric"))


def _size(picture: torch.Tensor) -> tuple[int, int]:
    height, width = picture.shape[-2:]
    return int(height), int(width)
