"""What CLIP says: is the result like the style picture, like the words, and did it change that way?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.features.clip import ImageTower, Tower
from atelier.images.resize import resize
from atelier.losses.directions import unit
from atelier.metrics.base import Style, in_words, picture_style

#: What the photo is called where a direction in words starts.
SOURCE = "a photo"


@dataclass(frozen=True)
class ImageLikeness:
    """Cosine of the encodings of result and style picture, -1..1 (CLIP image-image similarity).

    The short side is brought to the network's, and the centre is looked at, as CLIP's authors do.
    """

    tower: ImageTower

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        return float(similarity(encoded(self.tower, result), encoded(self.tower, picture_style(style))))


@dataclass(frozen=True)
class WordLikeness:
    """Cosine of the encodings of the result and of the style's words, -1..1.

    CLIPScore (Hessel et al. 2021) is 2.5 times this, and 0 where it is negative (`clip_score`).
    """

    tower: Tower

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        return float(similarity(encoded(self.tower, result), self.tower.text([in_words(style)])))


@dataclass(frozen=True)
class DirectionLikeness:
    """Cosine between the change from content to result and that from "a photo" to the style's words.

    Gal et al. 2022, eq. 1, of encodings that are not normalised, as in ZeCon.
    """

    tower: Tower

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        pictures = [encoded(self.tower, picture) for picture in (result, content)]
        words = self.tower.text([in_words(style), SOURCE])
        return float(direction(pictures[0], pictures[1], words[:1], words[1:]))


def encoded(tower: ImageTower, picture: Tensor) -> Tensor:
    """The encoding (1, D) of a picture (1, 3, H, W): its centre square at the tower's size."""
    height, width = picture.shape[-2:]
    scale = tower.side / min(height, width)
    small = resize(picture, (max(tower.side, round(height * scale)), max(tower.side, round(width * scale))))
    top, left = ((side - tower.side) // 2 for side in small.shape[-2:])
    return tower.image(small[..., top : top + tower.side, left : left + tower.side])


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """The cosine (B,) of encodings (B, D)."""
    return (unit(one.double()) * unit(other.double())).sum(-1)


def clip_score(cosine: Tensor, scale: float = 2.5) -> Tensor:
    """CLIPScore of cosines: `scale` times what is positive; some papers use 100."""
    return scale * cosine.clamp(min=0)


def direction(image: Tensor, source: Tensor, text: Tensor, text_source: Tensor) -> Tensor:
    """The cosine (B,) of the changes of encodings (B, D) of pictures and of texts."""
    return similarity(image.double() - source.double(), text.double() - text_source.double())
