"""The temporal loss: known, smooth motion drawn only from the caller's generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atelier.losses.temporal import NOISE, SHIFT, TemporalLoss, random_flow, second_frame, warp


def frames(height: int = 12, width: int = 10, *, batch: int = 1) -> Tensor:
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shift", [-3, 2, 30])
def test_warp_by_a_shift(shift: int) -> None:
    # A ramp of 101 columns shows where each pixel came from, to half a pixel and the enlargement by 1/100.
    ramp = torch.arange(101.0).expand(1, 1, 5, 101)
    flow = torch.zeros(1, 2, 5, 101)
    flow[:, 0] = shift
    wanted = (torch.arange(101.0) - shift).clamp(0, 100)
    assert (warp(ramp, flow)[0, 0, 2] - wanted).abs().max() <= 1
    turned = warp(ramp.mT, flow.flip(1).mT)
    assert torch.equal(turned.mT, warp(ramp, flow))


def test_warp_takes_the_nearest_pixel() -> None:
    moved = warp(frames(), random_flow((12, 10), seeded()))
    assert torch.isin(moved, frames()).all()


def test_warp_of_a_single_pixel() -> None:
    frame = frames(1, 1)
    assert torch.equal(warp(frame, torch.zeros(1, 2, 1, 1)), frame)


def test_matching_motion_has_zero_loss() -> None:
    first, flow = frames(batch=2), random_flow((12, 10), seeded())
    assert TemporalLoss(flow)(first, warp(first, flow)).item() == 0
    assert TemporalLoss(flow)(first, warp(first, flow) + 0.25).item() == pytest.approx(0.25)


def test_gradient_reaches_both_frames() -> None:
    first, second = (frames().requires_grad_() for _ in range(2))
    TemporalLoss(torch.full((1, 2, 12, 10), 2.0))(first, second).backward()
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (256, 256)])
def test_motion_is_smooth_and_bounded(size: tuple[int, int]) -> None:
    flow = random_flow(size, seeded(3))
    assert flow.shape == (1, 2, *size)
    assert flow.dtype == torch.float32
    assert flow.abs().max() < SHIFT + 40
    for axis in (2, 3):
        if flow.shape[axis] > 1:
            assert flow.diff(dim=axis).abs().max() < 1


def test_random_flow_varies_and_is_reproducible() -> None:
    one, same, other = (random_flow((120, 120), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert (one - other).abs().max() > 1
    shifts = torch.stack([random_flow((1, 1), seeded(seed)).flatten() for seed in range(60)])
    # The shift of -10 to 10 and the deviation of 8 make 10 together.
    assert 7 < shifts.std().item() < 13


def test_the_second_frame_has_the_motion_and_a_little_noise() -> None:
    first, flow = frames(60, 60), random_flow((60, 60), seeded())
    state = torch.get_rng_state()
    second = second_frame(first, flow, seeded(5))
    assert torch.equal(second, second_frame(first, flow, seeded(5)))
    assert torch.equal(torch.get_rng_state(), state)
    assert NOISE <= (second - warp(first, flow)).std().item() * 1.05 <= 2.1 * NOISE
