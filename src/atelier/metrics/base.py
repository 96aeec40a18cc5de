"""The one signature of all metrics, and the distance that the metrics of style share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from atelier.core.errors import InputError
from atelier.images.resize import fit, resize

#: Features (B, C, H, W) of pictures (B, 3, H, W) at named taps, as `features.VGG` gives them.
Encoder = Callable[[Tensor, Sequence[str]], Mapping[str, Tensor]]
#: Vectors (B, D) of pictures (B, 3, H, W), one for each picture.
Embedder = Callable[[Tensor], Tensor]
#: A style picture (1, 3, H, W), or a style in words.
Style = Tensor | str

#: The taps at which the metrics of style compare.
STYLE_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class Metric(Protocol):
    """A number for a result, given the content and the style that it was made of.

    Every metric takes all three, although one of content ignores the style and one of style the content.
    Pictures are (1, 3, H, W), sRGB in 0..1, each of its own size.
    """

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float: ...


class SetMetric(Protocol):
    """A number for all results of a method, with their contents and styles in the same order."""

    def __call__(
        self, results: Sequence[Tensor], contents: Sequence[Tensor], styles: Sequence[Style]
    ) -> float: ...


def picture_style(style: Style) -> Tensor:
    """The style picture. Raises InputError for a style in words."""
    if isinstance(style, str):
        raise InputError("this metric compares with a style picture, and the style is in words")
    return style


def in_words(style: Style) -> str:
    """The words of a style. Raises InputError for a style picture."""
    if not isinstance(style, str):
        raise InputError("this metric compares with a style in words, and the style is a picture")
    return style


def alike(result: Tensor, content: Tensor) -> Tensor:
    """The result (1, 3, H, W) at the content's size, for metrics that compare pixel by pixel."""
    return resize(result, (content.shape[-2], content.shape[-1]))


def at_most(picture: Tensor, long_side: int) -> Tensor:
    """The picture (1, 3, H, W), made smaller where its long side is longer than `long_side` px."""
    height, width = picture.shape[-2:]
    return picture if max(height, width) <= long_side else resize(picture, fit((height, width), long_side))


def style_distance(
    statistics: Callable[[Tensor], Tensor],
    result: Tensor,
    style: Tensor,
    encoder: Encoder,
    taps: Sequence[str],
) -> dict[str, float]:
    """The distance of `statistics` of features (1, C, H, W) at each tap, 0 for the same style.

    It is the Euclidean distance relative to the length of the style's own statistics, so that taps with large
    features do not outweigh the others. Statistics of zero are at distance 1.
    """
    found, wanted = encoder(result, taps), encoder(style, taps)
    pairs = {tap: (statistics(found[tap].float()), statistics(wanted[tap].float())) for tap in taps}
    return {tap: float((a - b).norm() / b.norm().clamp(min=1e-12)) for tap, (a, b) in pairs.items()}


def mean(values: Mapping[str, float]) -> float:
    """The mean over taps."""
    return sum(values.values()) / len(values)
