"""Colour transfer: methods besides `colour.match_moments`.

Functions take pictures (1, 3, H, W) in any colour space and a reference of any size, and return the picture
with the new colours, not clamped. Linear maps are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from atelier.colour import match_moments
from atelier.maths.layout import to_array
from atelier.maths.roots import power

#: RGB to cone responses (Reinhard et al., eq. 4), and their logarithms to l, alpha, beta (eq. 6).
_TO_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_TO_OPPONENT = ((3**-0.5,) * 3, (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0))
_DARKEST = 1 / 255  # lower limit before the logarithm

_SAMPLES = 1 << 16
_QUANTILES = 512

monge_kantorovich = match_moments


def to_opponent(rgb: Tensor) -> Tensor:
    """Ruderman's l alpha beta: logarithmic, and decorrelated for natural scenes; sRGB is taken as linear."""
    return _mixed(_mixed(rgb.double(), _TO_LMS).clamp_min(_DARKEST).log10(), _TO_OPPONENT)


def from_opponent(opponent: Tensor) -> Tensor:
    """sRGB of l alpha beta, not clamped."""
    lms = 10 ** _mixed(opponent.double(), _inverse(_TO_OPPONENT))
    return _mixed(lms, _inverse(_TO_LMS))


def reinhard(image: Tensor, reference: Tensor) -> Tensor:
    """Matches the mean and standard deviation of each channel to the reference.

    Reinhard et al., "Color transfer between images", 2001, who work in l alpha beta (`to_opponent`). A
    constant channel stays constant.
    """
    mean, deviation = _channel_moments(image)
    target_mean, target_deviation = _channel_moments(reference)
    scale = torch.where(deviation > 1e-9, target_deviation / deviation.clamp_min(1e-9), 1.0)
    return ((image.double() - mean) * scale + target_mean).to(image)


def match_histograms(image: Tensor, reference: Tensor) -> Tensor:
    """Matches the histogram of each channel to that of the reference; equal values stay equal."""
    # Not skimage.exposure.match_histograms: it maps ties to their upper quantile, so large flat areas become
    # too bright (a flat picture takes the maximum of the reference). Here ties take the middle quantile.
    channels = [
        _matched(values.flatten(), target.flatten()).view_as(values)
        for values, target in zip(image[0], reference[0], strict=True)
    ]
    return torch.stack(channels)[None]


def coral(image: Tensor, reference: Tensor) -> Tensor:
    """Whitens the picture and colours it by the reference: A^-1/2 B^1/2 for covariances A and B.

    Sun, Feng & Saenko, "Return of frustratingly easy domain adaptation", 2016. Symmetric roots mix channels
    little if both pictures are similar.
    """
    return _linear(image, reference, lambda a, b: power(b, 0.5) @ power(a, -0.5))


def principal_axes(image: Tensor, reference: Tensor) -> Tensor:
    """Rotates and stretches the principal axes of the colours to those of the reference, in order of length.

    Abadpour & Kasaei, "An efficient PCA-based color transfer method", 2007. The sign of each axis is chosen
    so that colours rotate less.
    """
    return _linear(image, reference, _axes_to_axes)


def sliced(image: Tensor, reference: Tensor, *, iterations: int, seed: int) -> Tensor:
    """Matches the full colour distribution of the reference by iterated matching along random axes.

    Pitié, Kokaram & Dahyot, "Automated colour grading using colour distribution transfer", 2007. Each
    iteration rotates the axes at random and matches the three marginal distributions. Their quantiles come
    from samples, and all pixels use the same map, so equal colours stay equal.
    """
    generator = torch.Generator().manual_seed(seed)
    moved = image[0].flatten(1).double().cpu()
    target = _sample(reference[0].flatten(1).double().cpu(), generator)
    chosen = torch.randperm(moved.shape[1], generator=generator)[:_SAMPLES]
    for _ in range(iterations):
        axes = _random_axes(generator)
        turned = axes @ moved
        for index, goal in enumerate(axes @ target):
            turned[index] = _between_quantiles(turned[index], turned[index][chosen], goal)
        moved = axes.mT @ turned
    return moved.to(image).view_as(image[0])[None]


def regularised(moved: Tensor, image: Tensor, *, radius: int, strength: float) -> Tensor:
    """Removes grain and banding that a transfer added, by smoothing its change `moved` - `image`.

    A guided filter (He, Sun & Tang, "Guided image filtering", 2013) with `image` as the guide smooths the
    change but keeps edges. Rabin, Delon & Gousseau, "Removing artefacts from color and contrast
    modifications", 2011, use another filter. Both pictures are (1, 3, H, W) in RGB. `radius` is in pixels; a
    `strength` of 0 changes nothing.
    """
    if strength <= 0:
        return moved
    guide = to_array(image)
    change = to_array(moved - image)
    smooth = cv2.ximgproc.guidedFilter(guide, change, max(1, radius), 1e-3 * strength)
    return image + torch.from_numpy(smooth.reshape(change.shape)).permute(2, 0, 1)[None].to(image)


def _mixed(image: Tensor, matrix: tuple[tuple[float, ...], ...] | Tensor) -> Tensor:
    mixed: Tensor = torch.einsum(
        "ij,bjhw->bihw", torch.as_tensor(matrix, dtype=torch.float64).to(image), image
    )
    return mixed


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    inverse: Tensor = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64))
    return inverse


def _channel_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    flat = image.double().flatten(2)
    deviation = flat.std(dim=2, correction=0)
    return flat.mean(dim=2)[..., None, None], deviation[..., None, None]


def _matched(values: Tensor, target: Tensor) -> Tensor:
    """Maps each value of a channel (N,) to the target quantile at its rank; ties take their middle rank."""
    ordered, goal = values.double().sort().values, target.double().sort().values
    low = torch.searchsorted(ordered, values.double(), side="left")
    high = torch.searchsorted(ordered, values.double(), side="right")
    rank = (low + high).double() / 2 / len(values)
    place = (rank * len(goal) - 0.5).clamp(0, len(goal) - 1)
    left = place.floor().long()
    right = (left + 1).clamp_max(len(goal) - 1)
    return torch.lerp(goal[left], goal[right], place - left).to(values)


def _linear(image: Tensor, reference: Tensor, matrix: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    flat, target = image.double().flatten(2)[0].cpu(), reference.double().flatten(2)[0].cpu()
    mean, goal = flat.mean(1, keepdim=True), target.mean(1, keepdim=True)
    moved = matrix(torch.cov(flat, correction=0), torch.cov(target, correction=0)) @ (flat - mean) + goal
    return moved.view_as(image[0])[None].to(image)


def _axes_to_axes(source: Tensor, target: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(source)
    goal_values, goal_vectors = torch.linalg.eigh(target)
    same_way = torch.where((vectors * goal_vectors).sum(0) < 0, -1.0, 1.0).double()
    solid = values > values.max() * 1e-10 + 1e-12
    stretch = torch.where(solid, (goal_values.clamp_min(0) / values.clamp_min(1e-12)).sqrt(), 0.0)
    turn: Tensor = (goal_vectors * same_way * stretch) @ vectors.mT
    return turn


def _sample(points: Tensor, generator: torch.Generator) -> Tensor:
    if points.shape[1] <= _SAMPLES:
        return points
    return points[:, torch.randperm(points.shape[1], generator=generator)[:_SAMPLES]]


def _random_axes(generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix (3, 3), uniformly distributed."""
    matrix, triangle = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    rotation: Tensor = matrix * triangle.diagonal().sign()
    return rotation


def _between_quantiles(values: Tensor, sample: Tensor, goal: Tensor) -> Tensor:
    """Maps `values` from the quantiles of `sample` to those of `goal`; beyond the ends, adds the excess."""
    levels = torch.linspace(0, 1, _QUANTILES, dtype=torch.float64)
    source, target = (torch.quantile(one, levels).numpy() for one in (sample, goal))
    # Tied quantiles would make the map ambiguous: each takes the middle of its targets.
    source, first = np.unique(source, return_index=True)
    if len(source) == 1:
        return values + float(np.median(target)) - float(source[0])
    last = np.append(first[1:], len(target)) - 1
    middle = 0.5 * (target[first] + target[last])
    plain = values.numpy()
    beyond = plain - plain.clip(source[0], source[-1])
    return torch.from_numpy(np.interp(plain, source, middle) + beyond)
