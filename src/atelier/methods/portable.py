"""What a method gives to other programs: a network with named inputs, as `atelier export` writes it.

A method that is one pass of a network overrides `Method.portable`. The network is the method's own, in
float32; what is done to its picture afterwards, such as `bands`, is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from atelier.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

#: "picture" is RGB in 0..1; "noise" is uniform in 0..1 and as large as the picture made; "shares" are the
#: weights of trained styles, which sum to 1; "features" are what another part of a method computes.
Kind = Literal["picture", "noise", "shares", "features"]


@dataclass(frozen=True)
class Input:
    """An input of an exported network, float32.

    `channels` is C of pictures, noise and features (1, C, H, W), whose sides are free, or N of shares (1, N).
    `grid` names inputs of one size: those with the same name have the same sides, times `finer`. `labels`
    name the shares.
    """

    name: str
    says: str
    kind: Kind = "picture"
    channels: int = 3
    grid: str = ""
    finer: int = 1
    labels: Sequence[str] = ()

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of an example whose grid has these sides."""
        if self.kind == "shares":
            return 1, self.channels
        return 1, self.channels, self.finer * height, self.finer * width

    @property
    def sides(self) -> tuple[str, str] | None:
        """The names of the free sides; None without any."""
        if self.kind == "shares":
            return None
        prefix = self.grid and f"{self.grid}_"
        return f"{prefix}height", f"{prefix}width"


CONTENT = Input("content", "the photo, RGB in 0..1")
STYLE_PICTURE = Input("style", "the style picture, RGB in 0..1", grid="style")


def noise(channels: int) -> Input:
    """The input of random numbers that a network starts from."""
    return Input("noise", "uniform random numbers in 0..1, of the photo's size", "noise", channels)


@dataclass(frozen=True)
class Portable:
    """A network for other programs.

    `paint` maps the inputs, in order, to the picture (1, 3, H, W), RGB in 0..1; `parts` are the modules that
    it uses. `smallest` is the smallest side of its inputs, and `scale` the pixels of the picture per position
    of the first input. `facts` are further lines for the file's metadata.
    """

    parts: Sequence[nn.Module]
    paint: Callable[..., Tensor]
    inputs: Sequence[Input] = (CONTENT,)
    smallest: int = 32
    scale: int = 1
    facts: Mapping[str, str] = field(default_factory=dict)

    def module(self) -> nn.Module:
        """The network as one module, in evaluation mode."""
        paint = self.paint

        class Network(torch.nn.Module):
            def __init__(self, parts: Sequence[nn.Module]) -> None:
                super().__init__()
                self.parts = torch.nn.ModuleList(parts)

            def forward(self, *inputs: Tensor) -> Tensor:
                return paint(*inputs)

        return Network(self.parts).eval()
