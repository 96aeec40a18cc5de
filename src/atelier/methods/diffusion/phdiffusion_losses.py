"""The losses that train PHDiffusion (Lu et al. 2023) beside that of the noise: style, contrast and content.

All see features of the normalised VGG. Two forms: "published" does what the authors' program does, and
"correct" what the paper says. The program gives the VGG pictures in -1..1, though it was made for 0..1;
swaps the axes of the object's box; sums crops over their area, so that large objects weigh more; and never
trains the projection of the contrast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from atelier.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.features.vgg import VGG

Form = Literal["published", "correct"]

#: Layers of the style's statistics, of the contrast, and of the content.
STYLE, CONTRAST, CONTENT = ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "relu3_1", "relu4_1"
#: Sizes of the projection, and the temperature of the contrast.
_PROJECTED, _TEMPERATURE = 128, 0.2
_EPSILON = 1e-5


@dataclass(frozen=True)
class Losses:
    """The three terms for pictures in -1..1, (B, 3, H, W), whose objects are shown by masks (B, 1, H, W)."""

    encoder: VGG
    projection: nn.Module
    form: Form = "published"

    def features(self, pictures: Tensor) -> Mapping[str, Tensor]:
        """The features of pictures at `STYLE`."""
        seen = pictures if self.form == "published" else (pictures + 1) / 2
        found: Mapping[str, Tensor] = self.encoder(seen, STYLE)
        return found

    def contrast(
        self,
        made: Tensor,
        painting: Tensor,
        others: Tensor,
        mask: Tensor,
        draws: Tensor,
    ) -> Tensor:
        """The contrastive loss of features (B, C, h, w) of pictures and paintings, at `CONTRAST`.

        `others` are those of paintings of other styles, (B, N, C, h, w). `draws` (B, 2) in 0..1 place the
        crop of the paintings: from the left, and from the top. An object that is too small to be seen at
        this layer adds nothing.
        """
        mask = nearest(mask, made)
        terms = []
        for row in range(len(made)):
            box = Box.of(mask[row, 0])
            if box is None:
                terms.append(0 * made[row].sum())
                continue
            box = box.swapped() if self.form == "published" else box
            place = self.place(box, made.shape[-2:], draws[row].tolist())
            anchor = self._projected(box.cut(made[row]))
            rest = torch.stack([painting[row], *others[row]])
            found = torch.stack([self._projected(place.cut(one)) for one in rest])
            logits = (found @ anchor)[None] / _TEMPERATURE
            terms.append(torch.nn.functional.cross_entropy(logits, logits.new_zeros(1, dtype=torch.int64)))
        return torch.stack(terms).mean()

    def place(self, box: Box, size: Sequence[int], draws: Sequence[float]) -> Box:
        """A crop of the size of a box at a random place of features of `size`, (h, w)."""
        height, width = box.bottom - box.top, box.right - box.left
        left, top = (int(share * (most + 1)) for share, most in zip(draws, self.most(box, size), strict=True))
        return Box(top, top + height, left, left + width)

    def most(self, box: Box, size: Sequence[int]) -> tuple[int, int]:
        """The last place of a crop, from the left and from the top; the program's is two less."""
        height, width = box.bottom - box.top + 1, box.right - box.left + 1
        less = 2 if self.form == "published" else 0
        return max(0, size[1] - width - less), max(0, size[0] - height - less)

    def _projected(self, crop: Tensor) -> Tensor:
        """The direction (D,) of a crop (C, h, w) in the space of the contrast."""
        seen = crop.sum((1, 2)) if self.form == "published" else crop.mean((1, 2))
        found: Tensor = self.projection(seen[None])
        return torch.nn.functional.normalize(found)[0]


class Box(NamedTuple):
    """Rows and columns of features, the last ones included."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, mask: Tensor) -> Box | None:
        """The box of the ones in a mask (H, W); None where there are none."""
        rows, columns = torch.nonzero(mask == 1, as_tuple=True)
        if not len(rows):
            return None
        return cls(int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max()))

    def swapped(self) -> Box:
        """The box with rows and columns exchanged."""
        return Box(self.left, self.right, self.top, self.bottom)

    def cut(self, features: Tensor) -> Tensor:
        """The part of features (C, H, W) in the box."""
        return features[:, self.top : self.bottom + 1, self.left : self.right + 1]


def projection(channels: int) -> nn.Module:
    """The projection of the contrast, from features of so many channels."""
    return torch.nn.Sequential(
        torch.nn.Linear(channels, _PROJECTED), torch.nn.ReLU(), torch.nn.Linear(_PROJECTED, _PROJECTED)
    )


def style(made: Mapping[str, Tensor], painting: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """AdaIN's loss: the object's mean and deviation against those of the whole painting, at `STYLE`."""
    terms: list[Tensor] = []
    for tap in STYLE:
        found = moments(made[tap], nearest(mask, made[tap]))
        wanted = moments(painting[tap], torch.ones_like(painting[tap][:, :1]))
        terms += [(one - other).square().mean() for one, other in zip(found, wanted, strict=True)]
    return torch.stack(terms).sum()


def content(made: Mapping[str, Tensor], composite: Mapping[str, Tensor]) -> Tensor:
    """The mean square difference from the composite at `CONTENT`."""
    return (made[CONTENT] - composite[CONTENT]).square().mean()


def moments(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (B, C) of features (B, C, H, W) inside of a mask (B, 1, H, W)."""
    area = mask.sum((2, 3)) + _EPSILON
    mean = (features * mask).sum((2, 3)) / area
    apart = (features - mean[:, :, None, None]).square() * mask
    return mean, (apart.sum((2, 3)) / area + _EPSILON).sqrt()


def nearest(mask: Tensor, like: Tensor) -> Tensor:
    """The mask at the size of features or latents."""
    made: Tensor = torch.nn.functional.interpolate(mask, like.shape[-2:], mode="nearest")
    return made
