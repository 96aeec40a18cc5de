"""Training by content features and the Gram matrices of fixed styles: settings, targets and losses.

`cin`, `johnson` and `msgnet` share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from atelier import features
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.losses.pastiche import Pastiche

Scale = Literal["relative", "published"]


class PasticheTraining(AnyKnobs):
    """The losses, as in PyTorch's examples, from which `johnson` and `msgnet` have theirs."""

    encoder: str = knob("encoder.atelier", "Encoder of the losses: a name, or a file.", file="weights")
    content_layers: tuple[str, ...] = knob(("relu3_3",), "Taps of the content loss.")
    style_layers: tuple[str, ...] = knob(
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"), "Taps of the style loss."
    )
    scale: Scale = knob("relative", "Scale of the losses: relative to their targets, or as published.")
    content_weight: float = knob(1.0, "Weight of the content's features.", ge=0)
    style_weight: float = knob(5.0, "Weight of the style's Gram matrices.", ge=0)
    smoothness: float = knob(1.0, "Weight of total variation, which suppresses noise.", ge=0)
    learning_rate: float = knob(1e-3, "Learning rate between warm-up and cool-down.", gt=0)

    def criterion(self, device: torch.device) -> Pastiche:
        """The losses, with the encoder on `device`."""
        from atelier.losses.pastiche import Pastiche

        encoder = features.load(self.encoder).prepare(device)
        return Pastiche(encoder, self.scale == "relative", self.content_layers, self.style_layers)


class Targets:
    """The losses of a run and the Gram matrices of its fixed style pictures, computed once."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[object, ...], Pastiche, dict[str, Tensor]] | None = None

    def of(
        self, styles: Sequence[Tensor], training: AnyKnobs, build: Callable[[], Pastiche]
    ) -> tuple[Pastiche, dict[str, Tensor]]:
        """The losses that `build` makes, and the Gram matrices (styles, C, C) by tap."""
        key = (training, *styles)
        if self._kept is None or not _identical(self._kept[0], key):
            criterion = build()
            with torch.no_grad():
                grams = [criterion.grams(criterion.see(style)) for style in styles]
            joined = {tap: torch.cat([one[tap] for one in grams]) for tap in criterion.style}
            self._kept = key, criterion, joined
        return self._kept[1:]


def weighted(
    found: Mapping[str, Tensor],
    criterion: Pastiche,
    weights: tuple[float, float, float],
    *,
    by_channel: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The terms of `criterion` with the weights of content, style and smoothness.

    Relative style terms are averaged over the taps, published ones summed. `by_channel` gives the Gram
    matrices (B, C, C) of published losses that also divide them by C.
    """
    content, style, smoothness = weights
    taps = torch.stack([found[tap] for tap in criterion.style])
    if by_channel is not None and not criterion.relative:
        taps = taps / taps.new_tensor([by_channel[tap].shape[-1] ** 2 for tap in criterion.style])
    return {
        "content": content * found["content"],
        "style": style * (taps.mean() if criterion.relative else taps.sum()),
        "smoothness": smoothness * found["smoothness"],
    }


def _identical(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether two sequences hold the same objects, or equal settings."""
    same = (a is b or (isinstance(a, AnyKnobs) and a == b) for a, b in zip(one, other, strict=False))
    return len(one) == len(other) and all(same)
