"""The U-Net of pix2pix, which learnt from pairs of pictures (Isola et al. 2017, appendix 6.1).

Modules have the published names, so that published files load as they are. All pictures inside are in -1..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state
from atelier.translators.translator import Translator

Norm = type[nn.BatchNorm2d] | type[nn.InstanceNorm2d]
#: How often the width doubles.
_DOUBLED = 3


class Level(nn.Module):
    """A level of the U-Net: its layers, and the way straight through beside them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.model(features)], 1)


class Outermost(Level):
    """The level at full size, whose picture stands alone."""

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.model(features)
        return made


class Generator(Translator):
    """The generator, new from torch's global seed (published: `width` 64, `depth` 8 for 256 px).

    It has `depth` levels, each at half the size of the one before. `dropped` is the share of the features
    that its inner levels drop in training.

    >>> tuple(Generator(width=4, depth=5).eval().paint(torch.rand(1, 3, 30, 41)).shape)
    (1, 3, 30, 41)
    """

    def __init__(
        self, width: int = 64, depth: int = 8, norm: Norm = nn.BatchNorm2d, dropped: float = 0.5
    ) -> None:
        super().__init__()
        biased = norm is nn.InstanceNorm2d
        widths = [width << min(level, _DOUBLED) for level in range(depth)]
        last = widths[-1]
        level: nn.Module = Level(
            *(nn.LeakyReLU(0.2), nn.Conv2d(widths[-2], last, 4, 2, 1, bias=biased), nn.ReLU()),
            *(nn.ConvTranspose2d(last, widths[-2], 4, 2, 1, bias=biased), norm(widths[-2])),
        )
        for before, inside in reversed(list(pairwise(widths[:-1]))):
            drops = [nn.Dropout(dropped)] if before == last and dropped else []
            level = Level(
                *(nn.LeakyReLU(0.2), nn.Conv2d(before, inside, 4, 2, 1, bias=biased), norm(inside), level),
                *(nn.ReLU(), nn.ConvTranspose2d(2 * inside, before, 4, 2, 1, bias=biased), norm(before)),
                *drops,
            )
        self.model = Outermost(
            *(nn.Conv2d(3, width, 4, 2, 1, bias=biased), level),
            *(nn.ReLU(), nn.ConvTranspose2d(2 * width, 3, 4, 2, 1), nn.Tanh()),
        )
        self.multiple = self.smallest = 1 << depth

    def forward(self, picture: Tensor) -> Tensor:
        """The translated picture (B, 3, H, W) of a picture in -1..1; sides are multiples of 2^depth."""
        made: Tensor = self.model(picture)
        return made


def is_unet(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors are those of such a generator."""
    return "model.model.0.weight" in state


def from_state(state: Mapping[str, Tensor]) -> Generator:
    """The generator that holds `state`. Raises WeightsError for tensors that do not fit.

    Old files lack counts of batches. Networks with instance normalisation have no weights in it.
    """
    first = state["model.model.0.weight"]
    # A convolution down and one up in each level.
    depth = sum(value.ndim == 4 for value in state.values()) // 2
    if first.ndim != 4 or depth < 2 + _DOUBLED:
        raise WeightsError(
            f"a pix2pix generator has at least {2 + _DOUBLED} levels, and these tensors {depth}"
        )
    norm: Norm = nn.BatchNorm2d if any(name.endswith("running_mean") for name in state) else nn.InstanceNorm2d
    with torch.random.fork_rng(devices=[]):
        network = Generator(first.shape[0], depth, norm)
    own = network.state_dict()
    counts = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    state = counts | dict(state)
    check_state(
        {name: value.shape for name, value in own.items()}, state, f"a pix2pix generator of {depth} levels"
    )
    network.load_state_dict(state)
    return network
