"""Matting loss: within each small window, the picture is a linear function of the content's colours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atelier.maths.matting import MattingLaplacian


class MattingLoss:
    """The matting Laplacian energy of a picture (B, 3, H, W) given its content, times `weight`.

    Wen, Gao & Zou 2023 (eq. 7): the sum over channels of v'Mv / (H W), averaged over the batch. As in their
    code, the gradient is that of each picture, not divided by the batch size. Its entries are clamped to
    +-`limit`, because an edge in a flat area would otherwise outweigh everything else. Where the picture or
    its energy is not finite, the gradient is zero.

    >>> content = torch.rand(1, 3, 8, 8)
    >>> bool(MattingLoss(content)(1 - content) < 1e-5)
    True
    """

    def __init__(self, content: Tensor, *, weight: float = 1.0, limit: float = 0.05) -> None:
        self.laplacian = MattingLaplacian(content.detach())
        self.weight, self.limit = weight, limit

    def __call__(self, picture: Tensor) -> Tensor:
        loss: Tensor = _Energy.apply(picture, self.laplacian, self.weight, self.limit)  # type: ignore[no-untyped-call]
        return loss


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, picture: Tensor, laplacian: MattingLaplacian, weight: float, limit: float
    ) -> Tensor:
        scale = weight / picture.shape[-2:].numel()
        product = laplacian.times(picture)
        slope = (2 * scale * product).clamp(-limit, limit).nan_to_num(0.0)
        context.save_for_backward(slope.to(picture.device, picture.dtype))
        energies = (product * picture.to(product.device, product.dtype)).sum((1, 2, 3))
        loss: Tensor = scale * energies.mean()
        return loss.to(picture.device, torch.promote_types(picture.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = context.saved_tensors
        return gradient.to(slope.dtype) * slope, None, None, None
