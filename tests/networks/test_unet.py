"""The diffusion UNet: what a local network sees, its plans, and wrong weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.networks.unet import UNet, UNetPlan, from_state, plan_of

LOCAL = UNetPlan(16, (1, 2), groups=0, patch=2)


def woken(plan: UNetPlan, seed: int = 0) -> UNet:
    """A network whose layers that start at zero do something."""
    torch.manual_seed(seed)
    network = UNet(plan)
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return network.eval().requires_grad_(False)


def test_a_new_network_predicts_zero() -> None:
    torch.manual_seed(0)
    network = UNet(LOCAL)
    assert not network(torch.rand(1, 3, 16, 16), torch.zeros(1)).any()


@pytest.mark.parametrize("plan", [LOCAL, UNetPlan(16, (1, 1, 2), blocks=2, groups=0)])
def test_a_pixel_of_a_local_network_depends_on_no_more_than_its_reach(plan: UNetPlan) -> None:
    network, side = woken(plan), 4 * plan.reach
    picture = torch.rand(1, 3, 16, side)
    changed = picture.clone()
    changed[..., : side // 2] = torch.rand(1, 3, 16, side // 2)
    different = (network(picture, torch.zeros(1)) - network(changed, torch.zeros(1))).abs().amax((0, 1, 2))
    far = different[side // 2 + plan.reach :]
    assert far.max() == 0
    # The reach is no idle bound: something just inside it does change.
    assert different[side // 2 : side // 2 + plan.reach - 2 * plan.multiple].min() > 0


@pytest.mark.parametrize(
    "plan", [UNetPlan(32, (1, 2)), UNetPlan(16, (1, 2), groups=0, attention=(2,), head=8)]
)
def test_group_norm_and_attention_are_not_local(plan: UNetPlan) -> None:
    assert not plan.is_local
    network = woken(plan)
    picture = torch.rand(1, 3, 8, 256)
    changed = picture.clone()
    changed[..., :8] = 0
    assert (network(picture, torch.zeros(1)) != network(changed, torch.zeros(1)))[..., -8:].any()


def test_features_are_those_on_the_way_down() -> None:
    network = woken(LOCAL)
    seen: list[Tensor] = []
    for block in network.input_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    picture, times = torch.rand(1, 3, 16, 16), torch.tensor([5.0])
    network(picture, times)
    whole = list(seen)
    seen.clear()
    found = network.features(picture, times, {0, 1})
    assert set(found) == {0, 1}
    assert all(torch.equal(found[index], whole[index]) for index in found)
    assert len(seen) == 2


def test_the_class_changes_the_output() -> None:
    network = woken(UNetPlan(16, (1,), groups=0, classes=3))
    picture, times = torch.rand(2, 3, 8, 8), torch.zeros(2)
    found = network(picture[:1].expand(2, -1, -1, -1), times, torch.tensor([0, 2]))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(
    "plan",
    [
        UNetPlan(32, (1, 2, 2), blocks=2, attention=(2, 4)),
        UNetPlan(32, (2, 3), blocks=1, out=6, classes=10),
        UNetPlan(64, (1, 1, 1, 1), blocks=3, attention=(8,)),
    ],
)
def test_plans_are_found_in_names_and_shapes(plan: UNetPlan) -> None:
    with torch.device("meta"):
        assert plan_of(UNet(plan).state_dict()) == plan


def test_weights_of_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match="not those of a diffusion UNet"):
        from_state({"features.0.weight": torch.zeros(3)})
    with torch.device("meta"):
        state = UNet(UNetPlan(32, (1, 2))).state_dict()
    del state["middle_block.0.in_layers.0.weight"]
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing"):
        from_state(state)
