"""Prompt templates: CLIP's encoding of a few words is steadier as a mean over many sentences with them.

The sentences are those of Radford et al. 2021 (appendix A; published for ImageNet) that CLIPstyler uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.features.clip import Tower

_QUALITIES = (
    "bad",
    "low resolution",
    "cropped",
    "bright",
    "dark",
    "close-up",
    "black and white",
    "pixelated",
    "jpeg corrupted",
    "blurry",
    "good",
)
_CONDITIONS = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_WORKS = ("sculpture", "rendering", "tattoo", "drawing", "painting", "doodle", "sketch", "rendition")
_KINDS = ("graffiti", "art", "itap")  # itap: "I took a picture"
_MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")


def _templates() -> tuple[str, ...]:
    found = ["a photo of my {}.", "a photo of one {}.", "itap of my {}."]
    for article in ("a", "the"):
        found += [f"a photo of {article} {{}}.", f"{article} {{}} in a video game."]
        found += [f"a {quality} photo of {article} {{}}." for quality in _QUALITIES]
        found += [f"a photo of {article} {condition} {{}}." for condition in _CONDITIONS]
        found += [f"a {work} of {article} {{}}." for work in _WORKS]
        found += [f"{kind} of {article} {{}}." for kind in _KINDS]
        found += [f"{article} {material} {{}}." for material in _MATERIALS]
    return tuple(found)


#: Sentences with a gap, `{}`, for some words.
TEMPLATES = _templates()


def sentences(words: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """The words in every template.

    >>> sentences("a tree", ["art of {}."])
    ['art of a tree.']
    """
    return [template.replace("{}", words) for template in templates]


def encoded(tower: Tower, words: str, templates: Sequence[str] = TEMPLATES) -> Tensor:
    """The encoding (D,) of length 1 of the words: the mean over the templates of the tower's encodings."""
    from torch.nn.functional import normalize

    return normalize(tower.text(sentences(words, templates)).mean(0), dim=0)
