"""The trunk of Inception: output sizes of TF-slim, and the smallest picture."""

from __future__ import annotations

import sys

import pytest
import torch

from atelier.core.errors import InputError
from atelier.networks.inception import SMALLEST, Trunk
from atelier.networks.tensorflow import fold


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(0)
    made = Trunk(thin=16).eval()
    fold(made, torch.float32)
    return made


def positions(side: int) -> int:
    """What is left of a side, layer by layer: valid convolutions and poolings take their part."""
    for kernel, stride in ((3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2)):
        side = (side - kernel) // stride + 1
    return side


@pytest.mark.parametrize("shape", [(SMALLEST, SMALLEST), (SMALLEST, 96), (75, 60), (112, 59)])
def test_output_shapes(trunk: Trunk, shape: tuple[int, int]) -> None:
    with torch.no_grad():
        found = trunk(torch.rand(2, 3, *shape))
    assert found.shape == (2, 48, positions(shape[0]), positions(shape[1]))
    assert found.min() >= 0
    assert found.max() <= 6


def test_a_picture_below_the_smallest_size_is_an_error(trunk: Trunk) -> None:
    assert positions(SMALLEST) == 1
    assert positions(SMALLEST - 1) < 1
    with pytest.raises(
        InputError, match=f"50x{SMALLEST - 1} px is too small for Inception, which needs at least 43"
    ):
        trunk(torch.rand(1, 3, SMALLEST - 1, 50))


def test_the_full_trunk_has_the_published_layers() -> None:
    with torch.device("meta"):
        whole = Trunk()
    assert whole.outputs == 768
    assert len([name for name in whole.state_dict() if name.endswith("weight")]) == 70


def test_average_pooling_excludes_the_border() -> None:
    torch.manual_seed(0)
    trunk = Trunk(thin=16).eval()
    block = trunk.get_submodule("Mixed_5b")
    unit = block.get_submodule("Branch_3").get_submodule("Conv2d_0b_1x1")
    with torch.no_grad():
        # Over a flat plane the average of the neighbours that exist is the plane, at the corners too.
        flat = block(torch.full((1, 12, 5, 5), 2.0))[:, -2:]
        assert flat.shape == (1, unit.get_parameter("weight").shape[0], 5, 5)
        assert (flat - flat[..., 2:3, 2:3]).abs().max() < 1e-5


def test_meta_device_keeps_random_state_and_imports() -> None:
    before, modules = torch.get_rng_state(), set(sys.modules)
    with torch.device("meta"):
        Trunk(thin=16)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(sys.modules) - modules) < 20
