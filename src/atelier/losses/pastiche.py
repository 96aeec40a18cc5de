"""What a network that paints in one pass is trained by: an encoder's features, Gram matrices, smoothness.

The losses of Dumoulin et al. 2017 and Ghiasi et al. 2017 over whole batches, in which each picture has a
style of its own. With `relative` each is divided by what all-zero features would cost, so that encoders
and styles compare; without, they are as published and count in the units of the encoder.
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
    """Compares paintings (B, 3, H, W) with their photos and with their styles' Gram matrices.

    `content` and `style` name the encoder's taps: the ends of VGG-16's stages, as published.
    """

    encoder: VGG
    relative: bool = True
    content: tuple[str, ...] = CONTENT
    style: tuple[str, ...] = STYLE

    def see(self, styles: Tensor) -> dict[str, Tensor]:
        """The style taps' features of `styles` (B, 3, H, W), of which `grams` makes the targets."""
        with torch.no_grad():
            found: dict[str, Tensor] = self.encoder(styles, self.style)
        return found

    @staticmethod
    def grams(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The Gram matrices (B, C, C) of features (B, C, H, W), divided by H W, by tap."""
        return {tap: gram(features) for tap, features in found.items()}

    def __call__(self, painted: Tensor, photos: Tensor, grams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms without their weights: "content", "smoothness", and the style at each tap.

        `grams` (B, C, C) may also be (1, C, C), one style for all.
        """
        with torch.no_grad():
            target = self.encoder(photos, self.content)
        found = self.encoder(painted, tuple(dict.fromkeys((*self.content, *self.style))))
        terms = {"content": sum_of([self._apart(found[tap], target[tap]) for tap in self.content])}
        for tap in self.style:
            terms[tap] = self._apart(gram(found[tap]), grams[tap])
        return terms | {"smoothness": variation(painted)}

    def _apart(self, found: Tensor, target: Tensor) -> Tensor:
        """Mean square difference of each picture, its mean over the batch."""
        target = target.to(torch.promote_types(target.dtype, torch.float32))
        apart = (found - target).square().flatten(1).mean(1)
        if self.relative:
            # A black picture has next to no features: its loss must not outweigh the batch.
            unit = target.square().flatten(1).mean(1)
            apart = apart / unit.clamp(min=1e-3 * float(unit.mean()) + torch.finfo(torch.float32).tiny)
        return apart.mean()


def variation(image: Tensor) -> Tensor:
    """Half the mean squares of the differences downwards and to the right of `image` (B, C, H, W), added.

    Total variation as Ghiasi et al.'s code has it.
    """
    parts = [
        image[..., 1:, :] - image[..., :-1, :],
        image[..., 1:] - image[..., :-1],
    ]
    return sum_of([part.square().mean() / 2 for part in parts if part.numel()] or [image.sum() * 0])


def sum_of(terms: list[Tensor]) -> Tensor:
    """The sum of scalars."""
    return torch.stack(terms).sum()
