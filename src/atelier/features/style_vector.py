"""The statistics of a style as one vector, so that they can be averaged, regressed and predicted.

The vector holds the mean and the standard deviation of every channel at some taps of an encoder, for the
style at several sizes, the mean and covariance of its colours, and the covariances of its detail bands.
Means and deviations enter as square roots, which spreads weak channels and keeps predictions positive;
covariances as matrix logarithms, so that any vector gives a valid one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atelier import colour, maths
from atelier.colour.bands import LEVELS
from atelier.colour.moments import moments_of
from atelier.features.vgg import VGG
from atelier.images import Picture, fit

#: The taps whose statistics are kept, and the long sides in pixels at which a style is measured.
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
SIDES = (128, 256, 512)

#: Added to the eigenvalues before the logarithm: below these, colour and detail are noise.
_COLOUR_FLOOR, _DETAIL_FLOOR = 1e-4, 1e-5


@dataclass(frozen=True)
class Layout:
    """The order of the vector: for each tap and side a mean and a deviation, then colours and details.

    >>> Layout({"relu1_1": 2}, (128,)).lengths
    {'relu1_1 128 mean': 2, 'relu1_1 128 deviation': 2, 'colours': 9, 'details 128': 30}
    """

    channels: Mapping[str, int]
    sides: Sequence[int] = SIDES

    @property
    def lengths(self) -> dict[str, int]:
        """How many numbers of the vector each part takes, in order."""
        moments = {
            f"{tap} {side} {what}": count
            for tap, count in self.channels.items()
            for side in self.sides
            for what in ("mean", "deviation")
        }
        return moments | {"colours": 9} | {f"details {side}": 6 * (LEVELS + 1) for side in self.sides}

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The parts of vectors (..., D) by name, still encoded."""
        return dict(zip(self.lengths, torch.split(vector, [*self.lengths.values()], -1), strict=True))

    def moments(self, vector: Tensor, tap: str, side: int) -> tuple[Tensor, Tensor]:
        """The means and deviations (..., C) at a tap for the style at `side` pixels."""
        parts = self.split(vector)
        mean, deviation = (parts[f"{tap} {side} {what}"] for what in ("mean", "deviation"))
        return mean.clamp_min(0).square(), deviation.clamp_min(0).square()

    def colours(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (..., 3) and covariance (..., 3, 3) of the colours, sRGB 0..1."""
        part = self.split(vector)["colours"]
        return part[..., :3], _matrix(part[..., 3:], _COLOUR_FLOOR)

    def details(self, vector: Tensor, side: int) -> Tensor:
        """The covariances (..., LEVELS + 1, 3, 3) of the detail bands, as `colour.covariances`."""
        part = self.split(vector)[f"details {side}"]
        return _matrix(part.reshape(*part.shape[:-1], LEVELS + 1, 6), _DETAIL_FLOOR)


def layout_of(encoder: VGG, sides: Sequence[int] = SIDES) -> Layout:
    """The layout of vectors that `encoder` measures."""
    return Layout({tap: encoder.channels(tap) for tap in TAPS}, tuple(sides))


def measure(encoder: VGG, picture: Picture, layout: Layout, device: torch.device | str = "cpu") -> Tensor:
    """The vector (D,), float32, of a picture, which is resized to each of the layout's sides."""
    parts: dict[str, Tensor] = {}
    for side in layout.sides:
        image = picture.resized(fit(picture.shape, side)).tensor(device)
        for tap, found in encoder(image, list(layout.channels)).items():
            mean, deviation = maths.channel_moments(found, eps=0.0)
            parts[f"{tap} {side} mean"] = mean.flatten().clamp_min(0).sqrt()
            parts[f"{tap} {side} deviation"] = deviation.flatten().sqrt()
        bands = torch.stack(colour.covariances(image))
        parts[f"details {side}"] = _numbers(bands, _DETAIL_FLOOR).flatten()
        mean_colour, covariance = moments_of(image)
        parts["colours"] = torch.cat([mean_colour.flatten(), _numbers(covariance[0], _COLOUR_FLOOR)])
    return torch.cat([parts[name].float().cpu() for name in layout.lengths])


def correlation(features: Tensor) -> Tensor:
    """The correlations (C, C) of the channels of features (1, C, H, W); a constant channel has none."""
    covariance = maths.gram(features.float(), centred=True)[0]
    scale = covariance.diagonal().clamp_min(1e-12).rsqrt()
    # A channel that is constant but for rounding would correlate with anything.
    scale = torch.where(covariance.diagonal() > 1e-6 * covariance.diagonal().mean(), scale, 0.0)
    return scale[:, None] * covariance * scale


def factor(correlations: Tensor, rank: int) -> Tensor:
    """F (C, `rank`) such that F F' is nearest to `correlations` (C, C) off the diagonal.

    Principal axis factoring: what a channel does not share with others is left out of its row, whose square
    sum is at most 1 (Harman, "Modern factor analysis", 1976, section 8).
    """
    whole = correlations.double()
    own = torch.zeros_like(whole.diagonal())
    found = torch.zeros(len(whole), rank, dtype=whole.dtype)
    for _ in range(15):
        values, vectors = torch.linalg.eigh(whole - own.diag())
        found = vectors[:, -rank:] * values[-rank:].clamp_min(0).sqrt()
        own = (whole.diagonal() - found.square().sum(1)).clamp_min(0)
    shared: Tensor = found / found.norm(dim=1, keepdim=True).clamp_min(1)
    return shared.float()


def correlations_of(found: Tensor) -> Tensor:
    """The correlations F F' of a factor (..., C, rank), with ones on the diagonal."""
    whole: Tensor = found @ found.mT
    own = (1 - whole.diagonal(dim1=-2, dim2=-1)).clamp_min(0)
    return whole + torch.diag_embed(own)


_ROWS, _COLUMNS = torch.triu_indices(3, 3).tolist()
#: Numbers off the diagonal count twice in the norm of the matrix.
_NORM = torch.tensor([1.0 if row == column else 2**0.5 for row, column in zip(_ROWS, _COLUMNS, strict=True)])


def _numbers(matrix: Tensor, floor: float) -> Tensor:
    """The logarithms (..., 6) of covariances (..., 3, 3)."""
    values, vectors = torch.linalg.eigh(matrix.double())
    logarithm = (vectors * (values.clamp_min(0) + floor).log()[..., None, :]) @ vectors.mT
    numbers: Tensor = logarithm[..., _ROWS, _COLUMNS] * _NORM.double()
    return numbers


def _matrix(numbers: Tensor, floor: float) -> Tensor:
    """The inverse of `_numbers`, in float64."""
    logarithm = numbers.new_zeros((*numbers.shape[:-1], 3, 3), dtype=torch.float64)
    plain = numbers.double() / _NORM.double()
    logarithm[..., _ROWS, _COLUMNS] = plain
    logarithm[..., _COLUMNS, _ROWS] = plain
    values, vectors = torch.linalg.eigh(logarithm)
    whole: Tensor = (vectors * (values.exp() - floor).clamp_min(0)[..., None, :]) @ vectors.mT
    return whole
