"""MGAN's networks: a decoder of an encoder's features, and a critic of patches of features (Li & Wand 2016).

Layers, kernels and widths are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state

#: The features that are decoded lie at this fraction of the size.
STEP = 8


class Generator(nn.Module):
    """Pictures (B, 3, 8 h, 8 w) in 0..1 from features (B, `inputs`, h, w); published `width`: 64.

    >>> tuple(Generator(16, width=4)(torch.rand(1, 16, 3, 5)).shape)
    (1, 3, 24, 40)
    """

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(inputs, 8 * width, 3, 1),
            *_layer(8 * width, 4 * width, 4, 2),
            *_layer(4 * width, 2 * width, 4, 2),
            nn.ConvTranspose2d(2 * width, 3, 4, 2, 1),
            nn.Tanh(),
        )
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.layers(features)
        return (made.float() + 1) / 2

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Frozen on `device`, in `dtype` and channels-last."""
        self.requires_grad_(False).eval()
        return self.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Critic(nn.Module):
    """Scores (B, 1, h / 4, w / 4) of overlapping patches of features (B, `inputs`, h, w).

    >>> tuple(Critic(16, width=4)(torch.rand(1, 16, 32, 24)).shape)
    (1, 1, 8, 6)
    """

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(inputs, 4 * width, 4, 2, 1),
            nn.BatchNorm2d(4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 8 * width, 4, 2, 1),
            nn.BatchNorm2d(8 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * width, 1, 1),
        )
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.layers(features)
        return scores


def inner(scores: Tensor) -> Tensor:
    """Scores without those at the border, whose patches reach outside; all of them if none would be left."""
    return scores[..., 1:-1, 1:-1] if min(scores.shape[-2:]) > 2 else scores


def _layer(before: int, after: int, size: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(before, after, size, stride, 1), nn.BatchNorm2d(after), nn.ReLU(True)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Normal weights of deviation 0.02, around 1 in normalisations, and no biases."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
            if layer.bias is not None:
                layer.bias.zero_()


def from_state(state: Mapping[str, Tensor]) -> Generator:
    """The generator that holds `state`. Raises WeightsError for tensors that do not fit."""
    first = state.get("layers.0.weight")
    if first is None or first.ndim != 4:
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of an MGAN "
            "generator: use a file of `atelier train mgan`"
        )
    with torch.random.fork_rng(devices=[]):
        network = Generator(first.shape[0], first.shape[1] // 8)
    check_state({name: one.shape for name, one in network.state_dict().items()}, state, "an MGAN generator")
    network.load_state_dict(state)
    return network
