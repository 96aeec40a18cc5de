from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atelier.core.errors import UsageError
from atelier.images.picture import Picture
from atelier.images.resize import fit, resize

SIDES = st.integers(1, 40)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_range_is_kept_and_the_size_obeyed(h: int, w: int, height: int, width: int, seed: int) -> None:
    image = torch.rand(2, 3, h, w, generator=torch.Generator().manual_seed(seed))
    scaled = resize(image, (height, width))
    assert scaled.shape == (2, 3, height, width)
    assert scaled.min() >= image.min()
    assert scaled.max() <= image.max()


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 1, width=32))
@settings(max_examples=40, deadline=None)
def test_a_constant_picture_stays_constant(h: int, w: int, height: int, width: int, value: float) -> None:
    assert (resize(torch.full((1, 3, h, w), value), (height, width)) == value).all()


def test_shrinking_is_antialiased() -> None:
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1
    inner = resize(stripes, (16, 16))[..., 3:-3]
    assert (inner - 0.5).abs().max() < 0.02


def test_agrees_with_pillow_bicubic() -> None:
    values = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize((13, 17), Image.Resampling.BICUBIC))
    got = resize(torch.from_numpy(values)[None, None], (17, 13))[0, 0].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_gradients_flow() -> None:
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    resize(image, (5, 5)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(1, 20_000))
def test_fit_keeps_proportions(h: int, w: int, long_side: int) -> None:
    height, width = fit((h, w), long_side)
    assert max(height, width) == long_side
    assert min(height, width) >= 1
    exact = min(h, w) * long_side / max(h, w)
    assert abs(min(height, width) - max(exact, 1)) <= 0.5 + 1e-9


def test_fit_of_a_picture() -> None:
    assert fit(Picture(np.zeros((30, 40, 3))).shape, 20) == (15, 20)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="at least"):
        fit((3, 4), 0)
    with pytest.raises(UsageError, match="at least"):
        resize(torch.zeros(1, 3, 4, 4), (0, 4))
