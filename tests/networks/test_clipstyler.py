"""CLIPstyler's network: its layout and sizes; the parity case has its numbers."""

from __future__ import annotations

import pytest
import torch

from atelier.networks.clipstyler import MULTIPLE, StyleUNet


def test_sizes_and_range() -> None:
    torch.manual_seed(0)
    network = StyleUNet()
    picture = torch.rand((2, 3, 2 * MULTIPLE, 3 * MULTIPLE))
    found = network(picture)
    assert found.shape == picture.shape
    assert 0 < found.min() < found.max() < 1
    torch.testing.assert_close(found, torch.sigmoid(network.logits(picture)))


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    torch.manual_seed(0)
    network, pictures = StyleUNet(), torch.rand((2, 3, 16, 16))
    torch.testing.assert_close(network(pictures)[:1], network(pictures[:1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [12, 20])
def test_other_sides_do_not_fit(side: int) -> None:
    with pytest.raises(RuntimeError):
        StyleUNet()(torch.rand((1, 3, side, 16)))
