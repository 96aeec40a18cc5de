"""Styles as directions in CLIP's space: shared by the methods that words guide.

A style in words leads from the source text ("a Photo") to the words, and a style picture from the content to
the picture: CLIP keeps pictures and sentences apart, so a direction runs between two of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atelier.core.lazy import torch
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.features.clip import Clip, ImageTower, Tower
    from atelier.features.vgg import VGG
    from atelier.features.views import Patches
    from atelier.losses.guidance import Guidance
    from atelier.methods.base import Styles

#: What styles in words depart from by default.
PHOTO = "a Photo"
#: The smallest side of a patch.
SMALLEST = 8


@dataclass(frozen=True)
class Sight:
    """How the losses see a picture.

    It is seen in `count` patches, whose side is relative to the picture's longer side, in perspective with
    this distortion; patches nearer to words than `threshold` are left alone. `softness` is that of
    `losses.directions.directional`. `batch` patches are encoded at once.
    """

    count: int = 64
    side: float = 0.25
    distortion: float = 0.5
    threshold: float = 0.7
    batch: int = 16
    softness: float = 0.0

    def patches(self, picture: Tensor, generator: torch.Generator) -> Patches:
        """Random patches of a picture (1, 3, H, W)."""
        from atelier.features.views import random_patches

        height, width = picture.shape[-2:]
        side = max(SMALLEST, round(self.side * max(height, width)))
        return random_patches(self.count, (height, width), side, generator, distortion=self.distortion)


@dataclass(frozen=True)
class Goal:
    """A style as encodings (D,) of length 1: of the whole, of its patches, and of what it departs from.

    `source` is None for a style picture, which departs from the content.
    """

    whole: Tensor
    patch: Tensor
    source: Tensor | None
    weight: float


def tower_of(name: str, device: torch.device, dtype: torch.dtype | None = None) -> Clip:
    """CLIP on the device, its image tower in `dtype`, float32 by default."""
    from atelier.features import clip

    clip.check(name)
    return _tower(name, weights.fingerprint(name), device, dtype or torch.float32)


def encoder_of(name: str, device: torch.device, padding: Any = None, dtype: torch.dtype | None = None) -> VGG:
    """An encoder on the device in `dtype`, float32 by default."""
    return _encoder(name, weights.fingerprint(name), device, padding, dtype or torch.float32)


# The fingerprints are part of the cache's keys: changed files under the same name are reloaded.
@kept
def _tower(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Clip:
    from atelier.features import clip

    return clip.load(name).prepare(device, dtype)


@kept
def _encoder(name: str, fingerprint: str, device: Any, padding: Any, dtype: Any) -> VGG:
    from atelier import features

    return features.load(name, padding=padding).prepare(device, dtype)


def text_goals(tower: Tower, styles: Styles, source: str) -> list[Goal]:
    """The styles in words."""
    from atelier.features.prompts import encoded

    if not styles.texts:
        return []
    start = encoded(tower, source)
    ends = [encoded(tower, words) for words in styles.texts]
    return [Goal(end, end, start, weight) for end, weight in zip(ends, styles.text_weights, strict=True)]


def picture_goals(
    tower: ImageTower, pictures: Sequence[Tensor], shares: Sequence[float], sight: Sight, seed: int
) -> list[Goal]:
    """Style pictures (1, 3, H, W); the patches of each have one encoding, the mean over random ones."""
    from atelier.features.views import fitted, patch_views
    from atelier.losses.directions import unit

    found = []
    for picture, weight in zip(pictures, shares, strict=True):
        patches = sight.patches(picture, torch.Generator().manual_seed(seed))
        views = patch_views(picture, patches, tower.side)
        batches = (views[start : start + sight.batch] for start in range(0, len(views), sight.batch))
        seen = torch.cat([unit(tower.image(some)) for some in batches])
        whole = unit(tower.image(fitted(picture, tower.side))[0])
        found.append(Goal(whole, unit(seen.mean(0)), None, weight))
    return found


def guidance(tower: ImageTower, content: Tensor, goals: Sequence[Goal], sight: Sight) -> Guidance:
    """The losses that lead from the content (1, 3, H, W) to the goals."""
    from atelier.features.views import fitted
    from atelier.losses.directions import DirectionLoss, unit
    from atelier.losses.guidance import Guidance

    with torch.no_grad():
        before = unit(tower.image(fitted(content, tower.side))[0])

    def directions(kind: str) -> list[Any]:
        return [getattr(goal, kind) - (before if goal.source is None else goal.source) for goal in goals]

    shares = [goal.weight for goal in goals]
    # Pictures come nearer to pictures than to sentences: the published threshold would reject all patches.
    rejecting = [0.0 if goal.source is None else sight.threshold for goal in goals]
    whole = DirectionLoss(before, directions("whole"), shares, softness=sight.softness)
    patch = DirectionLoss(before, directions("patch"), shares, thresholds=rejecting, softness=sight.softness)
    return Guidance(tower, whole, patch, batch=sight.batch)
