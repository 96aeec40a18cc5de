"""StarGAN v2's networks: generator, mapping network, style encoder and critic (Choi et al. 2020, appendix C).

Modules have the published names, so that published files load as they are. All pictures inside are in -1..1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state
from atelier.translators.translator import NAMES, Translator, names_of

#: The domains of the published networks, by their number: those of CelebA-HQ and AFHQ.
PUBLISHED = {2: ("female", "male"), 3: ("cat", "dog", "wild")}
#: What a published checkpoint holds, and of it what paints.
PARTS = ("generator", "mapping_network", "style_encoder")
#: Heights of feature maps at which masks act.
_MASKED = (32, 64, 128)
Masks = tuple[Tensor, Tensor]
#: The sum of a block's two ways has the variance of one.
_ROOT = math.sqrt(2)


@dataclass(frozen=True)
class Plan:
    """The sizes of the networks: `width` channels at full size, doubled at each halving up to `widest`.

    `side` is that of the training pictures, a power of two; `edges` adds the path by which fine detail of
    the picture passes under masks (published for faces).
    """

    side: int = 256
    width: int = 64
    widest: int = 512
    style: int = 64
    latent: int = 16
    hidden: int = 512
    edges: bool = False

    @property
    def halvings(self) -> int:
        """How often the generator halves the size."""
        return max(1, self.side.bit_length() - 5) + self.edges

    def widths(self, halvings: int) -> list[int]:
        """The channels before the first and after each of `halvings`."""
        return [self.width, *(min(self.width << n, self.widest) for n in range(1, halvings + 1))]


class Block(nn.Module):
    """A residual block, which halves the size if `down`; `normed` by instance, at its input's width."""

    def __init__(self, before: int, after: int, *, down: bool, normed: bool = False) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(before, before, 3, 1, 1)
        self.conv2 = nn.Conv2d(before, after, 3, 1, 1)
        self.norm1 = nn.InstanceNorm2d(before, affine=True) if normed else nn.Identity()
        self.norm2 = nn.InstanceNorm2d(before, affine=True) if normed else nn.Identity()
        self.conv1x1 = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1(F.leaky_relu(self.norm1(features), 0.2))
        inner = self.conv2(F.leaky_relu(self.norm2(self._smaller(inner)), 0.2))
        made: Tensor = (self._smaller(self.conv1x1(features)) + inner) / _ROOT
        return made

    def _smaller(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, 2) if self.down else features


class Adaptive(nn.Module):
    """Adaptive instance normalisation: a style (B, S) gives the scales, less 1, and the shifts."""

    def __init__(self, style: int, width: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(width)
        self.fc = nn.Linear(style, 2 * width)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.fc(style)[:, :, None, None].chunk(2, 1)
        made: Tensor = (1 + scale) * self.norm(features) + shift
        return made


class StyledBlock(nn.Module):
    """A residual block under a style, which doubles the size if `up`; `straight` adds its input."""

    def __init__(self, before: int, after: int, style: int, *, up: bool, straight: bool) -> None:
        super().__init__()
        self.up, self.straight = up, straight
        self.conv1 = nn.Conv2d(before, after, 3, 1, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.norm1, self.norm2 = Adaptive(style, before), Adaptive(style, after)
        self.conv1x1 = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        inner = self.conv1(self._larger(F.leaky_relu(self.norm1(features, style), 0.2)))
        made: Tensor = self.conv2(F.leaky_relu(self.norm2(inner, style), 0.2))
        if self.straight:
            made = (made + self.conv1x1(self._larger(features))) / _ROOT
        return made

    def _larger(self, features: Tensor) -> Tensor:
        return F.interpolate(features, scale_factor=2.0, mode="nearest") if self.up else features


class Edges(nn.Module):
    """A high-pass filter, the difference of a pixel to its neighbours."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernel = -torch.ones(3, 3)
        kernel[1, 1] = 8
        self.register_buffer("filter", kernel)

    def forward(self, features: Tensor) -> Tensor:
        width = features.shape[1]
        kernel = self.filter.to(features)[None, None].expand(width, 1, 3, 3)
        return F.conv2d(features, kernel, padding=1, groups=width)


class Generator(Translator):
    """The generator for the named domains, new from torch's global seed.

    >>> network = Generator(("day", "night"), Plan(side=32, width=4, widest=8, style=5))
    >>> tuple(network.paint(torch.rand(1, 3, 30, 41), torch.rand(1, 5)).shape)
    (1, 3, 30, 41)
    """

    def __init__(self, domains: Sequence[str], plan: Plan) -> None:
        super().__init__()
        widths = plan.widths(plan.halvings)
        last = widths[-1]
        pairs = list(pairwise(widths))
        same = {"straight": not plan.edges}
        self.from_rgb = nn.Conv2d(3, plan.width, 3, 1, 1)
        self.encode = nn.ModuleList(
            [Block(before, after, down=True, normed=True) for before, after in pairs]
            + [Block(last, last, down=False, normed=True) for _ in range(2)]
        )
        self.decode = nn.ModuleList(
            [StyledBlock(last, last, plan.style, up=False, **same) for _ in range(2)]
            + [StyledBlock(after, before, plan.style, up=True, **same) for before, after in reversed(pairs)]
        )
        self.to_rgb = nn.Sequential(
            nn.InstanceNorm2d(plan.width, affine=True), nn.LeakyReLU(0.2), nn.Conv2d(plan.width, 3, 1)
        )
        if plan.edges:
            self.hpf = Edges()
        self.name_domains(domains)
        self.multiple = 1 << plan.halvings
        self.smallest = 2 * self.multiple

    def forward(self, picture: Tensor, style: Tensor, masks: Masks | None = None) -> Tensor:
        """The translated pictures (B, 3, H, W) of pictures in -1..1 under styles (B or 1, S).

        `masks`, each (B, 1, h, w), say where fine detail of square pictures stays: the first acts on maps of
        32 rows, the second on those of 64 and 128.
        """
        features, kept = self.from_rgb(picture), dict[int, Tensor]()
        for block in self.encode:
            if masks is not None and features.shape[2] in _MASKED:
                kept[features.shape[2]] = features
            features = block(features)
        for block in self.decode:
            features = block(features, style)
            if masks is not None and (side := features.shape[2]) in _MASKED:
                mask = F.interpolate(masks[side != _MASKED[0]], (side, side), mode="bilinear")
                features = features + self.hpf(mask * kept[side])
        made: Tensor = self.to_rgb(features)
        return made


class MappingNetwork(nn.Module):
    """Styles from latents: (B, `plan.latent`) normal numbers to (B, `plan.style`), for each domain."""

    def __init__(self, domains: int, plan: Plan) -> None:
        super().__init__()
        widths = [plan.latent, *[plan.hidden] * 4]
        self.shared = nn.Sequential(*_layers(widths))
        widths = [plan.hidden] * 4
        self.unshared = nn.ModuleList(
            nn.Sequential(*_layers(widths), nn.Linear(plan.hidden, plan.style)) for _ in range(domains)
        )

    def forward(self, latents: Tensor, domain: Tensor) -> Tensor:
        """The styles (B, S) of latents (B, L) in the domains of index `domain` (B,)."""
        shared = self.shared(latents)
        return _chosen(torch.stack([head(shared) for head in self.unshared], 1), domain)


class StyleEncoder(nn.Module):
    """Styles of reference pictures (B, 3, H, W), for each domain."""

    def __init__(self, domains: int, plan: Plan) -> None:
        super().__init__()
        self.shared = nn.Sequential(*_trunk(plan))
        self.unshared = nn.ModuleList(nn.Linear(_last(plan), plan.style) for _ in range(domains))

    def forward(self, pictures: Tensor, domain: Tensor) -> Tensor:
        """The styles (B, S) of pictures in -1..1, as pictures of the domains of index `domain` (B,)."""
        found = self.shared(pictures).mean((2, 3))
        return _chosen(torch.stack([head(found) for head in self.unshared], 1), domain)


class Critic(nn.Module):
    """The score (B,) of pictures in -1..1 as pictures of a domain."""

    def __init__(self, domains: int, plan: Plan) -> None:
        super().__init__()
        self.main = nn.Sequential(*_trunk(plan), nn.Conv2d(_last(plan), domains, 1))

    def forward(self, pictures: Tensor, domain: Tensor) -> Tensor:
        return _chosen(self.main(pictures).mean((2, 3)), domain)


def _trunk(plan: Plan) -> list[nn.Module]:
    """Down to 4 x 4 positions, and to one."""
    widths = plan.widths(plan.side.bit_length() - 3)
    blocks = [Block(before, after, down=True) for before, after in pairwise(widths)]
    last = nn.Conv2d(widths[-1], widths[-1], 4)
    return [nn.Conv2d(3, plan.width, 3, 1, 1), *blocks, nn.LeakyReLU(0.2), last, nn.LeakyReLU(0.2)]


def _last(plan: Plan) -> int:
    return plan.widths(plan.side.bit_length() - 3)[-1]


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    pairs = pairwise(widths)
    return [layer for before, after in pairs for layer in (nn.Linear(before, after), nn.ReLU())]


def _chosen(every: Tensor, domain: Tensor) -> Tensor:
    """The row of each picture's domain (B, ...) of the outputs (B, domains, ...) for all domains."""
    return every[torch.arange(len(every), device=every.device), domain]


@torch.no_grad()
def initialise(network: nn.Module) -> nn.Module:
    """Kaiming normal weights and no biases, as published."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                layer.bias.zero_()
    return network


@dataclass(frozen=True)
class Networks:
    """What a file holds for painting, and the sizes that it was trained with."""

    generator: Generator
    mapping_network: MappingNetwork
    style_encoder: StyleEncoder
    plan: Plan


def from_state(state: Mapping[str, Tensor]) -> Networks:
    """The networks that hold `state`, of a published file or of our own; its face network is left out.

    Raises WeightsError for tensors that do not fit. Published files hold no names of domains: those of two
    are CelebA-HQ's, those of three AFHQ's, others are numbered from 0.
    """
    parts = {part: _part(state, part) for part in PARTS}
    try:
        plan, count = _plan(parts), _count(parts["style_encoder"], r"unshared\.\d+")
    except (KeyError, IndexError, ValueError):
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of StarGAN v2's "
            "generator, mapping network and style encoder: use a file such as 100000_nets_ema.ckpt"
        ) from None
    names = names_of(parts["generator"], count, PUBLISHED)
    with torch.random.fork_rng(devices=[]):
        networks = Networks(
            Generator(names, plan), MappingNetwork(count, plan), StyleEncoder(count, plan), plan
        )
    parts["generator"] = {NAMES: networks.generator.names, **parts["generator"]}
    for part in PARTS:
        network: nn.Module = getattr(networks, part)
        expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
        check_state(expected, parts[part], f"StarGAN v2's {part.replace('_', ' ')}")
        network.load_state_dict(parts[part])
    return networks


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[0] for name in state if (found := re.match(pattern, name))})


def _plan(parts: Mapping[str, Mapping[str, Tensor]]) -> Plan:
    """The sizes of published networks. Raises KeyError, IndexError or ValueError where there are none."""
    hidden, latent = parts["mapping_network"]["shared.0.weight"].shape
    encoder = parts["style_encoder"]
    style, widest = encoder["unshared.0.weight"].shape
    side = 4 << _count(encoder, r"shared\.\d+\.conv1\.")
    width = parts["generator"]["from_rgb.weight"].shape[0]
    return Plan(side, width, widest, style, latent, hidden, edges="hpf.filter" in parts["generator"])
