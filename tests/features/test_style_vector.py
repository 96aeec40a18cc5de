"""The vector of style statistics: what is measured comes back, and any vector is a valid style."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from atelier import colour
from atelier.colour.moments import moments_of
from atelier.features.style_vector import (
    Layout,
    correlation,
    correlations_of,
    factor,
    layout_of,
    measure,
)
from atelier.features.vgg import TINY, VGG
from atelier.images import Picture, fit
from atelier.maths import channel_moments

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder() -> VGG:
    return VGG(TINY, padding="replicate", seed=3)


def test_measured_statistics_come_back(encoder: VGG, painting: Floats) -> None:
    layout, picture = layout_of(encoder, (64, 96)), Picture.of(painting)
    vector = measure(encoder, picture, layout)
    assert vector.shape == (sum(layout.lengths.values()),)
    image = picture.resized(fit(picture.shape, 96)).tensor()
    for tap, found in encoder(image, list(layout.channels)).items():
        expected = channel_moments(found, eps=0.0)
        for one, other in zip(layout.moments(vector, tap, 96), expected, strict=True):
            torch.testing.assert_close(one, other.flatten(), rtol=1e-4, atol=1e-5)
    mean, covariance = layout.colours(vector)
    torch.testing.assert_close(mean.double(), moments_of(image)[0].flatten(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariance, moments_of(image)[1][0], rtol=1e-3, atol=1e-5)
    bands = torch.stack(colour.covariances(image))
    torch.testing.assert_close(layout.details(vector, 96), bands, rtol=1e-3, atol=1e-6)


def test_the_sides_are_measured_one_by_one(encoder: VGG, painting: Floats) -> None:
    picture = Picture.of(painting)
    both = layout_of(encoder, (64, 96))
    alone = layout_of(encoder, (64,))
    found = both.moments(measure(encoder, picture, both), "relu2_1", 64)
    other = alone.moments(measure(encoder, picture, alone), "relu2_1", 64)
    assert all(torch.equal(one, two) for one, two in zip(found, other, strict=True))


def test_any_vector_is_a_style() -> None:
    """Averages and extrapolations keep deviations positive and covariances valid."""
    layout = Layout({"relu1_1": 5}, (64,))
    wild = 3 * torch.randn(sum(layout.lengths.values()), generator=torch.Generator().manual_seed(0))
    assert all((one >= 0).all() for one in layout.moments(wild, "relu1_1", 64))
    for matrix in (layout.colours(wild)[1], *layout.details(wild, 64)):
        assert torch.equal(matrix, matrix.mT) or torch.allclose(matrix, matrix.mT)
        assert torch.linalg.eigvalsh(matrix).min() > -1e-9


def test_a_factor_recovers_correlations_of_its_rank() -> None:
    loadings = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loadings = 0.8 * loadings / loadings.norm(dim=1, keepdim=True)
    whole = loadings @ loadings.mT
    whole.fill_diagonal_(1)
    found = correlations_of(factor(whole, 3))
    torch.testing.assert_close(found.double(), whole, rtol=0, atol=0.02)
    torch.testing.assert_close(found.diagonal(), torch.ones(12))


def test_more_factors_are_nearer_and_none_makes_an_invalid_matrix(encoder: VGG, painting: Floats) -> None:
    whole = correlation(encoder(Picture.of(painting).tensor(), ["relu3_1"])["relu3_1"])
    errors = []
    for rank in (1, 4, 8):
        found = correlations_of(factor(whole, rank))
        assert torch.linalg.eigvalsh(found).min() > -1e-5
        errors.append(torch.dist(found, whole).item())
    assert errors[0] > errors[1] > errors[2]


def test_a_constant_channel_correlates_with_nothing() -> None:
    values = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    values[:, 1] = 0.5
    found = correlation(values)
    assert found[1].abs().max() == 0
    torch.testing.assert_close(found.diagonal()[[0, 2]], torch.ones(2))
    assert torch.equal(correlations_of(factor(found, 2)).diagonal(), torch.ones(3))
