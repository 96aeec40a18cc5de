"""How much of the photo is still there: light and dark at a small size, and what is like what."""

from __future__ import annotations

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from atelier.colour import rgb_to_lab
from atelier.features import VGG
from atelier.images.resize import resize


def light_similarity(picture: Tensor, content: Tensor) -> float:
    """SSIM (Wang et al. 2004) of CIE lightness at a quarter of the size, of two pictures (1, 3, H, W), 0..1.

    1 is the same; a small size leaves brush strokes out and shapes in. Raises ValueError below 28 pixels.
    """
    size = (max(1, content.shape[-2] // 4), max(1, content.shape[-1] // 4))
    small = [rgb_to_lab(resize(one, size))[0, 0].double().cpu().numpy() / 100 for one in (picture, content)]
    return float(structural_similarity(*small, data_range=1.0))  # type: ignore[no-untyped-call]


@torch.inference_mode()
def structure_similarity(picture: Tensor, content: Tensor, encoder: VGG, tap: str = "relu4_1") -> float:
    """Cosine similarity of the self-similarities of deep features: what in the picture is like what.

    The features of `tap` are centred over positions; all pairs of positions are compared by cosine, in the
    picture and in the content, and the two tables by their correlation (after Kolkin et al. 2019, eq. 7).
    1 is the same layout, 0 none.
    """
    tables = []
    for one in (picture, content):
        features = encoder(resize(one, _grid(content)), (tap,))[tap][0].float().flatten(1)
        features = features - features.mean(1, keepdim=True)
        directions = features / features.norm(dim=0, keepdim=True).clamp(min=1e-6)
        table = directions.T @ directions
        tables.append((table - table.mean()).flatten())
    first, second = tables
    return float(first @ second / (first.norm() * second.norm()).clamp(min=1e-12))


def _grid(content: Tensor) -> tuple[int, int]:
    """The size at which the tables stay small: a long side of at most 384 px."""
    scale = min(1.0, 384 / max(content.shape[-2:]))
    return max(1, round(content.shape[-2] * scale)), max(1, round(content.shape[-1] * scale))
