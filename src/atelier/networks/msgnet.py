"""The network of Zhang & Dana 2017, "Multi-style Generative Network for Real-time Transfer".

An encoder, the CoMatch layer, residual blocks, and two blocks that enlarge. CoMatch moves the content's
features by a learned matrix and the Gram matrix of the style's features, which the same encoder computes, so
one network renders many styles, each from its picture. All blocks normalise first (He et al. 2016), by
instance and without learned parameters. Pictures are BGR in 0..255 inside.

Sizes are read from the state dict, so published, slim and own networks load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.maths.moments import gram
from atelier.maths.visible import weight_at
from atelier.networks.conditional import large_enough, normalise
from atelier.networks.johnson import near_grey
from atelier.store.checkpoints import check_state

#: A block's output has so many times the channels of its 3x3 convolution.
EXPANSION = 4


class Mirrored(nn.Conv2d):
    """A convolution of odd side that mirrors borders, after repeating each pixel `enlarge` times."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, *, enlarge: int = 1) -> None:
        super().__init__(inputs, outputs, side, stride)
        self.enlarge = enlarge

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, H', W')."""
        if self.enlarge > 1:
            features = F.interpolate(features, scale_factor=float(self.enlarge), mode="nearest")
        border = self.kernel_size[0] // 2
        return super().forward(F.pad(features, (border,) * 4, mode="reflect") if border else features)


class Block(nn.Module):
    """A residual block of three convolutions, each after a normalisation and a ReLU.

    Its output has `EXPANSION` times `width` channels, at half the size with `stride` 2 or at twice the size
    with `enlarge` 2. The shortcut takes the input as it is, before the normalisation.
    """

    def __init__(self, inputs: int, width: int, *, stride: int = 1, enlarge: int = 1) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.narrow = Mirrored(inputs, width, 1)
        self.spatial = Mirrored(width, width, 3, stride, enlarge=enlarge)
        self.widen = Mirrored(width, outputs, 1)
        keeps = inputs == outputs and stride == enlarge == 1
        self.shortcut = None if keeps else Mirrored(inputs, outputs, 1, stride, enlarge=enlarge)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, 4 width, H', W')."""
        inner = features
        for convolution in (self.narrow, self.spatial, self.widen):
            inner = convolution(normalise(inner).relu_())
        return inner + (features if self.shortcut is None else self.shortcut(features))


class CoMatch(nn.Module):
    """Features moved by a learned matrix W and the style's Gram matrix G: (W G)' X (eq. 8 of the paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels, channels).uniform_(0, 0.02))

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Features (B, C, H, W) for the Gram matrices `target` (B or 1, C, C) of their styles."""
        matrix = (self.weight @ target.to(self.weight)).mT.to(features.dtype)
        return (
            F.conv2d(features, matrix[0, :, :, None, None]) if len(matrix) == 1 else _each(matrix, features)
        )


def _each(matrices: Tensor, features: Tensor) -> Tensor:
    return torch.einsum("bij,bjhw->bihw", matrices, features)


class MSGNet(nn.Module):
    """A network for many styles.

    `stem` is the number of channels at full size, and four times `width` that at a quarter of it.
    """

    def __init__(self, width: int = 128, blocks: int = 6, stem: int = 64) -> None:
        super().__init__()
        inner, middle = EXPANSION * width, EXPANSION * (stem // 2)
        self.first = Mirrored(3, stem, 7)
        self.down1 = Block(stem, stem // 2, stride=2)
        self.down2 = Block(middle, width, stride=2)
        self.match = CoMatch(inner)
        self.blocks = nn.ModuleList(Block(inner, width) for _ in range(blocks))
        self.up1 = Block(inner, stem // 2, enlarge=2)
        self.up2 = Block(middle, stem // 4, enlarge=2)
        self.last = Mirrored(EXPANSION * (stem // 4), 3, 7)

    def encode(self, image: Tensor) -> Tensor:
        """The features (B, C, H / 4, W / 4) of images (B, 3, H, W), RGB in 0..1."""
        turned = 255 * image.flip(1)
        features = self.first(turned.to(self.first.weight.dtype, memory_format=torch.channels_last))
        encoded: Tensor = self.down2(self.down1(normalise(features).relu_()))
        return encoded

    def target(self, style: Tensor, seen: Tensor | None = None) -> Tensor:
        """The Gram matrix (B, C, C) of styles (B, 3, H, W) with alpha `seen`, divided by C H W."""
        found = self.encode(large_enough(style))
        return gram(found, weight=weight_at(seen, (found.shape[-2], found.shape[-1]))) / found.shape[1]

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Stylise images (B, 3, H, W) of any size for the Gram matrices of their styles.

        Input and output are RGB in 0..1; the pictures are not clamped.
        """
        height, width = image.shape[-2:]
        # Sides that are not multiples of 4 come out slightly larger.
        return self.decode(self.encode(large_enough(image)), target)[..., :height, :width].flip(1) / 255

    def decode(self, features: Tensor, target: Tensor) -> Tensor:
        """The published output, BGR in 0..255, of the content's features."""
        features = self.match(features, target)
        for block in self.blocks:
            features = block(features)
        features = normalise(self.up2(self.up1(features))).relu_()
        # In half precision, 0..255 has too few steps for a picture.
        picture: Tensor = self.last(features.to(self.last.weight.dtype))
        return picture.float()

    def near_grey(self) -> Self:
        """This network, new, set to give grey pictures with some contrast."""
        near_grey(self.last)
        return self

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Ready for use on `device`, with all convolutions but the last in `dtype`; no more training."""
        for part in self.modules():
            if isinstance(part, Mirrored) and part is not self.last:
                part.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.eval().requires_grad_(False).to(device)


def load_msgnet(state: Mapping[str, Tensor]) -> MSGNet:
    """The network of published or own tensors. Raises WeightsError if they belong to another network."""
    state = from_published(state)
    if "first.weight" not in state or "match.weight" not in state:
        first = ", ".join(list(state)[:3])
        raise WeightsError(
            f"these {len(state)} tensors (first: {first}) are not those of MSG-Net: match.weight is missing"
        )
    blocks = {found[1] for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    with torch.device("meta"):
        network = MSGNet(
            state["match.weight"].shape[-1] // EXPANSION, len(blocks), len(state["first.weight"])
        )
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    check_state(shapes, state, "MSG-Net")
    # Copy the caller's tensors, because preparing the network modifies them.
    network.load_state_dict({name: value.clone().float() for name, value in state.items()}, assign=True)
    return network


#: The published names of a block's layers.
_PARTS = {
    "residual_layer.conv2d": "shortcut",
    "residual_layer": "shortcut",
    "conv_block.2": "narrow",
    "conv_block.5.conv2d": "spatial",
    "conv_block.8": "widen",
}


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under atelier's names.

    The published file holds the encoder and CoMatch twice, and running statistics that were never used.
    """
    if "model1.0.conv2d.weight" not in state:
        return dict(state)
    last = max(int(layer[1]) for name in state if (layer := re.match(r"model\.(\d+)\.", name)))
    ups = {last - 4: "up1", last - 3: "up2"}  # then a norm, a ReLU, and the last convolution
    found = {"match.weight": state["ins.weight"]}
    for name, value in state.items():
        layer = re.match(r"(model1|model)\.(\d+)\.(.*)\.(weight|bias)$", name)
        if layer is None:
            continue
        place, part, kind = int(layer[2]), _PARTS.get(layer[3]), layer[4]
        if layer[1] == "model1":
            block = {0: "first", 3: "down1", 4: "down2"}[place]
            found[f"{block}.{part}.{kind}" if part else f"{block}.{kind}"] = value
        elif place == last:
            found[f"last.{kind}"] = value
        elif part:
            found[f"{ups.get(place, f'blocks.{place - 2}')}.{part}.{kind}"] = value
    return found
