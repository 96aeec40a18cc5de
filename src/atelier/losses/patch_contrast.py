"""Patch contrast: each place of a picture should resemble the same place of the content, and no other.

The patchwise contrastive loss of Park et al. 2020 (CUT, arXiv:2007.15651), which ZeCon (Yang, Hwang & Ye
2023) applies to the features of a diffusion network, without training anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def random_places(count: int, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` different places of `count`, in random order."""
    return torch.randperm(count, generator=generator)[:most]


def patch_contrast(queries: Tensor, keys: Tensor, places: Tensor, *, temperature: float = 0.07) -> Tensor:
    """The loss at each of `places` (N,), image by image, (B N,).

    `queries` and `keys` are maps (B, C, h, w), the same places of which belong together; keys receive no
    gradient. It is the cross entropy of the similarities to the keys at all places of all images, divided by
    `temperature`, where the key at the own place is the right answer (CUT, eq. 3).

    >>> same = torch.eye(4).view(1, 4, 2, 2)
    >>> float(patch_contrast(same, same, torch.arange(4)).mean()) < 1e-5
    True
    """
    found, wanted = (_vectors(maps, places) for maps in (queries, keys.detach()))
    similarity = found @ wanted.mT / temperature
    return F.cross_entropy(similarity, torch.arange(len(found), device=found.device), reduction="none")


def _vectors(maps: Tensor, places: Tensor) -> Tensor:
    """The features at the places, (B N, C), float32, each of length 1."""
    vectors = maps.flatten(2)[..., places.to(maps.device)].mT.flatten(0, 1).float()
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / (length + 1e-7)


def layers_contrast(
    queries: Sequence[Tensor], keys: Sequence[Tensor], places: Sequence[Tensor], *, temperature: float = 0.07
) -> Tensor:
    """The sum over layers of the mean loss, with places for each layer."""
    layers = zip(queries, keys, places, strict=True)
    return torch.stack([patch_contrast(*layer, temperature=temperature).mean() for layer in layers]).sum()
