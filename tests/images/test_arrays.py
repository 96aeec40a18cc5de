from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atelier.core.errors import InputError
from atelier.images import Picture
from atelier.images.arrays import from_array, upright

DTYPES = [
    *("bool", "uint8", "<u2", ">u2", "<u4", ">u4", "uint64", "int16", "int32", "int64"),
    *("float16", "<f4", ">f4", "float64", "longdouble"),
]
SHAPES = st.one_of(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4)),
)


def refused(source: Any) -> str:
    with pytest.raises(InputError) as caught:
        Picture.of(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(hnp.arrays(np.uint8, SHAPES), st.sampled_from(DTYPES))
@settings(max_examples=200, deadline=None)
def test_an_8_bit_picture_is_the_same_in_every_type(values: np.ndarray, dtype: str) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        values = values // 128 * np.uint8(255)
        given_values = values > 0
    elif kind.kind == "f":
        given_values = (values / np.float64(255)).astype(kind)
    elif kind in (np.dtype("<u2"), np.dtype(">u2")):
        given_values = (values.astype(np.uint16) * 257).astype(kind)
    else:
        given_values = values.astype(kind)
        if kind != np.uint8 and values.max() == 1:  # a mask of 0 and 1, which is refused
            return
    made = from_array(given_values, "the array")
    channels = values[..., None] if values.ndim == 2 else values
    colour = channels[..., :3] if channels.shape[2] > 2 else channels[..., :1].repeat(3, axis=2)
    np.testing.assert_allclose(made.pixels * 255, colour, atol=0.1 if dtype == "float16" else 1e-4)
    assert (made.alpha is not None) == (channels.shape[2] in (2, 4))
    if made.alpha is not None:
        np.testing.assert_allclose(
            made.alpha * 255, channels[..., -1], atol=0.1 if dtype == "float16" else 1e-4
        )
    assert made.pixels.dtype == np.float32
    assert made.pixels.flags.c_contiguous


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([3, 4]))))
@settings(max_examples=50, deadline=None)
def test_views_and_foreign_strides_read_right(values: np.ndarray) -> None:
    for view in (values[::-1, ::-1], np.asfortranarray(values), values.transpose(1, 0, 2)):
        assert np.array_equal(np.asarray(Picture.of(view).pil()), view)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_wide_integers_count_by_their_own_maximum_where_they_use_it(dtype: type) -> None:
    top = int(np.iinfo(dtype).max)
    values = np.array([[0, top // 4, top // 2, top]], dtype)
    np.testing.assert_allclose(from_array(values, "a").pixels[0, :, 0], [0, 0.25, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1000]], np.uint32),
        np.array([[0, 65535]], np.uint64),
        np.array([[0, 256]], np.int64),
        np.array([[-1, 255]], np.int16),
        np.array([[0, 127]], np.int8),
        np.array([[0, 1]], np.int64),
        np.array([[0, 1]], np.uint32),
    ],
    ids=str,
)
def test_ambiguous_integers_are_refused(values: np.ndarray) -> None:
    assert refused(values).endswith("convert it to bool, uint8, uint16 or floats 0..1")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (np.ma.masked_array(np.zeros((2, 2), np.uint8), mask=np.eye(2)), "the array is a masked array: fill"),
        (np.array([[1, None]], object), "the array holds object: a picture holds uint8"),
        (np.ones((2, 2), complex), "the array holds complex128"),
        (np.array([["a"]]), "the array holds <U1"),
        (np.zeros((2, 2), "datetime64[s]"), "the array holds datetime64"),
        (np.zeros((2, 2), [("r", "u1"), ("g", "u1")]), "the array holds ["),
        (np.zeros(()), "has the shape ()"),
        (np.zeros(5), "has the shape (5,)"),
        (torch.zeros(3, 4, 4).to_sparse(), "the tensor is sparse: convert it first, with .to_dense()"),
        (torch.zeros(3, 4, 4, device="meta"), "the tensor is on the meta device"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "the tensor holds complex64"),
        (torch.zeros(4, 4), "a picture tensor is (C, H, W) or (1, C, H, W), not (4, 4)"),
        (torch.zeros(3, 0, 4), "a picture has at least one"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__,
)
def test_what_holds_no_plain_values_gets_one_sentence(source: Any, sentence: str) -> None:
    assert sentence in refused(source)


@pytest.mark.filterwarnings("ignore")
def test_compressed_quantised_and_nested_tensors_get_one_sentence() -> None:
    quantised = torch.quantize_per_tensor(torch.zeros(3, 4, 4), 0.1, 0, torch.quint8)
    assert "sparse" in refused(torch.eye(4).to_sparse_csr())
    assert ".dequantize()" in refused(quantised)
    assert "nested" in refused(torch.nested.nested_tensor([torch.zeros(3, 4, 4)]))


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    ],
    ids=str,
)
def test_tensors_of_every_type(dtype: torch.dtype) -> None:
    eight = torch.tensor([0, 64, 255], dtype=torch.float64).view(3, 1, 1)
    scale = 1 / 255 if dtype.is_floating_point else 257 if dtype == torch.uint16 else 1
    made = Picture.of((eight * scale).to(dtype)).pixels[0, 0]
    np.testing.assert_allclose(made * 255, [0, 64, 255], atol=0.3 if dtype == torch.bfloat16 else 0.05)


def test_tensors_with_gradient_or_lazy_sign() -> None:
    tensor = torch.full((3, 2, 2), 0.5, requires_grad=True)
    assert Picture.of(tensor).pixels.max() == 0.5
    negative = torch._neg_view(torch.full((3, 2, 2), -0.5))
    assert Picture.of(negative).pixels.min() == 0.5


def test_orientations_undo_what_tag_274_describes() -> None:
    # TIFF 6.0: where row 0 and column 0 of the stored picture lie in the upright one.
    upright_picture = np.arange(6).reshape(2, 3)
    stored = {
        1: [[0, 1, 2], [3, 4, 5]],
        2: [[2, 1, 0], [5, 4, 3]],
        3: [[5, 4, 3], [2, 1, 0]],
        4: [[3, 4, 5], [0, 1, 2]],
        5: [[0, 3], [1, 4], [2, 5]],
        6: [[2, 5], [1, 4], [0, 3]],
        7: [[5, 2], [4, 1], [3, 0]],
        8: [[3, 0], [4, 1], [5, 2]],
        9: [[0, 1, 2], [3, 4, 5]],
    }
    for turn, values in stored.items():
        assert np.array_equal(upright(np.array(values), turn), upright_picture)
