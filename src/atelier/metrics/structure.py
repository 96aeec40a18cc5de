"""How much of the content's layout is still there: which parts of the picture are like which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.images.resize import resize
from atelier.metrics.base import Encoder, Style, picture_style

#: The long side in px at which pictures are compared; the tables grow with its fourth power.
LONG_SIDE = 384


@dataclass(frozen=True)
class StructureSimilarity:
    """Correlation of the self-similarities of deep features, -1..1: 1 is the same layout, 0 an unrelated one.

    The features at `tap` are centred over positions. A table holds the cosine of every pair of positions;
    the result's table and the content's are compared by their correlation (after Kolkin et al. 2019, eq. 7,
    which takes the L1 distance of the tables). Colours and contrast hardly count. Raises `InputError` for a
    content that is too small to reach `tap`.
    """

    encoder: Encoder
    tap: str = "relu4_1"

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        return self.correlation(result, content, _small(content))

    @torch.inference_mode()
    def correlation(self, one: Tensor, other: Tensor, size: tuple[int, int]) -> float:
        """The correlation of two pictures' tables at `size`, (height, width)."""
        first, second = (self._table(resize(picture, size)) for picture in (one, other))
        return float((first * second).sum() / (first.norm() * second.norm()).clamp(min=1e-12))

    def _table(self, picture: Tensor) -> Tensor:
        """The cosines (N, N) of all pairs of the N positions, less their mean."""
        features = self.encoder(picture, (self.tap,))[self.tap][0].float().flatten(1)
        features = features - features.mean(1, keepdim=True)
        directions = features / features.norm(dim=0, keepdim=True).clamp(min=1e-6)
        table: Tensor = directions.T @ directions
        return table.sub(table.mean())


@dataclass(frozen=True)
class StyleLeakage:
    """How much of the style picture's own layout shows in the result, 0..1; 0 is none.

    It is what the result's layout shares with the style picture's beyond what the photo shares with it
    already (`StructureSimilarity`, all at the photo's size). The photo has 0; a copy of the painting has 1
    less the likeness of photo and painting. Styles that copy patches leak eyes, roofs and horizons.
    """

    encoder: Encoder
    tap: str = "relu4_1"

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        painting, size = picture_style(style), _small(content)
        structure = StructureSimilarity(self.encoder, self.tap)
        already = structure.correlation(content, painting, size)
        return max(0.0, structure.correlation(result, painting, size) - max(0.0, already))


def _small(content: Tensor) -> tuple[int, int]:
    """The content's size, (height, width), with a long side of at most `LONG_SIDE`."""
    height, width = content.shape[-2:]
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
