"""MicroAST with the plain layers of the paper, for programs that know no blocks of pixels.

The numbers are those of `networks.microast`, which rewrites the layers for speed in torch. Others have
fast kernels for grouped convolutions, and a rewritten layer would depend on whether a side is odd.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from atelier.maths.whitening import adain
from atelier.networks.microast import Decoder, Encoder, MicroAST, Signal


def painted(network: MicroAST, content: Tensor, style: Tensor) -> Tensor:
    """The content (1, 3, H, W) in the style (1, 3, H', W'), as `MicroAST.paint`, of the content's size."""
    return decoded(network.decoder, content_of(network, content), signals(network, style), content)


def content_of(network: MicroAST, content: Tensor) -> Tensor:
    """The deep features of a content."""
    return encoded(network.content_encoder, content)[1]


def signals(network: MicroAST, style: Tensor) -> tuple[Signal, Signal]:
    """As `MicroAST.signals`."""
    shallow, deep = encoded(network.style_encoder, style)
    return network.signal(shallow, 1), network.signal(deep, 2)


def encoded(encoder: Encoder, picture: Tensor) -> tuple[Tensor, Tensor]:
    """The shallow and the deep features of a picture (1, 3, H, W) in 0..1."""
    state = _mirrored(picture, encoder.colours).relu()
    state = encoder.mix1(_mirrored(state, encoder.down1, stride=2).relu()).relu()
    state = encoder.mix2(_mirrored(state, encoder.down2, stride=2).relu()).relu()
    shallow: Tensor = encoder.shallow(state)
    return shallow, encoder.deep(shallow)


def decoded(decoder: Decoder, features: Tensor, style: tuple[Signal, Signal], content: Tensor) -> Tensor:
    """The picture of deep features that take on a style's signals, of the content's size, not clamped."""
    for signal, residual in ((style[1], decoder.deep), (style[0], decoder.shallow)):
        features = residual(adain(features, signal.mean, signal.deviation), signal)
    for up, mix in ((decoder.up1, decoder.mix1), (decoder.up2, decoder.mix2)):
        features = F.interpolate(features, scale_factor=2.0, mode="bilinear")
        features = mix(_mirrored(features, up).relu()).relu()
    return _mirrored(features, decoder.colours)[..., : content.shape[-2], : content.shape[-1]]


def _mirrored(state: Tensor, layer: nn.Conv2d, stride: int = 1) -> Tensor:
    """A convolution with mirrored borders."""
    border = layer.kernel_size[0] // 2
    padded = F.pad(state, (border,) * 4, mode="reflect")
    return F.conv2d(padded, layer.weight, layer.bias, stride=stride, groups=layer.groups)
