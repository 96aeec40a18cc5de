"""The one signature of all metrics, and the distance that the metrics of style share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor

#: Features (B, C, H, W) of pictures (B, 3, H, W) at named taps, as `features.VGG` gives them.
Encoder = Callable[[Tensor, Sequence[str]], Mapping[str, Tensor]]

#: The taps at which the metrics of style compare.
STYLE_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class Metric(Protocol):
    """A number for a result, given the content and the style that it was made of.

    `name` is the heading of its column in a table; `higher_is_better` says which end of its scale is good.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]

    def __call__(self, result: Tensor, content: Tensor, style: Tensor) -> float:
        """The number, for pictures (1, 3, H, W), sRGB in 0..1, each of its own size.

        Every metric takes all three, although one of content ignores the style and one of style the content.
        """
        ...


def style_distance(
    statistics: Callable[[Tensor], Tensor],
    result: Tensor,
    style: Tensor,
    encoder: Encoder,
    taps: Sequence[str],
) -> float:
    """The distance of `statistics` of features (1, C, H, W): the mean over `taps`, 0 for the same style.

    At each tap it is the Euclidean distance relative to the length of the style's own statistics, so that
    taps with large features do not outweigh the others. Statistics of zero are at distance 1.
    """
    found, wanted = encoder(result, taps), encoder(style, taps)
    pairs = [(statistics(found[tap].float()), statistics(wanted[tap].float())) for tap in taps]
    return sum(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs) / len(taps)
