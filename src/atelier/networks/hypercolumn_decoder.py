"""The decoder of NNST-D: reconstructs a picture from hypercolumns selected from the style.

Based on Kolkin et al. 2022, section 4, but much smaller: hypercolumns are projected to fewer channels first,
and the content's normalised features are a second input that carries the positions of edges. A decoder with
fine guidance also receives features of the content at half and full size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.maths.upsampling import upsampled_convolution, upsampling_kernel


class HypercolumnDecoder(nn.Module):
    """Values (B, V, h, w) and guidance (B, G, h, w) to a picture (B, 3, 4h, 4w), about 0..1, unclamped.

    `dims` and `guides` are the channels of a hypercolumn and of the guidance. The first layers, `value` and
    `guide`, are 1x1 convolutions, so `value` can be applied once to all of a style's hypercolumns, before
    matching. `scale` (T,) holds the divisor of each tap of the hypercolumn. `fine` gives the channels at
    FINE, for a decoder with fine guidance.
    """

    scale: Tensor
    #: The taps that are concatenated to form the guidance.
    guides = ("relu3_1", "relu3_3", "relu4_3")
    #: The taps of the fine guidance, at half and at full size.
    FINE = ("relu2_1", "relu1_1")

    def __init__(
        self,
        dims: int,
        guides: int,
        taps: int,
        *,
        width: int = 128,
        guide_width: int = 64,
        blocks: int = 3,
        fine: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("scale", torch.zeros(taps))
        self.value = nn.Conv2d(dims, width, 1)
        self.guide = nn.Conv2d(guides, guide_width, 1)
        self.join = _conv(width + guide_width, width)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(blocks))
        self.up1, self.up2 = Doubled(width, width // 2), Doubled(width // 2, width // 4)
        self.last = _conv(width // 4, 3)
        self.fine = nn.ModuleList(
            nn.Conv2d(channels, width >> step, 1) for step, channels in enumerate(fine, start=1)
        )
        for layer in self.fine.parameters():  # a decoder that gains fine guidance starts as it was
            nn.init.zeros_(layer)

    @property
    def fine_guides(self) -> tuple[str, ...]:
        """The taps of the fine guidance; empty if the decoder has none."""
        return self.FINE[: len(self.fine)]

    def forward(self, values: Tensor, guidance: Tensor, fine: Sequence[Tensor] = ()) -> Tensor:
        """The picture. `values` are outputs of `value`; `guidance` and `fine` are normalised features.

        `fine` are those at `fine_guides`, (B, F, about 2h, about 2w) and (B, F, about 4h, about 4w).
        """
        joined = torch.cat([values.relu(), self.guide(guidance).relu()], 1)
        features = self.join(joined).relu()
        for block in self.blocks:
            features = block(features)
        for step, grow in enumerate((self.up1, self.up2)):
            # One after the other: these maps are the largest of all.
            features = grow(features, self.fine[step](fine[step]) if self.fine else None)
        picture: Tensor = self.last(features)
        return picture

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """Build a decoder from `state`, with sizes inferred from its tensors."""
        try:
            width, dims = state["value.weight"].shape[:2]
            guide_width, guides = state["guide.weight"].shape[:2]
            blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
            fine = [weight.shape[1] for name, weight in sorted(state.items()) if _is_fine(name)]
            with torch.device("meta"):
                made = cls(
                    *(dims, guides, len(state["scale"])),
                    width=width,
                    guide_width=guide_width,
                    blocks=blocks,
                    fine=fine,
                )
            made = made.to_empty(device="cpu")
            made.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except (KeyError, RuntimeError, ValueError, ZeroDivisionError) as error:
            raise WeightsError(
                "these weights are not those of a hypercolumn decoder: train one with 'atelier train nnst-d'"
            ) from error
        return made


class Residual(nn.Module):
    """x + conv(ReLU(conv(ReLU(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.second(self.first(features).relu())
        return (features + change).relu()


class Doubled(nn.Sequential):
    """Upsampling to twice the size, then two convolutions with ReLUs.

    `more` (B, O, H, W) is added after the first convolution; missing rows and columns repeat its last ones.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(_conv(inputs, outputs), nn.ReLU(True), _conv(outputs, outputs))

    def forward(self, features: Tensor, more: Tensor | None = None) -> Tensor:
        first, second = self[0], self[2]
        assert isinstance(first, nn.Conv2d)
        # Nearest-neighbour upsampling would produce a fine hatch pattern in flat areas.
        kernel = upsampling_kernel(first.weight.float(), "bilinear").to(features.dtype)
        larger = upsampled_convolution(features, kernel, first.bias)
        if more is not None:
            missing = (0, larger.shape[-1] - more.shape[-1], 0, larger.shape[-2] - more.shape[-2])
            larger += F.pad(more, missing, mode="replicate") if any(missing) else more
        grown: Tensor = second(larger.relu_()).relu_()
        return grown


def _is_fine(name: str) -> bool:
    return name.startswith("fine.") and name.endswith(".weight")


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")
