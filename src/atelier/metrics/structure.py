"""How much of the content's layout is still there: which parts of the picture are like which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atelier.images.resize import resize
from atelier.metrics.base import Encoder

#: The long side in px at which pictures are compared; the tables grow with its fourth power.
_LONG_SIDE = 384


@dataclass(frozen=True)
class StructureSimilarity:
    """Correlation of the self-similarities of deep features, -1..1: 1 is the same layout, 0 an unrelated one.

    The features at `tap` are centred over positions. A table holds the cosine of every pair of positions;
    the result's table and the content's are compared by their correlation (after Kolkin et al. 2019, eq. 7,
    which takes the L1 distance of the tables). Colours and contrast hardly count. Raises `InputError` for a
    content that is too small to reach `tap`.
    """

    name: ClassVar[str] = "structure"
    higher_is_better: ClassVar[bool] = True

    encoder: Encoder
    tap: str = "relu4_1"

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Tensor) -> float:
        size = _small(content)
        one, other = (self._table(resize(picture, size)) for picture in (result, content))
        return float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-12))

    def _table(self, picture: Tensor) -> Tensor:
        """The cosines (N, N) of all pairs of the N positions, less their mean."""
        features = self.encoder(picture, (self.tap,))[self.tap][0].float().flatten(1)
        features = features - features.mean(1, keepdim=True)
        directions = features / features.norm(dim=0, keepdim=True).clamp(min=1e-6)
        table: Tensor = directions.T @ directions
        return table.sub(table.mean())


def _small(content: Tensor) -> tuple[int, int]:
    """The content's size, (height, width), with a long side of at most `_LONG_SIDE`."""
    height, width = content.shape[-2:]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
