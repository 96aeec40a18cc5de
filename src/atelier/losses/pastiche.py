"""Training losses of one-pass style networks: content features, Gram matrices, and smoothness.

The losses of Dumoulin et al. 2017 and Ghiasi et al. 2017, for batches in which each picture has its own
style. `relative` divides each loss by that of all-zero features, which makes encoders and styles
comparable. Without it the losses are as published, in the units of the encoder's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.features.vgg import VGG
from atelier.maths.moments import gram

CONTENT = ("relu3_3",)
STYLE = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@dataclass(frozen=True)
class Pastiche:
    """Compares stylised pictures (B, 3, H, W) with their photos and with the Gram matrices of their styles.

    `content` and `style` name the encoder's taps; by default the ends of VGG-16's stages, as published.
    """

    encoder: VGG
    relative: bool = True
    content: tuple[str, ...] = CONTENT
    style: tuple[str, ...] = STYLE

    def see(self, styles: Tensor) -> dict[str, Tensor]:
        """The features of `styles` (B, 3, H, W) at the style taps; `grams` turns them into targets."""
        with torch.no_grad():
            found: dict[str, Tensor] = self.encoder(styles, self.style)
        return found

    @staticmethod
    def grams(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The Gram matrices (B, C, C) of features (B, C, H, W) at each tap, divided by H W."""
        return {tap: gram(features) for tap, features in found.items()}

    def __call__(self, painted: Tensor, photos: Tensor, grams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The unweighted terms: "content", "smoothness", and one style term under the name of each tap.

        `grams` are (B, C, C), or (1, C, C) for one style shared by the batch.
        """
        with torch.no_grad():
            target = self.encoder(photos, self.content)
        found = self.encoder(painted, tuple(dict.fromkeys((*self.content, *self.style))))
        terms = {"content": sum_of([self._difference(found[tap], target[tap]) for tap in self.content])}
        for tap in self.style:
            terms[tap] = self._difference(gram(found[tap]), grams[tap])
        return terms | {"smoothness": variation(painted)}

    def _difference(self, found: Tensor, target: Tensor) -> Tensor:
        """Mean squared difference of each picture, averaged over the batch."""
        target = target.to(torch.promote_types(target.dtype, torch.float32))
        difference = (found - target).square().flatten(1).mean(1)
        if self.relative:
            # A black picture has almost no features: keep its loss from dominating the batch.
            unit = target.square().flatten(1).mean(1)
            difference = difference / unit.clamp(
                min=1e-3 * float(unit.mean()) + torch.finfo(torch.float32).tiny
            )
        return difference.mean()


def variation(image: Tensor) -> Tensor:
    """Half the mean squared vertical difference plus half the mean squared horizontal one, of (B, C, H, W).

    Total variation as in the code of Ghiasi et al.
    """
    parts = [
        image[..., 1:, :] - image[..., :-1, :],
        image[..., 1:] - image[..., :-1],
    ]
    return sum_of([part.square().mean() / 2 for part in parts if part.numel()] or [image.sum() * 0])


def sum_of(terms: list[Tensor]) -> Tensor:
    """The sum of scalars."""
    return torch.stack(terms).sum()
