"""Content losses: compare features, or edges, position by position."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_LUMA = (0.299, 0.587, 0.114)


class ContentLoss:
    """Mean squared difference from the content's features (B, C, H, W).

    Gatys et al. 2016, eq. 1, as a mean. `relative` divides by the loss of all-zero features, which makes
    layers and encoders comparable. Raises ValueError if the shapes differ.

    >>> ContentLoss(torch.zeros(1, 1, 2, 2))(torch.full((1, 1, 2, 2), 3.0)).item()
    9.0
    """

    def __init__(self, target: Tensor, *, relative: bool = False) -> None:
        self.target = _exact(target.detach())
        self.unit = (
            self.target.square().mean().clamp(min=torch.finfo(torch.float32).tiny) if relative else 1.0
        )

    def __call__(self, features: Tensor) -> Tensor:
        if features.shape != self.target.shape:
            raise ValueError(
                f"the features have shape {tuple(features.shape)}, "
                f"but the content target has shape {tuple(self.target.shape)}"
            )
        difference: Tensor = _MeanSquare.apply(features, self.target)  # type: ignore[no-untyped-call]
        return difference / self.unit


class EdgeLoss:
    """How far the edges of pictures (B, 3, H, W), 0..1, turn away from those of the photos, from 0 to 1.

    1 - |cos| of the angle between the gradients of luma, averaged over all places with the length of the
    photo's gradient as weight, after `halvings` of the sides; the mean over these sizes. No contrast,
    brightness or colour is asked for: a photo and its negative have a loss of 0, and edges that are lost one
    of 1.

    >>> ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    >>> loss = EdgeLoss(ramp)
    >>> round(loss(0.3 - 0.2 * ramp).item(), 3), round(loss(ramp.mT).item(), 3)
    (0.0, 1.0)
    """

    def __init__(self, photos: Tensor, *, halvings: tuple[int, ...] = (1, 2)) -> None:
        self.halvings = halvings
        self.targets = [_gradients(photos.detach(), halving) for halving in halvings]

    def __call__(self, pictures: Tensor) -> Tensor:
        found = []
        for halving, target in zip(self.halvings, self.targets, strict=True):
            own, length = _gradients(pictures, halving), target.square().sum(0).sqrt()
            # Gradients below a quarter of a shade of 255 are no edges; without the floor none has a slope.
            both = (own.square().sum(0) + 1e-6).sqrt() * length.clamp(min=1e-4)
            apart = 1 - (own * target).sum(0).abs() / both
            found.append((apart * length).sum() / length.sum().clamp(min=1e-6))
        return torch.stack(found).mean()


def _gradients(pictures: Tensor, halvings: int) -> Tensor:
    """The differences of luma to the right and to below, (2, B, 1, h, w), of pictures halved so often."""
    luma = _exact(pictures).mul(_exact(pictures).new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    small = F.avg_pool2d(luma, 1 << halvings)
    corner = small[..., :-1, :-1]
    return torch.stack([small[..., :-1, 1:] - corner, small[..., 1:, :-1] - corner])


class _MeanSquare(torch.autograd.Function):
    """Mean of (features - target)^2, with the difference in float32.

    `mse_loss` returns its gradient in NCHW layout, so every layer below converts it: a fifth of the time of
    an iteration with VGG-19.
    """

    @staticmethod
    def forward(context: Any, features: Tensor, target: Tensor) -> Tensor:
        difference = _exact(features) - target
        context.save_for_backward(difference)
        context.dtype = features.dtype
        return difference.square().mean()

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = context.saved_tensors
        return (difference * (gradient * (2 / difference.numel()))).to(context.dtype), None


def _exact(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))
