"""AlexNet and SqueezeNet 1.1 up to their last features, under torchvision's names: what LPIPS looks with.

VGG-16, the third trunk of LPIPS, is `features.vgg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import InputError
from atelier.features.vgg import VGG
from atelier.store.checkpoints import check_state

State = Mapping[str, Tensor]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The ReLUs of VGG-16 that LPIPS compares.
VGG_TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
#: The convolutions of AlexNet: number in the published network, channels before and after, kernel, stride,
#: padding; all but the first two follow one another without pooling.
_ALEX = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
#: The fire blocks of SqueezeNet 1.1: number, channels before, squeezed, and of each of the two halves.
_FIRES = (
    (3, 64, 16, 64),
    (4, 128, 16, 64),
    (6, 128, 32, 128),
    (7, 256, 32, 128),
    (9, 256, 48, 192),
    (10, 384, 48, 192),
    (11, 384, 64, 256),
    (12, 512, 64, 256),
)
#: Where SqueezeNet pools before a block, and the blocks after which LPIPS looks.
_POOLED, _SEEN = (3, 6, 9), (4, 7, 9, 10, 11, 12)


class AlexTrunk:
    """The five ReLUs of AlexNet (Krizhevsky 2014) for pictures (B, 3, H, W) in 0..1."""

    def __init__(self, state: State) -> None:
        self.state = _checked(state, alex_shapes(), "AlexNet")

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """Raises InputError for a side of less than 63 px."""
        _check_side(pictures, 63)
        x, found = _normalised(pictures), []
        for index, (number, *_, stride, padding) in enumerate(_ALEX):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = _convolved(self.state, x, f"features.{number}", stride, padding).relu()
            found.append(x)
        return found


class SqueezeTrunk:
    """Seven layers of SqueezeNet 1.1 (Iandola et al. 2016) for pictures (B, 3, H, W) in 0..1."""

    def __init__(self, state: State) -> None:
        self.state = _checked(state, squeeze_shapes(), "SqueezeNet 1.1")

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """Raises InputError for a side of less than 17 px."""
        _check_side(pictures, 17)
        x = _convolved(self.state, _normalised(pictures), "features.0", 2, 0).relu()
        found = [x]
        for number, *_ in _FIRES:
            if number in _POOLED:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            x = self._fire(x, f"features.{number}")
            if number in _SEEN:
                found.append(x)
        return found

    def _fire(self, x: Tensor, name: str) -> Tensor:
        x = _convolved(self.state, x, f"{name}.squeeze", 1, 0).relu()
        halves = ((f"{name}.expand1x1", 0), (f"{name}.expand3x3", 1))
        return torch.cat([_convolved(self.state, x, half, 1, padding).relu() for half, padding in halves], 1)


class VGGTrunk:
    """Taps of a VGG-like encoder as a trunk; those of LPIPS by default."""

    def __init__(self, encoder: VGG, taps: Sequence[str] = VGG_TAPS) -> None:
        self.encoder, self.taps = encoder, tuple(taps)

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        return list(self.encoder(pictures, self.taps).values())


def alex_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of AlexNet's features by torchvision's names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, before, after, kernel, *_ in _ALEX:
        shapes |= _shapes(f"features.{number}", before, after, kernel)
    return shapes


def squeeze_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of SqueezeNet's features by torchvision's names."""
    shapes = _shapes("features.0", 3, 64, 3)
    for number, before, squeezed, half in _FIRES:
        name = f"features.{number}"
        shapes |= _shapes(f"{name}.squeeze", before, squeezed, 1)
        shapes |= _shapes(f"{name}.expand1x1", squeezed, half, 1)
        shapes |= _shapes(f"{name}.expand3x3", squeezed, half, 3)
    return shapes


def _shapes(name: str, before: int, after: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (after, before, kernel, kernel), f"{name}.bias": (after,)}


def _checked(state: State, shapes: dict[str, tuple[int, ...]], what: str) -> dict[str, Tensor]:
    plain = {name: tensor.float() for name, tensor in state.items() if not name.startswith("classifier.")}
    check_state({name: torch.Size(shape) for name, shape in shapes.items()}, plain, what)
    return plain


def _normalised(pictures: Tensor) -> Tensor:
    mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (pictures - mean) / std


def _convolved(state: State, x: Tensor, name: str, stride: int, padding: int) -> Tensor:
    weight, bias = (state[f"{name}.{part}"].to(x.device) for part in ("weight", "bias"))
    return F.conv2d(x, weight, bias, stride=stride, padding=padding)


def _check_side(pictures: Tensor, least: int) -> None:
    height, width = pictures.shape[-2:]
    if min(height, width) < least:
        raise InputError(
            f"a picture of {width}x{height} px is too small for LPIPS, which needs {least} px a side"
        )
