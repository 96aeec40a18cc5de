"""The hypercolumn decoder: sizes inferred from tensors, four times the input size, and local."""

from __future__ import annotations

import pytest
import torch

from atelier.core.errors import WeightsError
from atelier.networks import HypercolumnDecoder


def tiny() -> HypercolumnDecoder:
    torch.manual_seed(0)
    return HypercolumnDecoder(20, 12, 4, width=16, guide_width=8, blocks=2).eval()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (16, 5)])
def test_output_is_four_times_the_input_size(shape: tuple[int, int]) -> None:
    network = tiny()
    columns, guidance = torch.rand(2, 20, *shape), torch.randn(2, 12, *shape)
    picture = network(network.value(columns), guidance)
    assert picture.shape == (2, 3, 4 * shape[0], 4 * shape[1])


def test_of_rebuilds_the_decoder_from_its_tensors() -> None:
    network = tiny()
    network.scale.copy_(torch.arange(1.0, 5.0))
    again = HypercolumnDecoder.of(network.state_dict()).eval()
    assert torch.equal(again.scale, network.scale)
    columns, guidance = torch.rand(1, 20, 6, 6), torch.randn(1, 12, 6, 6)
    assert torch.equal(again(again.value(columns), guidance), network(network.value(columns), guidance))


def test_fine_guidance_starts_without_effect_and_moves_fine_detail() -> None:
    torch.manual_seed(0)
    network = HypercolumnDecoder(20, 12, 4, width=16, guide_width=8, blocks=2, fine=(6, 5)).eval()
    assert network.fine_guides == ("relu2_1", "relu1_1")
    values, guidance = torch.rand(1, 16, 6, 6), torch.randn(1, 12, 6, 6)
    # A picture of 22 x 23 pixels: its features end before the decoder's grid does.
    fine = [torch.randn(1, 6, 11, 12), torch.randn(1, 5, 22, 23)]
    plain = tiny()
    plain.load_state_dict({name: one for name, one in network.state_dict().items() if "fine" not in name})
    assert torch.equal(network(values, guidance, fine), plain(values, guidance))
    for layer in network.fine:
        torch.nn.init.normal_(layer.weight)
    before = HypercolumnDecoder.of(network.state_dict())(values, guidance, fine)
    assert torch.equal(before, network(values, guidance, fine))
    fine[1][..., 10, 10] += 1
    rows, columns = (network(values, guidance, fine) - before).abs().amax((0, 1)).nonzero().T
    # Two convolutions follow it.
    assert {int(one) for one in (rows.min(), columns.min())} == {8}
    assert {int(one) for one in (rows.max(), columns.max())} == {12}


@pytest.mark.parametrize("lost", ["value.weight", "blocks.1.first.bias", "scale", "last.weight"])
def test_a_missing_tensor_is_an_error(lost: str) -> None:
    state = tiny().state_dict()
    del state[lost]
    with pytest.raises(WeightsError, match="train nnst-d"):
        HypercolumnDecoder.of(state)


def test_output_depends_only_on_local_input() -> None:
    network = tiny()
    values, guidance = torch.rand(1, 16, 30, 30), torch.randn(1, 12, 30, 30)
    before = network(values, guidance)
    values[..., 0, 0] += 1
    changed = (network(values, guidance) - before).abs().amax((0, 1)) > 0
    rows, columns = changed.nonzero().T
    # Join and two blocks see 5 cells of 4 px; doubling twice and what follows it 14 px more.
    assert int(max(rows.max(), columns.max())) == 5 * 4 + 14 - 1
