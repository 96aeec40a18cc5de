"""ZeCon's guidance: the terms of the loss at one step, and its gradient with respect to the noisy picture.

Each term is differentiated by itself as far as the picture that it sees, views in batches, so that memory
does not grow with their number. One backward pass through the network then gives the pull.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from atelier.features import views
from atelier.features.clip import ImageTower
from atelier.losses.directions import directional, spherical
from atelier.losses.patch_contrast import layers_contrast, random_places
from atelier.maths.diffusion import Prediction, noised
from atelier.maths.samplers import Noise
from atelier.maths.schedules import Schedule, at

#: Degrees and shares of the side by which views are turned and moved, and the strength of the perspective.
_TURN, _SHIFT, _DISTORTION = 15.0, 0.1, 0.7
#: The side to which patches are resized before they are augmented.
_PATCH = 128


@dataclass(frozen=True)
class Place:
    """What a term sees at a step: `picture`, the mixture of the clean and the noisy picture, in -1..1.

    `source` makes the content's own mixture of the same step, with fresh noise.
    """

    picture: Tensor
    source: Callable[[], Tensor]


#: The value of a term, in parts to be added.
Term = Callable[[Place], Iterator[Tensor]]


class TermNotFiniteError(Exception):
    """A term or its gradient is not finite; `name` is the term's."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the term '{name}' is not finite")
        self.name = name


@dataclass
class Guidance:
    """The pull at each step: minus the gradient of the weighted `terms`.

    `content` is (1, 3, H, W) in -1..1. `range_weight` is that of the clean picture's values outside -1..1.
    `values` are the weighted terms of the last step. Raises TermNotFiniteError.
    """

    schedule: Schedule
    content: Tensor
    terms: Mapping[str, tuple[float, Term]]
    noise: Noise
    range_weight: float = 0.0
    values: dict[str, float] = field(default_factory=dict)

    def __call__(self, picture: Tensor, prediction: Prediction, index: int) -> Tensor:
        """The pull on a noisy picture (1, 3, H, W) that requires gradients."""
        steps = torch.full((1,), index, device=picture.device)
        share = at(np.sqrt(1 - self.schedule.alphas_cumprod), steps, picture)

        def source() -> Tensor:
            noisy = noised(self.schedule, self.content, steps, self.noise(self.content))
            return share * self.content + (1 - share) * noisy

        seen = share * prediction.x0 + (1 - share) * picture
        leaf = seen.detach().requires_grad_()
        gradient = torch.zeros_like(leaf)
        self.values = {}
        for name, (weight, term) in self.terms.items():
            gradient += self._gradient(name, weight, term, Place(leaf, source))
        outputs, pulls = [seen], [gradient]
        if self.range_weight:
            outside = prediction.x0 - prediction.x0.clamp(-1, 1)
            loss = self.range_weight * outside.square().mean((1, 2, 3)).sum()
            self._note("range", float(loss.detach()))
            outputs, pulls = [*outputs, loss], [*pulls, torch.ones_like(loss)]
        (found,) = torch.autograd.grad(outputs, [picture], pulls)
        if not bool(torch.isfinite(found).all()):
            raise TermNotFiniteError("network")
        return -found

    def _gradient(self, name: str, weight: float, term: Term, place: Place) -> Tensor:
        """The gradient of a term with respect to the picture that it sees."""
        gradient, total = torch.zeros_like(place.picture), 0.0
        for part in term(place):
            gradient += torch.autograd.grad(weight * part, place.picture)[0]
            total += weight * float(part.detach())
        self._note(name, total)
        if not bool(torch.isfinite(gradient).all()):
            raise TermNotFiniteError(name)
        return gradient

    def _note(self, name: str, value: float) -> None:
        self.values[name] = value
        if not np.isfinite(value):
            raise TermNotFiniteError(name)


class Views:
    """Random views of a picture (1, 3, H, W) in -1..1, as encodings (N, D) in batches.

    There are `count` views. Patches have a share of the picture's area from `area`. Each is turned, moved and
    shown in perspective with probability `chance`.
    """

    def __init__(
        self,
        tower: ImageTower,
        generator: torch.Generator,
        *,
        count: int,
        area: tuple[float, float],
        chance: float = 1.0,
        batch: int = 8,
    ) -> None:
        self.tower, self.generator, self.count = tower, generator, count
        self.area, self.chance, self.batch = area, chance, batch

    def copies(self, picture: Tensor) -> Iterator[Tensor]:
        """The encodings of augmented copies of the whole picture."""
        for count in self._batches():
            yield self._encoded(self._augmented(picture.expand(count, -1, -1, -1)))

    def patches(self, picture: Tensor) -> Iterator[Tensor]:
        """The encodings of augmented patches."""
        for count in self._batches():
            boxes = self.boxes(count, (picture.shape[-2], picture.shape[-1]))
            yield self._encoded(self._augmented(views.resized_crops(picture, boxes, _PATCH)))

    def whole(self, picture: Tensor) -> Tensor:
        """The encoding (1, D) of the picture as it is."""
        return self._encoded(picture)

    def boxes(self, count: int, size: tuple[int, int]) -> Sequence[Sequence[int]]:
        """Random boxes (top, left, height, width) for patches."""
        return views.random_boxes(count, size, self.area, self.generator)

    def _batches(self) -> Iterator[int]:
        for start in range(0, self.count, self.batch):
            yield min(self.batch, self.count - start)

    def _augmented(self, pictures: Tensor) -> Tensor:
        if not self.chance:
            return pictures
        count, size = len(pictures), (pictures.shape[-2], pictures.shape[-1])
        turned, tilted = (torch.rand((2, count), generator=self.generator) < self.chance).unbind()
        degrees = _TURN * self._symmetric(count) * turned
        shifts = _SHIFT * self._symmetric(count, 2) * turned[:, None]
        corners = views.random_corners(count, size, self.generator, distortion=_DISTORTION)
        corners = torch.where(tilted[:, None, None], corners, views.corners(size))
        return views.perspective(views.rotated(pictures, degrees, shifts), corners)

    def _symmetric(self, *shape: int) -> Tensor:
        """Uniform numbers in -1..1."""
        return 2 * torch.rand(shape, generator=self.generator) - 1

    def _encoded(self, pictures: Tensor) -> Tensor:
        return self.tower.image((views.pooled(pictures, self.tower.side) + 1) / 2)


# terms of the style


def similarity(views: Callable[[Tensor], Iterator[Tensor]], target: Tensor, count: int) -> Term:
    """The mean spherical distance of the encodings of `count` views to `target` (1, D)."""

    def term(place: Place) -> Iterator[Tensor]:
        for encodings in views(place.picture):
            yield spherical(encodings, target).sum() / count

    return term


def direction(views: Views, wanted: Tensor) -> Term:
    """The mean directional distance between copies of the picture and of the content, towards `wanted`."""

    def term(place: Place) -> Iterator[Tensor]:
        source = place.source()
        with torch.no_grad():
            before = list(views.copies(source))
        for encodings, start in zip(views.copies(place.picture), before, strict=True):
            yield directional(encodings, start, wanted).sum() / views.count

    return term


def patch_direction(views: Views, wanted: Tensor) -> Term:
    """As `direction`, from the whole content to patches of the picture."""

    def term(place: Place) -> Iterator[Tensor]:
        with torch.no_grad():
            before = views.whole(place.source())
        for encodings in views.patches(place.picture):
            yield directional(encodings, before, wanted).sum() / views.count

    return term


def whole_loss(loss: Callable[[Tensor], Tensor]) -> Term:
    """A loss of the picture in -1..1 alone, such as that of its Gram matrices."""

    def term(place: Place) -> Iterator[Tensor]:
        yield loss(place.picture)

    return term


# terms of the content


def contrast(
    maps: Callable[[Tensor], Sequence[Tensor]],
    places: Callable[[int, int], Tensor],
) -> Term:
    """The contrastive loss between the network's features of the picture and of the content.

    `places` chooses places of the layer at an index, of a number of positions.
    """

    def term(place: Place) -> Iterator[Tensor]:
        with torch.no_grad():
            keys = maps(place.source())
        chosen = [places(index, key[0, 0].numel()) for index, key in enumerate(keys)]
        yield layers_contrast(maps(place.picture), keys, chosen)

    return term


def any_places(most: int, generator: torch.Generator) -> Callable[[int, int], Tensor]:
    """Chooses up to `most` random places of each layer."""
    return lambda _, count: random_places(count, most, generator)


def squared_difference(maps: Callable[[Tensor], Sequence[Tensor]], *, relative: bool = False) -> Term:
    """The sum of the mean square differences of maps of the picture and of the content.

    `relative` divides each by the mean square of the content's.
    """

    def term(place: Place) -> Iterator[Tensor]:
        with torch.no_grad():
            wanted = maps(place.source())
        parts = []
        for found, target in zip(maps(place.picture), wanted, strict=True):
            difference = (found.float() - target.float()).square().mean()
            parts.append(difference / target.float().square().mean() if relative else difference)
        yield torch.stack(parts).sum()

    return term
