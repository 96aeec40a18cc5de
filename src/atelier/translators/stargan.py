"""StarGAN's networks: one generator for all domains, and a critic that names the domain (Choi et al. 2018).

Modules have the published names, so that published files load as they are. All pictures inside are in -1..1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state
from atelier.translators.translator import NAMES, Translator, names_of

#: The attributes of the published networks, whose files do not hold their names.
CELEBA = ("black_hair", "blond_hair", "brown_hair", "male", "young")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Residual(nn.Module):
    """Two 3x3 convolutions with instance normalisation beside the way straight through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            _norm(width),
            nn.ReLU(True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            _norm(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.main(features)
        return features + inner


class Generator(Translator):
    """The generator for the named domains, new from torch's global seed (published: `width` 64, 6 blocks).

    >>> network = Generator(("day", "night"), width=4, blocks=1)
    >>> network.domains
    ('day', 'night')
    >>> tuple(network.paint(torch.rand(1, 3, 30, 41), network.label(["night"])).shape)
    (1, 3, 30, 41)
    """

    def __init__(self, domains: Sequence[str], width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        half, quarter = 2 * width, 4 * width
        self.main = nn.Sequential(
            *_layer(nn.Conv2d(3 + len(domains), width, 7, 1, 3, bias=False)),
            *_layer(nn.Conv2d(width, half, 4, 2, 1, bias=False)),
            *_layer(nn.Conv2d(half, quarter, 4, 2, 1, bias=False)),
            *(Residual(quarter) for _ in range(blocks)),
            *_layer(nn.ConvTranspose2d(quarter, half, 4, 2, 1, bias=False)),
            *_layer(nn.ConvTranspose2d(half, width, 4, 2, 1, bias=False)),
            nn.Conv2d(width, 3, 7, 1, 3, bias=False),
            nn.Tanh(),
        )
        self.name_domains(domains)

    def label(self, domains: Sequence[str]) -> Tensor:
        """The label (1, domains), which is 1 for the given names."""
        return torch.tensor([[float(name in domains) for name in self.domains]])

    def forward(self, picture: Tensor, label: Tensor) -> Tensor:
        """The translated pictures (B, 3, H, W) of pictures in -1..1 with labels (B or 1, domains)."""
        planes = label.to(picture)[:, :, None, None].expand(len(picture), -1, *picture.shape[-2:])
        made: Tensor = self.main(torch.cat([picture, planes], 1))
        return made

    def prepare(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Frozen on `device`, in `dtype` and channels-last.

        It normalises by the statistics of the picture, as the published test does, and not by those kept.
        """
        for layer in self.modules():
            if isinstance(layer, nn.InstanceNorm2d):
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        return super().prepare(device, dtype)


class Critic(nn.Module):
    """Scores (B, 1, h, w) of patches, and logits (B, domains), of pictures in -1..1 of one `side`.

    `depth` layers halve the size (published: 6, with 64 channels in the first).

    >>> scores, logits = Critic(3, side=32, width=4, depth=3)(torch.rand(2, 3, 32, 32))
    >>> tuple(scores.shape), tuple(logits.shape)
    ((2, 1, 4, 4), (2, 3))
    """

    def __init__(self, domains: int, side: int = 128, width: int = 64, depth: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for level in range(depth):
            after = width << level
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.01)]
            before = after
        self.main = nn.Sequential(*layers)
        self.conv1 = nn.Conv2d(before, 1, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(before, domains, side >> depth, bias=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = self.main(pictures)
        return self.conv1(features), self.conv2(features).flatten(1)


def _norm(width: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(width, affine=True, track_running_stats=True)


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, _norm(convolution.out_channels), nn.ReLU(True)


def from_state(state: Mapping[str, Tensor]) -> Generator:
    """The generator that holds `state`, of a published file or of our own.

    Raises WeightsError for tensors that do not fit. Published files hold no names of domains: those of five
    are CelebA's attributes, others are numbered from 0. Old files lack counts of batches.
    """
    first = state.get("main.0.weight")
    blocks = {name.split(".")[1] for name in state if ".main." in name}
    if first is None or first.ndim != 4 or first.shape[1] < 4 or not blocks:
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of a StarGAN "
            "generator: use a file such as 200000-G.ckpt"
        )
    names = names_of(state, first.shape[1] - 3, {len(CELEBA): CELEBA})
    with torch.random.fork_rng(devices=[]):
        network = Generator(names, first.shape[0], len(blocks))
    # The statistics that training kept are not used, and need not be there.
    own = network.state_dict()
    kept = {name: tensor for name, tensor in own.items() if name.rpartition(".")[2] in _STATISTICS}
    state = kept | {NAMES: own[NAMES]} | dict(state)
    check_state({name: tensor.shape for name, tensor in own.items()}, state, "a StarGAN generator")
    network.load_state_dict(state)
    return network
