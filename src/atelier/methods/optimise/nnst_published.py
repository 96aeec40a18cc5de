"""The authors' code for NNST: its scales, its pyramid, and its two stages.

Kolkin et al. 2022, with the conventions of nkolkin13/NeuralNeighborStyleTransfer where the paper leaves them
open. `nnst.py` is the method; its `--quality published` runs this file. The caller sets the sizes, and the
colour step is `colour.oklab.photo_hues`. The published code does not support transparency: hidden pixels are
filled with the nearest visible colour and treated as visible.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from atelier import features
from atelier.core.lazy import torch
from atelier.maths import pyramid
from atelier.methods.base import Job
from atelier.methods.optimise.coarse_to_fine import reporter

Loss = Callable[["torch.Tensor", int], "torch.Tensor"]
_DEPTH = 8
#: Feature splitting drops the content loss after this many evaluations.
_CONTRAST_UNTIL = 100


def halved(image: torch.Tensor, depth: int) -> list[torch.Tensor]:
    """`depth` details of (B, C, H, W), fine to coarse, and the residual; fewer if a side gets too short."""
    return pyramid.split(image, depth + 1, halving="floored")


def joined(levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """The image of a pyramid's levels; differentiable."""
    return pyramid.merge(levels, halving="floored")


class ProgrammeKnobs(Protocol):
    """The knobs of `nnst` that the published code uses."""

    @property
    def turned(self) -> str: ...
    @property
    def iterations(self) -> int: ...
    @property
    def keep(self) -> float: ...
    @property
    def contrast(self) -> float: ...
    @property
    def step_size(self) -> float: ...


class Programme:
    """The published run: optimise a pyramid from its `scales`-th finest level on, then all at once."""

    def __init__(
        self,
        job: Job,
        knobs: ProgrammeKnobs,
        encoder: features.VGG,
        style: torch.Tensor,
        *,
        scales: int | None = None,
        depth: int = _DEPTH,
    ) -> None:
        from atelier.features.corner_columns import CornerColumns
        from atelier.losses.contrast import ContrastLoss

        self.job, self.knobs, self.columns = job, knobs, CornerColumns(encoder)
        large = max(job.content.shape[-2:]) >= 1024
        self.content, self.style = halved(job.content, depth), halved(style, depth)
        self.levels = list(self.content)
        for index in range(min(2 if large else 3, len(self.levels) - 1)):
            self.levels[index] = torch.zeros_like(self.levels[index])
        self.scales = min(scales or (5 if large else 4), len(self.content), len(self.style))
        self.contrast = ContrastLoss(job.content)
        self.rotated = knobs.turned != "no"

    def run(self) -> torch.Tensor:
        """The picture (1, 3, H, W), unclamped."""

        stages: list[tuple[int, Callable[[], Loss]]] = [
            (level, partial(self.matching, level)) for level in reversed(range(self.scales))
        ]
        stages.append((0, self.splitting))
        for stage, (level, loss) in enumerate(stages):
            image = self.descend(level, loss(), stage * self.knobs.iterations)
            self.levels[level:] = halved(image, len(self.levels) - 1 - level)
            if self.job.progress.stopped:
                break
        return joined(self.levels)

    def mixed(self, level: int) -> torch.Tensor:
        """The queries of a level: the photo, mixed with the picture so far after the first level."""

        content = joined(self.content[level:])
        if level == self.scales - 1:
            return content
        # This level's detail comes from the photo, not from the picture so far.
        painted = joined([self.content[level], *self.levels[level + 1 :]])
        return (1 - self.knobs.keep) * painted + self.knobs.keep * content

    def targets(self, level: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The style's hypercolumns (M, D) at a level, the one chosen for each position, and its distance."""
        from atelier.features.corner_columns import neighbours, rows

        with torch.no_grad():
            style = rows(self.columns(joined(self.style[level:]), rotated=self.rotated))
            return style, *neighbours(rows(self.columns(self.mixed(level))), style)

    def matching(self, level: int) -> Loss:
        """The loss of a level: the distance from neighbours that are chosen once."""
        from atelier.features.corner_columns import rows
        from atelier.losses.cosine import chosen_distances, unit

        style, index, _ = self.targets(level)
        table = unit(style)

        def loss(image: torch.Tensor, iteration: int) -> torch.Tensor:
            match = chosen_distances(rows(self.columns(image)), table, index).mean()
            return match + self.knobs.contrast * self.contrast(image) if self.knobs.contrast else match

        return loss

    def splitting(self) -> Loss:
        """The loss of the last stage: each layer separately."""
        from atelier.losses.feature_splitting import SplittingLoss

        drawn = random.Random(self.job.seed)
        with torch.no_grad():
            style = self.columns.maps(joined(self.style), rotated=self.rotated)
        split = SplittingLoss(style, lambda step: (drawn.randrange(step), drawn.randrange(step)), stale=True)

        def loss(image: torch.Tensor, iteration: int) -> torch.Tensor:
            total = split(self.columns.maps(image)).sum()
            if self.knobs.contrast and iteration <= _CONTRAST_UNTIL:
                total = total + self.knobs.contrast * self.contrast(image)
            return total

        return loss

    def descend(self, level: int, loss: Loss, done: int) -> torch.Tensor:
        """The image at the last evaluation: as in the published code, the step after it is discarded.

        A `Descent` would keep the best image, and Adam's moments would differ.
        """

        levels = [one.clone().requires_grad_(True) for one in self.levels[level:]]
        optimiser = torch.optim.Adam(levels, lr=self.knobs.step_size)
        height, width = levels[0].shape[-2:]
        report = reporter(self.job, (height, width), done, self.knobs.iterations * (self.scales + 1))
        with torch.enable_grad():
            for iteration in range(self.knobs.iterations):
                image = joined(levels)
                value = loss(image, iteration)
                seen = image.detach()
                optimiser.zero_grad()
                torch.autograd.backward(value)
                optimiser.step()
                whole = partial(torch.clamp, seen, 0, 1)
                if not report(iteration + 1, {"loss": float(value.detach())}, whole):
                    break
        return seen
