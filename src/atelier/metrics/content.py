"""How far the result's deep features are from the content's, and how its parts are alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.metrics.base import Encoder, Style, alike, at_most

#: The long side in px at which CFSD's tables are made; they grow with its fourth power.
LONG_SIDE = 512


@dataclass(frozen=True)
class ContentDistance:
    """Distance of features at `tap`, relative to the length of the content's; 0 is the content itself.

    The content loss of Gatys et al. 2016, eq. 1, without the square and in a unit of its own. The result is
    brought to the content's size.
    """

    encoder: Encoder
    tap: str = "relu4_1"

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        found, wanted = (self.encoder(p, (self.tap,))[self.tap] for p in (alike(result, content), content))
        return float((found.float() - wanted.float()).norm() / wanted.float().norm().clamp(min=1e-12))


@dataclass(frozen=True)
class SelfSimilarityDivergence:
    """Content feature structural distance (CFSD), Chung et al. 2024 (StyleID); 0 is the same structure.

    Every position's similarities to all positions become a distribution by a softmax; the divergences of the
    result's from the content's are summed over positions. The usual tap is relu3_1 of VGG-19. The sum grows
    with the number of positions, so only pictures of one size can be compared; the long side is at most
    512 px here, as in the paper.
    """

    encoder: Encoder
    tap: str = "relu3_1"

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        small = at_most(content, LONG_SIDE)
        return cfsd(*(self.encoder(p, (self.tap,))[self.tap] for p in (alike(result, small), small)))


def cfsd(result: Tensor, content: Tensor, *, rows: int = 1024) -> float:
    """CFSD of features (1, C, H, W), `rows` positions at a time."""
    one, other = (f[0].flatten(1).T.double() / f.shape[1] for f in (result, content))
    total = 0.0
    for start in range(0, len(one), rows):
        found = (one[start : start + rows] @ one.T).log_softmax(1)
        wanted = (other[start : start + rows] @ other.T).log_softmax(1)
        total += float((wanted.exp() * (wanted - found)).sum())
    return total
