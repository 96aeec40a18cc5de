"""Colour: the six colour transfers."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

import atelier
from atelier.methods.classical.colour import Colour, moved

WAYS = get_args(Colour.Knobs.model_fields["transfer"].annotation)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1)[None].copy())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("space", ["published", "rgb", "lab"])
def test_colours_move_towards_the_style(
    photo: np.ndarray, painting: np.ndarray, way: str, space: str
) -> None:
    painting = 0.4 * painting
    result = atelier.stylize(photo, painting, method="colour", transfer=way, space=space, iterations=4)
    before = np.abs(photo.mean(axis=(0, 1)) - painting.mean(axis=(0, 1))).max()
    after = np.abs(result.pixels.mean(axis=(0, 1)) - painting.mean(axis=(0, 1))).max()
    assert after < 0.6 * before


def test_monge_kantorovich_matches_mean_and_covariance() -> None:
    generator = np.random.default_rng(0)
    photo = generator.random((30, 30, 3)).astype(np.float32)
    # Far from the ends of the range, so that nothing is clipped.
    painting = (0.5 + 0.08 * generator.normal(size=(20, 40, 3)) @ generator.normal(size=(3, 3)) * 0.5).clip(
        0.2, 0.8
    )
    style = painting.astype(np.float32)
    result = moved(tensor(photo), tensor(style), Colour.Knobs(transfer="monge-kantorovich"), seed=0)
    flat = result[0].flatten(1).double().numpy()
    np.testing.assert_allclose(flat.mean(axis=1), style.reshape(-1, 3).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(np.cov(flat), np.cov(style.reshape(-1, 3).T), rtol=2e-3, atol=1e-6)


def test_structure_is_preserved(photo: np.ndarray, painting: np.ndarray) -> None:
    for way in WAYS:
        result = atelier.stylize(photo, painting, method="colour", transfer=way, iterations=4).pixels
        grey, made = photo.mean(axis=2), result.mean(axis=2)
        across = np.abs(np.diff(made, axis=1))
        # The block's left edge is the strongest step of its rows, before and after.
        assert np.abs(np.diff(grey, axis=1))[14:26].mean(axis=0).argmax() in (19, 35)
        assert across[14:26].mean(axis=0).argmax() in (19, 35)


def test_the_seed_changes_the_projections(photo: np.ndarray, painting: np.ndarray) -> None:
    one, other = (
        atelier.stylize(photo, painting, method="colour", transfer="sliced", iterations=1, seed=seed).pixels
        for seed in (1, 2)
    )
    assert np.abs(one - other).max() > 1e-3
