from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from atelier.core.errors import InputError
from atelier.images import Picture

EIGHT = np.array([[[0, 51, 102], [153, 204, 255]]], np.uint8)


@pytest.mark.parametrize(
    "source",
    [
        EIGHT,
        EIGHT.astype(np.uint16) * 257,
        EIGHT.astype(np.uint32) * (2**24 + 2**16 + 2**8 + 1),
        EIGHT.astype(np.float64) / 255,
        Image.fromarray(EIGHT),
        torch.from_numpy(EIGHT).permute(2, 0, 1),
        torch.from_numpy(EIGHT).permute(2, 0, 1)[None].float() / 255,
    ],
    ids=lambda source: f"{type(source).__name__}-{getattr(source, 'dtype', '')}",
)
def test_of_gives_the_same_picture_whatever_the_source(source: object) -> None:
    picture = Picture.of(source)
    assert picture.size == (2, 1)
    assert picture.pixels.dtype == np.float32
    np.testing.assert_allclose(picture.pixels[0], [[0, 0.2, 0.4], [0.6, 0.8, 1]], atol=1e-7)


def test_of_takes_grey_alpha_and_bool() -> None:
    grey = Picture.of(np.array([[[10, 255], [20, 0]]], np.uint8))
    np.testing.assert_allclose(grey.pixels[0, 1], [20 / 255] * 3, atol=1e-7)
    assert grey.alpha is not None
    assert grey.alpha.tolist() == [[1, 0]]
    assert Picture.of(np.eye(2, dtype=bool)).pixels[..., 0].tolist() == [[1, 0], [0, 1]]
    picture = Picture.of(EIGHT)
    assert Picture.of(picture) is picture


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (3, "cannot be made from int"),
        (np.zeros((2, 2, 5)), "1 to 4 channels"),
        (np.zeros((0, 2, 3)), "at least one"),
        (np.full((2, 2), np.nan), "not finite"),
        (np.full((2, 2), np.inf), "not finite"),
        (np.full((2, 2), 200.0), "scale them"),
        (np.full((2, 2), -1, np.int16), "uint8, uint16 or floats"),
        (torch.zeros(2, 3, 4, 4), "(1, C, H, W)"),
    ],
)
def test_of_refuses_in_one_sentence(source: object, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Picture.of(source)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_obeys_the_limit_of_pixels() -> None:
    with pytest.raises(InputError, match="limit"):
        Picture.of(EIGHT, max_pixels=1)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))))
@settings(max_examples=40, deadline=None)
def test_pil_and_tensor_round_trip(values: np.ndarray) -> None:
    picture = Picture.of(values)
    assert np.array_equal(np.asarray(picture.pil()), values)
    back = Picture.from_tensor(picture.tensor(), alpha=picture.alpha)
    assert np.array_equal(back.pixels, picture.pixels)
    assert back.sha256 == picture.sha256


def test_tensor_is_float32_batch_of_one_and_shares_nothing() -> None:
    picture = Picture.of(EIGHT)
    tensor = picture.tensor()
    assert tensor.shape == (1, 3, 1, 2)
    assert tensor.dtype == torch.float32
    tensor.zero_()
    assert picture.pixels.max() == 1


def test_from_tensor_clamps_and_refuses_what_is_not_finite() -> None:
    assert Picture.from_tensor(torch.tensor([-5.0, 0.5, 9.0]).view(3, 1, 1)).pixels.ravel().tolist() == [
        0,
        0.5,
        1,
    ]
    with pytest.raises(InputError, match="not finite"):
        Picture.from_tensor(torch.full((3, 2, 2), float("nan")))


def test_rounding_is_half_to_even() -> None:
    halves = np.array([[[0.5, 1.5, 2.5]]]) / 255
    assert np.asarray(Picture(halves).pil()).ravel().tolist() == [0, 2, 2]


def test_sha256_tells_pixels_alpha_and_shape_apart() -> None:
    zeros = [
        Picture(np.zeros((2, 3, 3))),
        Picture(np.zeros((3, 2, 3))),
        Picture(np.zeros((2, 3, 3)), np.zeros((2, 3))),
    ]
    assert len({picture.sha256 for picture in zeros}) == 3
    assert Picture(np.zeros((2, 3, 3))).sha256 == zeros[0].sha256
    assert len(zeros[0].sha256) == hashlib.sha256().digest_size * 2


def test_constructor_refuses_other_shapes() -> None:
    for pixels, alpha in (
        (np.zeros((2, 2)), None),
        (np.zeros((0, 2, 3)), None),
        (np.zeros((2, 2, 3)), np.zeros((1, 2))),
    ):
        with pytest.raises(InputError):
            Picture(pixels, alpha)


def test_resized_keeps_proportions_name_and_recipe() -> None:
    picture = Picture(np.random.default_rng(0).random((30, 40, 3)), name="a.png", recipe={"seed": 1})
    small = picture.resized(20)
    assert small.size == (20, 15)
    assert (small.name, small.recipe) == ("a.png", {"seed": 1})
    assert picture.resized(40) is picture
    assert picture.resized((7, 5)).size == (5, 7)


def test_resized_does_not_let_hidden_colour_bleed() -> None:
    pixels = np.zeros((16, 16, 3))
    pixels[:, :7] = 1  # white where it shows, black where it is hidden; 7 is off the grid of 8
    alpha = np.zeros((16, 16))
    alpha[:, :7] = 1
    small = Picture(pixels, alpha).resized(8)
    assert small.alpha is not None
    assert small.pixels[small.alpha > 0.01].min() > 0.99


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np; from atelier.images import Picture, read, write; "
        "Picture.of(np.zeros((2, 2), np.uint8)).pil(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
