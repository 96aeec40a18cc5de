"""The landmarks of a face, as heat maps, and masks of where a face keeps its fine detail.

The network is the stacked hourglass with boundary-aware landmarks of Wang, Bo & Fuxin 2019 (adaptive wing
loss), with one hourglass and 98 landmarks. The masks are those of StarGAN v2 (Choi et al. 2020). Modules have
the published names, so that published files load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.store.checkpoints import check_state

#: The side of the pictures that the network knows, and of its heat maps.
SIDE, _MAPS = 256, 64
_DEPTH, _LANDMARKS = 4, 98
#: For each part of the face, its landmarks, how many rows they move up, and the power that narrows them.
_MOVES = {
    "chin": (slice(8, 25), 0, 3),
    "eyebrows": (slice(33, 51), -7, 2),
    "nostrils": (slice(55, 60), 8, 4),
    "upper lip": (slice(77, 82), -8, 4),
    "lower lip": (slice(83, 88), 8, 4),
    "inner lip": (slice(88, 96), -2, 3),
}
_UNUSED = [*range(8), *range(25, 34), 46, 76, 82]
_NOSE, _EYES = slice(52, 55), slice(60, 76)
#: Parts that the second mask leaves to the style.
_RESTYLED = (slice(8, 25), slice(33, 51), slice(76, 96))


class Coordinates(nn.Module):
    """A convolution that also sees where it is: row and column in -1..1, and the radius in 0..1."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before + 3, after, size, stride, size // 2)

    def forward(self, features: Tensor) -> Tensor:
        rows, columns = (torch.linspace(-1, 1, side).to(features) for side in features.shape[-2:])
        planes = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        radius = planes.square().sum(0).sqrt()
        places = torch.cat([planes, (radius / radius.max())[None]])
        made: Tensor = self.conv(torch.cat([features, places.expand(len(features), -1, -1, -1)], 1))
        return made


class Block(nn.Module):
    """Three convolutions, whose outputs lie side by side, beside the way straight through."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        widths = (before, after // 2, after // 4, after // 4)
        for index, (one, other) in enumerate(pairwise(widths), 1):
            self.add_module(f"bn{index}", nn.BatchNorm2d(one))
            self.add_module(f"conv{index}", nn.Conv2d(one, other, 3, 1, 1, bias=False))
        self.downsample: nn.Module = nn.Identity()
        if before != after:
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False)
            )

    def forward(self, features: Tensor) -> Tensor:
        made, last = [], features
        for index in (1, 2, 3):
            last = self.get_submodule(f"conv{index}")(F.relu(self.get_submodule(f"bn{index}")(last)))
            made.append(last)
        straight: Tensor = self.downsample(features)
        return torch.cat(made, 1) + straight


class Hourglass(nn.Module):
    """Down to a sixteenth of the size and up again, with a block beside each step."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.coordconv = Coordinates(width, width, 1)
        for level in range(_DEPTH, 0, -1):
            for place in ("b1", "b2", "b3"):
                self.add_module(f"{place}_{level}", Block(width, width))
        self.b2_plus_1 = Block(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self._down(_DEPTH, self.coordconv(features))

    def _down(self, level: int, features: Tensor) -> Tensor:
        beside: Tensor = self.get_submodule(f"b1_{level}")(features)
        low = self.get_submodule(f"b2_{level}")(F.avg_pool2d(features, 2))
        low = self._down(level - 1, low) if level > 1 else self.b2_plus_1(low)
        return beside + F.interpolate(self.get_submodule(f"b3_{level}")(low), scale_factor=2.0)


class Faces(nn.Module):
    """The heat maps (B, 98, 64, 64) of the landmarks of faces (B, 3, 256, 256) in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Coordinates(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, 256)
        self.m0, self.top_m_0 = Hourglass(), Block(256, 256)
        self.conv_last0, self.bn_end0 = nn.Conv2d(256, 256, 1), nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, _LANDMARKS + 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        features = F.avg_pool2d(self.conv2(F.relu(self.bn1(self.conv1(pictures)))), 2)
        features = self.top_m_0(self.m0(self.conv4(self.conv3(features))))
        maps: Tensor = self.l0(F.relu(self.bn_end0(self.conv_last0(features))))
        return maps[:, :-1]  # the last one is the face's boundary

    @torch.no_grad()
    def masks(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The two masks (B, 1, 256, 256) of faces (B, 3, H, W) in 0..1."""
        small = F.interpolate(pictures.float(), (SIDE, SIDE), mode="bilinear")
        return masks(self(small))

    def train(self, mode: bool = True) -> Self:
        """The network is not trained: its statistics stay."""
        return super().train(False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The network that holds `state`; tensors that it lacks are left out, as published.

        Raises WeightsError for tensors that are missing or do not fit.
        """
        with torch.random.fork_rng(devices=[]):
            network = cls()
        own = network.state_dict()
        kept = {name: own[name] for name in own if name.endswith("num_batches_tracked")}
        found = kept | {name: value for name, value in state.items() if name in own}
        check_state({name: value.shape for name, value in own.items()}, found, "the network of landmarks")
        network.load_state_dict(found)
        return network.requires_grad_(False).eval()


def masks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The masks (B, 1, 256, 256) in 0..1 from heat maps (B, 98, 64, 64): of the face, and of eyes and nose.

    Fine detail of the photo stays inside the masks. Each part is moved and narrowed by fixed amounts, which
    count rows of 256.
    """
    found = F.interpolate(maps, scale_factor=SIDE // _MAPS, mode="bilinear", align_corners=True)
    found = torch.where(found < 0.1, 0.0, found)
    low, high = found.amin((2, 3), keepdim=True), found.amax((2, 3), keepdim=True)
    found = (found - low) / (high - low + 1e-6)
    for part, rows, power in _MOVES.values():
        found[:, part] = _up(found[:, part], rows) ** power
    found[:, _UNUSED] = 0
    found[:, _NOSE] = _up(found[:, _NOSE], 4)
    found[:, _EYES] = _up(found[:, _EYES], -8) ** 3 + _up(found[:, _EYES], -24)
    face = found.sum(1, keepdim=True).clamp(0, 1)
    for part in _RESTYLED:
        found[:, part] = 0
    return face, found.sum(1, keepdim=True).clamp(0, 1)


def _up(maps: Tensor, rows: int) -> Tensor:
    """Maps moved up by so many rows; what leaves at the top enters at the bottom."""
    return torch.roll(maps, -rows, 2)
