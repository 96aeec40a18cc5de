"""Pictures into which an object was pasted: the painting round it, and under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atelier.core.lazy import torch
from atelier.maths.layout import to_array, to_tensor

if TYPE_CHECKING:
    from torch import Tensor


def without_object(content: Tensor, inside: Tensor, painting: Tensor | None) -> Tensor:
    """The picture (1, 3, H, W) without the object, which `inside` (1, 1, H, W) shows by ones.

    The painting is under it if it is given in the picture's size, else the colours round it.
    """
    if painting is not None and painting.shape == content.shape:
        return torch.where(inside > 0, painting, content)
    outside = 1 - inside
    return filled(content, outside) if bool(outside.any()) else content


def filled(picture: Tensor, seen: Tensor) -> Tensor:
    """The picture (1, 3, H, W) with the nearest colours that are seen in place of the others."""
    from atelier.images.hidden import fill_hidden

    alpha = seen[0, 0].float().cpu().numpy()
    return to_tensor(fill_hidden(to_array(picture), alpha)).to(picture)
