"""Views for CLIP: crops are where they say, perspective and rotation have closed forms, seeds repeat."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atelier.features import views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def picture() -> Tensor:
    """Each pixel says where it is: red its column, green its row, in parts of the sides."""
    y, x = torch.meshgrid(torch.arange(24.0) / 24, torch.arange(32.0) / 32, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])[None]


def test_crops_are_where_they_say(picture: Tensor) -> None:
    tops, lefts = views.random_places(200, (24, 32), 8, generator())
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 16, 0, 24)
    found = views.crops(picture, tops, lefts, 8)
    assert found.shape == (200, 3, 8, 8)
    assert (found[:, 0, 0, 0] * 32).tolist() == lefts
    assert (found[:, 1, 0, 0] * 24).tolist() == tops


def test_boxes_have_the_areas_and_ratios_asked_for(picture: Tensor) -> None:
    boxes = views.random_boxes(500, (240, 320), (0.01, 0.3), generator())
    shares = [tall * wide / (240 * 320) for _, _, tall, wide in boxes]
    assert 0.009 < min(shares) < 0.02
    assert 0.28 < max(shares) < 0.305
    ratios = [math.log(wide / tall) for _, _, tall, wide in boxes]
    assert max(map(abs, ratios)) < math.log(4 / 3) + 0.1
    assert abs(sum(ratios) / 500) < 0.03
    assert all(top + tall <= 240 and left + wide <= 320 for top, left, tall, wide in boxes)
    # Corners stay corners where a crop is resized.
    (small,) = views.resized_crops(picture, [(3, 5, 10, 12)], 7)
    assert small[:, 0, 0].tolist() == pytest.approx([5 / 32, 3 / 24, 0])
    assert small[:, 6, 6].tolist() == pytest.approx([16 / 32, 12 / 24, 0])


def test_a_box_as_large_as_the_picture_stays_inside() -> None:
    boxes = views.random_boxes(50, (8, 8), (0.9, 1.0), generator())
    assert all(0 < tall <= 8 and 0 < wide <= 8 for _, _, tall, wide in boxes)


def test_corners_move_inwards_up_to_the_distortion() -> None:
    ends = views.random_corners(2000, (21, 40), generator(), distortion=0.5)
    moved = (ends - views.corners((21, 40))).abs()
    assert moved.amin((0, 1)).tolist() == [0, 0]
    assert moved.amax((0, 1)).tolist() == [10, 5]
    assert moved.float().mean((0, 1)).tolist() == pytest.approx([5, 2.5], abs=0.15)
    assert (ends[:, 0] >= 0).all()
    assert (ends[:, 2] <= torch.tensor([39, 20])).all()
    again = views.random_corners(2000, (21, 40), generator(), distortion=0.5)
    assert torch.equal(ends, again)


def test_perspective_moves_the_corners_to_their_ends() -> None:
    ends = views.random_corners(5, (24, 32), generator(), distortion=0.7)
    numbers = views.perspective_coefficients(ends, (24, 32))
    for corner, wanted in enumerate(views.corners((24, 32)).double()):
        x, y = ends[:, corner].double().unbind(1)
        depth = numbers[:, 6] * x + numbers[:, 7] * y + 1
        found_x = (numbers[:, 0] * x + numbers[:, 1] * y + numbers[:, 2]) / depth
        found_y = (numbers[:, 3] * x + numbers[:, 4] * y + numbers[:, 5]) / depth
        torch.testing.assert_close(torch.stack([found_x, found_y], 1), wanted.expand(5, 2))


def test_corners_that_stay_change_nothing(picture: Tensor) -> None:
    same = views.perspective(picture, views.corners((24, 32))[None].expand(2, 4, 2))
    torch.testing.assert_close(same, picture.expand(2, -1, -1, -1), atol=1e-5, rtol=0)


def test_rotation_turns_pixels_and_not_sides(picture: Tensor) -> None:
    """A quarter turn of a square is exact; of a long picture, pixels keep their size."""
    square = torch.rand((1, 3, 9, 9), generator=generator())
    turned = views.rotated(square, torch.tensor([90.0]), torch.zeros(1, 2))
    torch.testing.assert_close(turned, square.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    long = views.rotated(picture, torch.tensor([90.0]), torch.zeros(1, 2))
    middle = picture[..., :, 4:28].rot90(1, (2, 3))
    torch.testing.assert_close(long[..., :, 4:28], middle, atol=1e-5, rtol=0)


def test_a_shift_moves_the_turned_picture(picture: Tensor) -> None:
    moved = views.rotated(picture, torch.zeros(1), torch.tensor([[0.25, -0.125]]))
    torch.testing.assert_close(moved[..., :-3, 8:], picture[..., 3:, :-8], atol=1e-5, rtol=0)
    turned = views.rotated(picture, torch.tensor([180.0]), torch.tensor([[0.25, 0.0]]))
    torch.testing.assert_close(turned[..., 8:], picture.flip(2, 3)[..., :-8], atol=1e-5, rtol=0)


@pytest.mark.parametrize("resize", [views.fitted, views.resized, views.pooled])
def test_a_square_input_of_any_picture(picture: Tensor, resize: object) -> None:
    found = resize(picture, 48)  # type: ignore[operator]
    assert found.shape == (1, 3, 48, 48)
    # The columns stay a ramp from left to right.
    assert found[0, 0, 24].diff().min() > -1e-6


def test_views_have_gradients() -> None:
    small = torch.rand((1, 1, 6, 7), dtype=torch.float64, generator=generator()).requires_grad_()
    ends = views.random_corners(2, (6, 7), generator(), distortion=0.4)
    angles, shifts = torch.tensor([10.0, -7.0]), torch.tensor([[0.1, 0.0], [0.0, 0.05]])

    def seen(picture: Tensor) -> Tensor:
        return views.fitted(views.rotated(views.perspective(picture, ends), angles, shifts), 5)

    assert torch.autograd.gradcheck(seen, (small,))
