"""Inception-v3 as metrics use it: 2048 features of a picture, under the names of torchvision's network.

There are two kinds. FID's is pytorch-fid's port of the TensorFlow network: average pooling leaves out the
padding, and the last block pools by maximum. ArtFID's is torchvision's, trained on paintings, and sees
pictures at their own size. `networks.inception` is another network: TF-slim's, up to Mixed_6e.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import InputError
from atelier.images.resize import resize
from atelier.store.checkpoints import check_state

#: Height and width of FID's input in pixels, the shortest side that passes through all layers, and the number
#: of features.
SIDE, SMALLEST, WIDTH = 299, 75, 2048
_EPS = 0.001


class Kind(NamedTuple):
    """How the network of a metric reads pictures, and how it pools.

    `centred` inputs are in -1..1, others in 0..1. `side` is the square that pictures are resized to; None
    leaves them as they are. `bare` averages leave out the padding; `last` is the pooling of the last block.
    """

    what: str
    centred: bool
    side: int | None
    bare: bool
    last: str


FID = Kind("FID's Inception-v3", centred=True, side=SIDE, bare=True, last="maximum")
ARTFID = Kind("ArtFID's Inception-v3", centred=False, side=None, bare=False, last="average")


class _Unit(NamedTuple):
    """A convolution with batch norm and ReLU; without padding where it halves the resolution."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


#: Units one after another. Branches that begin with the same unit share it.
_Branch = Sequence[_Unit]


class _Block(NamedTuple):
    """Branches side by side, and a pooled one; one pooled to half the resolution goes through no unit."""

    name: str
    branches: Sequence[_Branch]
    pool: str
    pooled: int = 0


def _a(name: str, pooled: int) -> _Block:
    wide = (_Unit("branch5x5_1", 48), _Unit("branch5x5_2", 64, (5, 5)))
    double = (
        _Unit("branch3x3dbl_1", 64),
        _Unit("branch3x3dbl_2", 96, (3, 3)),
        _Unit("branch3x3dbl_3", 96, (3, 3)),
    )
    return _Block(name, ((_Unit("branch1x1", 64),), wide, double), "average", pooled)


def _b(name: str) -> _Block:
    double = (
        _Unit("branch3x3dbl_1", 64),
        _Unit("branch3x3dbl_2", 96, (3, 3)),
        _Unit("branch3x3dbl_3", 96, (3, 3), 2),
    )
    return _Block(name, ((_Unit("branch3x3", 384, (3, 3), 2),), double), "halved")


def _c(name: str, inner: int) -> _Block:
    across, down = (1, 7), (7, 1)
    single = (
        _Unit("branch7x7_1", inner),
        _Unit("branch7x7_2", inner, across),
        _Unit("branch7x7_3", 192, down),
    )
    double = (
        _Unit("branch7x7dbl_1", inner),
        _Unit("branch7x7dbl_2", inner, down),
        _Unit("branch7x7dbl_3", inner, across),
        _Unit("branch7x7dbl_4", inner, down),
        _Unit("branch7x7dbl_5", 192, across),
    )
    return _Block(name, ((_Unit("branch1x1", 192),), single, double), "average", 192)


def _d(name: str) -> _Block:
    single = (_Unit("branch3x3_1", 192), _Unit("branch3x3_2", 320, (3, 3), 2))
    wide = (
        _Unit("branch7x7x3_1", 192),
        _Unit("branch7x7x3_2", 192, (1, 7)),
        _Unit("branch7x7x3_3", 192, (7, 1)),
        _Unit("branch7x7x3_4", 192, (3, 3), 2),
    )
    return _Block(name, (single, wide), "halved")


def _e(name: str, pool: str) -> _Block:
    across, down = (1, 3), (3, 1)
    first = (_Unit("branch3x3_1", 384),)
    double = (_Unit("branch3x3dbl_1", 448), _Unit("branch3x3dbl_2", 384, (3, 3)))
    branches = (
        (_Unit("branch1x1", 320),),
        (*first, _Unit("branch3x3_2a", 384, across)),
        (*first, _Unit("branch3x3_2b", 384, down)),
        (*double, _Unit("branch3x3dbl_3a", 384, across)),
        (*double, _Unit("branch3x3dbl_3b", 384, down)),
    )
    return _Block(name, branches, pool, 192)


_STEM = (
    _Unit("Conv2d_1a_3x3", 32, (3, 3), 2),
    _Unit("Conv2d_2a_3x3", 32, (3, 3)),
    _Unit("Conv2d_2b_3x3", 64, (3, 3)),
    _Unit("Conv2d_3b_1x1", 80),
    _Unit("Conv2d_4a_3x3", 192, (3, 3)),
)
#: Units of the stem without padding, and those before a pooling.
_BARE, _POOLED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3"), ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
_BLOCKS = (
    _a("Mixed_5b", 32),
    _a("Mixed_5c", 64),
    _a("Mixed_5d", 64),
    _b("Mixed_6a"),
    _c("Mixed_6b", 128),
    _c("Mixed_6c", 160),
    _c("Mixed_6d", 160),
    _c("Mixed_6e", 192),
    _d("Mixed_7a"),
    _e("Mixed_7b", "average"),
    _e("Mixed_7c", "last"),
)


class InceptionV3:
    """The network for tensors under torchvision's names, by default that of FID.

    Classifiers and their auxiliary heads are left out. Raises WeightsError for tensors of another network.
    """

    def __init__(self, state: Mapping[str, Tensor], kind: Kind = FID) -> None:
        own = {
            name: tensor.float()
            for name, tensor in state.items()
            if not name.startswith(("fc", "AuxLogits")) and not name.endswith("num_batches_tracked")
        }
        check_state(shapes(), own, kind.what)
        self.kind = kind
        self._units = {name: _folded(own, name) for name in {key.rsplit(".", 2)[0] for key in own}}

    def __call__(self, pictures: Tensor) -> Tensor:
        """Features (B, 2048) of pictures (B, 3, H, W) in 0..1.

        FID's network resizes them by antialiased bicubic to 299x299. Raises InputError for pictures that are
        too small for one that does not.
        """
        x = self._seen(pictures)
        for unit in _STEM:
            x = self._unit(x, unit, unit.name, bare=unit.name in _BARE)
            if unit.name in _POOLED:
                x = F.max_pool2d(x, 3, 2)
        for block in _BLOCKS:
            x = self._block(x, block)
        return x.mean((2, 3))

    def _seen(self, pictures: Tensor) -> Tensor:
        side = self.kind.side
        x = pictures if side is None else resize(pictures, (side, side))
        height, width = x.shape[-2:]
        if min(height, width) < SMALLEST:
            raise InputError(
                f"a picture of {width}x{height} px is too small for {self.kind.what}, which needs {SMALLEST}"
            )
        return 2 * x - 1 if self.kind.centred else x

    def _block(self, x: Tensor, block: _Block) -> Tensor:
        done: dict[str, Tensor] = {}
        parts = []
        for branch in block.branches:
            part = x
            for unit in branch:
                if unit.name not in done:
                    done[unit.name] = self._unit(part, unit, f"{block.name}.{unit.name}")
                part = done[unit.name]
            parts.append(part)
        if block.pool == "halved":
            return torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)
        pooled = self._pooled(x, self.kind.last if block.pool == "last" else block.pool)
        last = _Unit("branch_pool", block.pooled)
        return torch.cat([*parts, self._unit(pooled, last, f"{block.name}.branch_pool")], 1)

    def _pooled(self, x: Tensor, how: str) -> Tensor:
        """The neighbourhood of every position, by its maximum or average."""
        if how == "maximum":
            return F.max_pool2d(x, 3, 1, 1)
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=not self.kind.bare)

    def _unit(self, x: Tensor, unit: _Unit, name: str, *, bare: bool = False) -> Tensor:
        weight, bias = (tensor.to(x.device) for tensor in self._units[name])
        whole = unit.stride == 1 and not bare
        padding = (unit.kernel[0] // 2, unit.kernel[1] // 2) if whole else (0, 0)
        return F.conv2d(x, weight, bias, stride=unit.stride, padding=padding).relu_()


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors by name, without the classifiers."""
    found: dict[str, tuple[int, ...]] = {}
    for name, before, unit in _units():
        found[f"{name}.conv.weight"] = (unit.width, before, *unit.kernel)
        parts = ("weight", "bias", "running_mean", "running_var")
        found |= {f"{name}.bn.{part}": (unit.width,) for part in parts}
    return found


def _units() -> Iterator[tuple[str, int, _Unit]]:
    """The name, input channels and description of every unit."""
    channels = 3
    for unit in _STEM:
        yield unit.name, channels, unit
        channels = unit.width
    for block in _BLOCKS:
        for branch in block.branches:
            before = channels
            for unit in branch:
                yield f"{block.name}.{unit.name}", before, unit
                before = unit.width
        if block.pooled:
            yield f"{block.name}.branch_pool", channels, _Unit("branch_pool", block.pooled)
        wide = sum(branch[-1].width for branch in block.branches)
        channels = wide + (block.pooled or channels)


def _folded(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """A unit's convolution and bias, with its batch norm folded in."""
    norm = {part: state[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    scale = norm["weight"] / (norm["running_var"] + _EPS).sqrt()
    weight = state[f"{name}.conv.weight"] * scale[:, None, None, None]
    return weight, norm["bias"] - norm["running_mean"] * scale
