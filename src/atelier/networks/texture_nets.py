"""The generator of Texture Networks (Ulyanov et al. 2016): noise at several scales, joined by size.

Each scale turns its noise, and for a style network the photo beside it, into eight channels; what the coarser
scales made is enlarged and joined to them. Normalisation is by instance, with a learned scale and shift or
without (Ulyanov et al. 2017, section 3), or by batch as in 2016. Borders wrap in a texture network, so that
its pictures tile, and are mirrored in a style network.

Sizes are read from the state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.images.resize import resize
from atelier.networks.conditional import normalise
from atelier.store.checkpoints import check_state

Normalisation = Literal["affine", "plain", "batch"]
#: Channels of the noise at each scale.
NOISE = 3
_SLOPE = 0.01


class Plan(NamedTuple):
    """The layout: `scales`, channels for each (`width`), whether a photo comes in, and the normalisation."""

    scales: int = 5
    width: int = 8
    photo: bool = False
    norm: Normalisation = "affine"


class Norm(nn.Module):
    """Normalisation of features (B, C, H, W) by instance, affine or plain, or by batch."""

    def __init__(self, channels: int, kind: Normalisation) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(channels) if kind == "batch" else None
        if kind == "affine":
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = kind == "affine"

    def forward(self, features: Tensor) -> Tensor:
        """The features, normalised."""
        if self.batch is not None:
            normalised: Tensor = self.batch(features)
            return normalised
        return normalise(features, self.bias[None], self.weight[None]) if self.affine else normalise(features)


class Convolutions(nn.Module):
    """Convolutions of 3, 3 and 1 px, each normalised and followed by a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, plan: Plan) -> None:
        super().__init__()
        sizes = ((inputs, outputs, 3), (outputs, outputs, 3), (outputs, outputs, 1))
        self.convolutions = nn.ModuleList(nn.Conv2d(*size) for size in sizes)
        self.norms = nn.ModuleList(Norm(outputs, plan.norm) for _ in sizes)
        self.border = "reflect" if plan.photo else "circular"

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, H, W)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            if convolution.get_parameter("weight").shape[-1] == 3:
                features = F.pad(features, (1, 1, 1, 1), mode=self.border)
            features = F.leaky_relu(norm(convolution(features)), _SLOPE)
        return features


class TextureNet(nn.Module):
    """A generator of one texture, or of pictures in one style."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        inputs, width = NOISE + 3 * plan.photo, plan.width
        #: From the finest scale to the coarsest.
        self.scales = nn.ModuleList(Convolutions(inputs, width, plan) for _ in range(plan.scales))
        wide = [width * (plan.scales - scale) for scale in range(plan.scales)]
        self.joined = nn.ModuleList(Convolutions(one, one, plan) for one in wide[:-1])
        self.enlarged = nn.ModuleList(Norm(one - width, plan.norm) for one in wide[:-1])
        self.own = nn.ModuleList(Norm(width, plan.norm) for _ in wide[:-1])
        self.last = nn.Conv2d(wide[0], 3, 1)

    @property
    def step(self) -> int:
        """The sides of pictures are multiples of this."""
        return 1 << (self.plan.scales - 1)

    @property
    def smallest(self) -> int:
        """The smallest side: the coarsest scale needs 2 px."""
        return 2 * self.step

    def forward(self, noise: Sequence[Tensor], photo: Tensor | None = None) -> Tensor:
        """Pictures (B, 3, H, W), RGB in 0..1, not clamped, from `noise`, and `photo` for a style network."""
        sizes = [(one.shape[-2], one.shape[-1]) for one in noise]
        return self._joined(noise, [] if photo is None else [resize(photo, size) for size in sizes])

    def _joined(self, noise: Sequence[Tensor], photos: Sequence[Tensor]) -> Tensor:
        """As `forward`, from the photo at each scale; none for a texture network."""
        made: Tensor | None = None
        for scale in reversed(range(self.plan.scales)):
            given = torch.cat([photos[scale], noise[scale]], 1) if photos else noise[scale]
            features = self.scales[scale](given)
            if made is not None:
                larger = F.interpolate(made, scale_factor=2.0, mode="nearest")
                parts = [self.enlarged[scale](larger), self.own[scale](features)]
                features = self.joined[scale](torch.cat(parts, 1))
            made = features
        picture: Tensor = self.last(made)
        return picture + 0.5

    def paint(self, photo: Tensor, seed: int) -> Tensor:
        """A picture of the size of `photo` (1, 3, H, W), which a texture network takes nothing else from."""
        height, width = photo.shape[-2:]
        spare = [max(-side % self.step, self.smallest - side) for side in (height, width)]
        whole = F.pad(photo, (0, spare[1], 0, spare[0]), mode="replicate")
        size = (whole.shape[-2], whole.shape[-1])
        given = noise(self.plan.scales, size, 1, torch.Generator().manual_seed(seed))
        made: Tensor = self([one.to(photo) for one in given], whole if self.plan.photo else None)
        return made[..., :height, :width]

    @property
    def channels(self) -> int:
        """The channels of the noise that `painted` takes."""
        return NOISE * self.plan.scales

    def painted(self, photo: Tensor, noise: Tensor) -> Tensor:
        """As `paint`, from noise (1, `channels`, H, W) of the photo's size, where every scale has three.

        A coarse scale takes the top left corner of its three.
        """
        height, width = photo.shape[-2:]
        coarse = [(side + self.step - 1) // self.step for side in (height, width)]
        more = (0, coarse[1] * self.step - width, 0, coarse[0] * self.step - height)
        whole = F.pad(photo, more, mode="replicate")
        drawn = F.pad(noise, more, mode="replicate")
        given = []
        for scale, one in enumerate(torch.split(drawn, NOISE, 1)):
            tall, wide = (side * (self.step >> scale) for side in coarse)
            given.append(one[..., :tall, :wide])
        photos = [shrunk(whole, 1 << scale) for scale in range(self.plan.scales)]
        return self._joined(given, photos if self.plan.photo else [])[..., :height, :width]

    def prepare(self, device: torch.device) -> Self:
        """Ready for use on `device`; no more training after this."""
        return self.eval().requires_grad_(False).to(device)


def noise(scales: int, size: tuple[int, int], count: int, generator: torch.Generator) -> list[Tensor]:
    """Noise (count, 3, H, W) in 0..1 for each scale of pictures of `size`, finest first; on the CPU.

    >>> [tuple(one.shape) for one in noise(3, (8, 12), 1, torch.Generator())]
    [(1, 3, 8, 12), (1, 3, 4, 6), (1, 3, 2, 3)]
    """
    height, width = size
    sides = [(height >> scale, width >> scale) for scale in range(scales)]
    return [torch.rand(count, NOISE, *side, generator=generator) for side in sides]


def shrunk(photo: Tensor, factor: int) -> Tensor:
    """`resize` of a photo (1, 3, H, W) by a factor that divides its sides, as convolutions.

    ONNX's own antialiased resizing differs, and torch's cannot be exported with free sizes.

    >>> photo = torch.rand(1, 3, 8, 16)
    >>> torch.allclose(shrunk(photo, 4), resize(photo, (2, 4)), atol=1e-5)
    True
    """
    if factor == 1:
        return photo
    taps = ((torch.arange(4.0 * factor) + 0.5) / factor - 2).abs().to(photo)
    # Keys' cubic with a = -1/2, widened by the factor; beyond the border it is cut off and scaled up to 1.
    near, far = (1.5 * taps - 2.5) * taps**2 + 1, ((-0.5 * taps + 2.5) * taps - 4) * taps + 2
    row = torch.where(taps < 1, near, far).expand(3, 1, 1, -1)
    small, around = photo, 3 * factor // 2
    for kernel, stride, border in (
        (row, (1, factor), (0, around)),
        (row.mT, (factor, 1), (around, 0)),
    ):
        inside = F.conv2d(torch.ones_like(small), kernel, stride=stride, padding=border, groups=3)
        small = F.conv2d(small, kernel, stride=stride, padding=border, groups=3) / inside
    every = (0, 1, 2, 3)  # said in full, for the exporter
    return small.clamp(photo.amin(every), photo.amax(every))


def load_texture_net(state: Mapping[str, Tensor]) -> TextureNet:
    """The network of a state dict. Raises WeightsError if it belongs to another network."""
    first = state.get("scales.0.convolutions.0.weight")
    if first is None:
        some = ", ".join(list(state)[:3])
        raise WeightsError(
            f"these {len(state)} tensors (first: {some}) are not those of a texture network: "
            "scales.0.convolutions.0.weight is missing"
        )
    scales = {found[1] for name in state if (found := re.match(r"scales\.(\d+)\.", name))}
    norm: Normalisation = "plain"
    if "scales.0.norms.0.weight" in state:
        norm = "affine"
    elif "scales.0.norms.0.batch.weight" in state:
        norm = "batch"
    with torch.device("meta"):
        network = TextureNet(Plan(len(scales), len(first), first.shape[1] > NOISE, norm))
    check_state(
        {name: value.shape for name, value in network.state_dict().items()}, state, "a texture network"
    )
    own = {
        name: value.clone().float() if value.is_floating_point() else value.clone()
        for name, value in state.items()
    }
    network.load_state_dict(own, assign=True)
    return network
