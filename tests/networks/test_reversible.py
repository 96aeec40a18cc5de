"""The reversible network: exact inversion, sizes inferred from weights, and unmodified inputs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier.core.errors import InputError, WeightsError
from atelier.networks.reversible import (
    ART,
    PHOTO,
    SLIM,
    SPREAD,
    TINY,
    Plan,
    Reversible,
    _reflected,
    from_state,
    recognise,
    squeeze,
    unsqueeze,
)

PLANS = {
    "tiny": TINY,
    "artistic": replace(TINY, hidden=16, spread=1),
    "not spread": replace(TINY, hidden=64, spread=0),
    "filled up before refining": replace(TINY, hidden=6),
    "one group": Plan((6,), (3,), (2,), 6, 3, 1, 0),
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def picture(height: int, width: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(seed))


def loud(plan: Plan, seed: int = 1) -> Reversible:
    """A network whose blocks change their input a lot, biases too."""
    network, generator = Reversible(plan, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return network


@given(
    plan=st.sampled_from(list(PLANS.values())),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    batch=st.integers(1, 2),
)
@settings(max_examples=12, deadline=None)
def test_inverse_restores_the_picture(plan: Plan, height: int, width: int, batch: int) -> None:
    content = picture(plan.multiple * height, plan.multiple * width, batch=batch)
    network = loud(plan)
    with torch.inference_mode():
        features = network(content)
        back = network(features, inverse=True)
    assert features.shape[1] == 2 * plan.hidden
    assert features.shape[-2:] == plan.inside((content.shape[2], content.shape[3]))
    assert (features[:, :3] - content).abs().max() > 0.1 if features.shape[2:] == content.shape[2:] else True
    assert (back - content).abs().max() < 2e-5
    assert back.shape == content.shape


def test_squeeze_matches_the_published_order() -> None:
    pixels = torch.arange(2 * 2 * 4.0).view(1, 2, 2, 4)  # channel 0 holds 0 to 7, channel 1 holds 8 to 15
    found = squeeze(pixels)
    # Left position: pixels (0, 0), (0, 1), (1, 0), (1, 1), each with both channels.
    assert found[0, :, 0, 0].tolist() == [0, 8, 1, 9, 4, 12, 5, 13]
    assert found[0, :, 0, 1].tolist() == [2, 10, 3, 11, 6, 14, 7, 15]
    assert torch.equal(unsqueeze(found), pixels)


@every_plan
def test_the_callers_tensors_are_not_modified(plan: Plan) -> None:
    network, content = loud(plan), picture(2 * plan.multiple, 2 * plan.multiple)
    with torch.inference_mode():
        before = content.clone()
        features = network(content)
        kept = features.clone()
        first, again = (network(features, inverse=True) for _ in range(2))
    assert torch.equal(content, before)
    assert torch.equal(features, kept)
    assert torch.equal(first, again)


@every_plan
def test_in_place_and_autograd_paths_agree(plan: Plan) -> None:
    network, content = loud(plan), picture(12, 16).requires_grad_()
    features = network(content)
    back = network(1.5 * features, inverse=True)
    back.square().sum().backward()
    assert content.grad is not None
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())
    with torch.inference_mode():
        found = network(content.detach())
        torch.testing.assert_close(found, features.detach())
        torch.testing.assert_close(network(1.5 * found, inverse=True), back.detach())


def test_gradients() -> None:
    network = loud(Plan((2, 8), (1, 2), (1, 1), 2, 2, 1, 1)).double()
    content = picture(4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: network(2 * network(x), inverse=True), (content,))


@pytest.mark.parametrize("size", [(10, 12), (12, 10), (4, 8), (8, 4)])
def test_invalid_sides_are_errors(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"multiples of 4 and at least 8 px, got {size[1]}x{size[0]} px"):
        Reversible(TINY)(picture(*size))


@given(height=st.integers(1, 30), width=st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_padding_gives_valid_sides(height: int, width: int) -> None:
    content = picture(height, width)
    padded = TINY.padded(content)
    assert all(side % 4 == 0 and side >= 8 for side in padded.shape[-2:])
    assert padded.shape[-2] < max(9, height + 4)
    assert torch.equal(padded[..., :height, :width], content)
    assert torch.equal(padded[..., -1, -1], content[..., -1, -1])


def test_half_precision_keeps_the_halves_exact() -> None:
    network, content = loud(TINY), picture(16, 24)
    with torch.inference_mode():
        exact = network(content)
        network.prepare("cpu", torch.bfloat16)
        features = network(content)
        back = network(features, inverse=True)
    assert features.dtype == back.dtype == torch.float32
    # The blocks were rounded, and what was rounded is taken away again; else it would be as large.
    assert (features - exact).abs().mean() > 3e-3
    assert (back - content).abs().mean() < 1e-4


def test_borders_are_reflected_in_both_precisions() -> None:
    values = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.pad(values, (1, 1, 1, 1), mode="reflect")
    assert torch.equal(_reflected(values, torch.float32), wanted)
    assert torch.equal(_reflected(values, torch.bfloat16), wanted.bfloat16())


# weights


@every_plan
def test_sizes_are_inferred_from_the_weights(plan: Plan) -> None:
    network = loud(plan)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    assert set(state) == {*plan.shapes(), SPREAD}
    assert recognise(state) == plan
    again = from_state(state)
    assert again.dtype == torch.float32
    assert again.plan == plan
    content = picture(16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(again(content), network(content), atol=0.02, rtol=0.02)


def test_published_sizes_are_recognised() -> None:
    assert (
        recognise({name: torch.zeros(()).expand(shape) for name, shape in PHOTO.shapes().items()}, spread=2)
        == PHOTO
    )
    assert PHOTO.shapes() == ART.shapes()
    assert (2 * PHOTO.hidden, PHOTO.inside((512, 512))) == (32, (512, 512))
    assert (2 * ART.hidden, ART.inside((512, 512))) == (128, (256, 256))


def multiplications(plan: Plan) -> float:
    """For each pixel of the picture."""
    total = 0.0
    level = {channels: 4**index for index, channels in enumerate(plan.channels)}
    for _, before, inner, after in plan.sizes():
        total += (
            9 * (before * inner + inner * inner + inner * after) / level.get(after, 4 ** (len(level) - 1))
        )
    return total


def test_slim_plan_costs_a_fraction_of_the_published() -> None:
    assert multiplications(PHOTO) == pytest.approx(305e3, rel=0.01)
    assert multiplications(SLIM) < multiplications(PHOTO) / 5
    count = sum(math.prod(shape) for shape in SLIM.shapes().values())
    assert 2 * count < 2.5e6  # bytes in float16


def test_the_seed_determines_the_weights_and_keeps_the_global_state() -> None:
    before = torch.get_rng_state()
    first, same, other = (Reversible(TINY, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["stack.0.conv.1.weight"], other["stack.0.conv.1.weight"])
    assert first["stack.0.conv.1.bias"].abs().max() == 0


def test_a_network_loaded_in_inference_mode_is_trainable() -> None:
    state = Reversible(TINY).state_dict()
    with torch.inference_mode():
        network = from_state(state)
    network(picture(8, 8)).sum().backward()


def changed(**more: Tensor | None) -> dict[str, Tensor]:
    state = dict(Reversible(TINY).state_dict()) | {
        name.replace("__", "."): value for name, value in more.items()
    }
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"conv1_1.weight": torch.zeros(8, 3, 3, 3)},
            r"1 tensors are not those of a reversible.*photo_image\.pt",
        ),
        (changed(spread=None), "do not say whether they are photorealistic or artistic"),
        (changed(spread=torch.tensor(3)), "does not fit 3 unsqueezes and 3 groups"),
        (changed(stack__1__conv__4__bias=None), r"1 of .* tensors are missing \(stack\.1\.conv\.4\.bias\)"),
        (changed(more=torch.zeros(1)), r"1 of .* unexpected \(more\)"),
        (changed(stack__2__conv__7__weight=torch.zeros(63, 8, 3, 3)), "four times as many"),
        (changed(stack__0__conv__4__weight=torch.zeros(2, 2, 5, 5)), "differ in shape"),
    ],
)
def test_invalid_weights_are_errors(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        from_state(state)
