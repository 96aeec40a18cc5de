"""CycleGAN's networks: a residual generator and a critic of overlapping patches (Zhu et al. 2017).

Modules have the published names, so that published files load as they are. All pictures inside are in -1..1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state
from atelier.translators import pix2pix
from atelier.translators.translator import Translator

#: The critic's last two layers each lose a pixel at an eighth of the size.
CRITIC_SMALLEST = 24
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


class Residual(nn.Module):
    """Two 3x3 convolutions with instance normalisation beside the way straight through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.conv_block(features)
        return features + inner


class Generator(Translator):
    """The generator with `width` channels at full size (published: 64), new from torch's global seed.

    The paper uses 9 residual blocks from 256 px on, and 6 below.

    >>> network = Generator(4, blocks=2)
    >>> tuple(network.paint(torch.rand(1, 3, 30, 41)).shape)
    (1, 3, 30, 41)
    """

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        half, quarter = 2 * width, 4 * width
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, width, 7),
            *_normed(width),
            nn.Conv2d(width, half, 3, 2, 1),
            *_normed(half),
            nn.Conv2d(half, quarter, 3, 2, 1),
            *_normed(quarter),
            *(Residual(quarter) for _ in range(blocks)),
            nn.ConvTranspose2d(quarter, half, 3, 2, 1, output_padding=1),
            *_normed(half),
            nn.ConvTranspose2d(half, width, 3, 2, 1, output_padding=1),
            *_normed(width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Tanh(),
        )
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        """The translated picture (B, 3, H, W) of a picture in -1..1; sides are multiples of 4, at least 8."""
        made: Tensor = self.model(picture)
        return made


class PatchCritic(nn.Module):
    """Scores (B, 1, h, w) of all patches of 70 x 70 pixels of pictures (B, 3, H, W) in -1..1.

    That of pix2pix has 6 `channels`, for two pictures, and normalises `by_batch`.

    >>> tuple(PatchCritic(4)(torch.rand(1, 3, 48, 64)).shape)
    (1, 1, 4, 6)
    """

    def __init__(self, width: int = 64, channels: int = 3, *, by_batch: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if by_batch else nn.InstanceNorm2d
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(before * width, after * width, 4, stride, 1, bias=not by_batch),
                norm(after * width),
                nn.LeakyReLU(0.2, True),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))
        initialise(self)

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.model(pictures)
        return scores


def _normed(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(width), nn.ReLU(True)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Normal weights of deviation 0.02 and no biases, as published."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                layer.bias.zero_()


def from_state(state: Mapping[str, Tensor]) -> Generator | pix2pix.Generator:
    """The generator that holds `state`, of a published file, also of pix2pix, or of our own.

    Raises WeightsError for tensors that do not fit. Old files hold running statistics, which are dropped: the
    network always uses those of the picture. Networks trained with dropout number the second convolution of a
    block differently.
    """
    if pix2pix.is_unet(state):
        return pix2pix.from_state(state)
    state = {_renamed(name): tensor for name, tensor in state.items() if not name.endswith(_STATISTICS)}
    first = state.get("model.1.weight")
    blocks = {name.split(".")[1] for name in state if ".conv_block." in name}
    if first is None or first.ndim != 4 or not blocks:
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of a CycleGAN "
            "generator: use a file such as style_monet.pth or latest_net_G.pth"
        )
    with torch.random.fork_rng(devices=[]):
        network = Generator(first.shape[0], len(blocks))
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    check_state(expected, state, f"a CycleGAN generator of {len(blocks)} blocks")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return network


def _renamed(name: str) -> str:
    return name.replace(".conv_block.6.", ".conv_block.5.")
