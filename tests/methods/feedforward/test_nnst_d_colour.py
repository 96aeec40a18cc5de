"""Colour and contrast in the search of NNST-D: the added columns are the formula; flat places stay flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import atelier
from atelier import colour, maths
from atelier.methods.feedforward.nnst_d_colour import (
    CHROMA,
    NOISE,
    cell_tones,
    colour_distances,
    extended,
    tone_columns,
)


def candidates(count: int, groups: int = 1, seed: int = 0) -> tuple[maths.Candidates, torch.Tensor]:
    """Random keys and tones of `groups` styles with `count` candidates each."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.nn.functional.normalize(torch.randn((count * groups, 6), generator=generator), dim=1)
    tones = torch.rand((count * groups, 4), generator=generator) - torch.tensor([0.0, 0.5, 0.5, 4.0])
    grids, members = tuple((1, count) for _ in range(groups)), tuple(range(groups))
    return maths.Candidates(keys, torch.eye(6), grids, members), tones


def test_cell_tones_are_the_mean_luma_and_colour_differences() -> None:
    picture = torch.zeros((1, 3, 8, 8))
    picture[:, 0, :4, :4] = 1.0
    found = cell_tones(picture, 4)
    assert found.shape == (4, 2, 2)
    # Red in BT.601: Y 0.299, Cb -0.1687, Cr 0.5.
    torch.testing.assert_close(found[:3, 0, 0], torch.tensor([0.299, -0.1687, 0.5]))
    assert found[:3, 1, 1].abs().max() == 0
    grey = cell_tones(torch.full((1, 3, 5, 7), 0.25), 4)
    assert grey.shape == (4, 2, 2)
    torch.testing.assert_close(grey[0], torch.full((2, 2), 0.25))
    assert grey[1:3].abs().max() < 1e-6


def test_the_contrast_is_the_deviation_around_a_cell() -> None:
    picture = torch.full((1, 3, 40, 40), 0.5)
    picture[..., 20:] += torch.tensor([0.1, -0.1]).repeat(10)
    found = cell_tones(picture, 4)[3]
    assert found.shape == (10, 10)
    torch.testing.assert_close(found[:, :4], torch.full((10, 4), float(np.log(0.01))))  # nothing but grain
    torch.testing.assert_close(
        found[:, 6:], torch.full((10, 4), float(np.log(0.01 + 0.1**2 / 0.01) / 2 + np.log(0.1)))
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("flatness", [0.0, 0.4])
def test_the_added_columns_equal_the_formula(groups: int, flatness: float) -> None:
    choices, tones = candidates(20, groups)
    wanted = torch.rand((4, 4, 5), generator=torch.Generator().manual_seed(9)) * 0.4
    wanted[3] *= 20
    columns = tone_columns(wanted, choices, tones, 0.25, flatness, [None] * groups)
    score = columns.queries(np.s_[:, :]).flatten(1).T @ columns.keys.T
    for group in range(groups):
        mine = slice(20 * group, 20 * group + 20)
        theirs, contrast = tones[mine, :3], tones[mine, 3]
        moved = colour.match_moments(wanted[None, :3], theirs.T[None, :, None], noise=NOISE)[0].flatten(1).T
        luma = theirs[:, 0].std(correction=0)
        chroma = torch.maximum(theirs[:, 1:].var(0, correction=0).sum().sqrt(), luma / 2)
        difference = (moved[:, None] - theirs[None]).square()
        apart = difference[..., 0] / luma**2 + CHROMA * difference[..., 1:].sum(-1) / chroma**2
        # The contrasts of the photo get the style's mean and deviation, and are compared in its deviations.
        own = (wanted[3].flatten() - wanted[3].mean()) / wanted[3].std(correction=0)
        deviations = own[:, None] - ((contrast - contrast.mean()) / contrast.std(correction=0))[None]
        apart += flatness * deviations.square()
        torch.testing.assert_close(score[:, mine], -0.25 * apart, atol=2e-3, rtol=2e-3)
    assert extended(choices, columns).keys.shape == (20 * groups, 6 + (6 if flatness else 5) * groups)


def test_training_compares_colours_as_the_search_does() -> None:
    photos, styles = torch.rand((2, 3, 16, 20)), 0.5 * torch.rand((2, 3, 12, 24))
    found = colour_distances(photos, styles, 4)
    assert found.shape == (2, 20, 18)
    for index in range(2):
        own = cell_tones(styles[index : index + 1], 4).flatten(1).T
        choices = maths.Candidates(torch.zeros((18, 6)), torch.eye(6), ((3, 6),), (0,))
        columns = tone_columns(cell_tones(photos[index : index + 1], 4), choices, own, 1.0, 0.0, [None])
        score = columns.queries(np.s_[:, :]).flatten(1).T @ columns.keys.T
        torch.testing.assert_close(found[index], -score, atol=2e-3, rtol=1e-3)


def test_hidden_candidates_do_not_shape_the_wanted_tones() -> None:
    choices, tones = candidates(20)
    visible = torch.arange(20) < 12
    masked = maths.Candidates(choices.keys, choices.basis, choices.grids, choices.groups, visible)
    wanted = torch.rand((4, 4, 5))
    other = tones.clone()
    other[12:] = 7.0
    one, two = (tone_columns(wanted, masked, some, 0.25, 0.1, [None]) for some in (tones, other))
    torch.testing.assert_close(one.wanted, two.wanted)


def test_a_flat_part_of_the_photo_takes_a_flat_part_of_the_style() -> None:
    """The brighter half is flat in the photo and striped in the style: by colour, it takes the stripes."""
    style, photo = torch.full((1, 3, 96, 128), 0.4), torch.full((1, 3, 96, 128), 0.6)
    style[..., 64:] = torch.where(torch.arange(64) // 3 % 2 > 0, 0.9, 0.3)
    photo[..., 64:] = torch.where(torch.arange(64) // 3 % 2 > 0, 0.7, 0.2)
    tones = cell_tones(style, 4).flatten(1).T
    choices = maths.Candidates(torch.zeros((len(tones), 6)), torch.eye(6), ((24, 32),), (0,))
    striped = []
    for flatness in (0.0, 2.0):
        columns = tone_columns(cell_tones(photo, 4), choices, tones, 1.0, flatness, [None])
        score = columns.queries(np.s_[:, :16]).flatten(1).T @ columns.keys.T
        striped.append(float((score.argmax(1) % 32 >= 16).float().mean()))
    assert striped[0] > 0.9
    assert striped[1] < 0.1


def flat_photo_deviation(level: int, across: bool, **more: float) -> float:
    """Deviation of the result for a flat photo whose halves differ by one grey level of 255."""
    rows, columns = np.mgrid[:96, :96]
    tones = (rows + 20 * np.sin(columns / 5)).clip(0, 96)[..., None] / 96
    style = tones * [0.9, 0.8, 0.5] + (1 - tones) * [0.05, 0.1, 0.3]
    photo = np.full((64, 96, 3), level / 255, np.float32)
    photo[np.s_[:, 48:] if across else np.s_[32:]] += 1 / 255
    raw = {"device": "cpu", "colours": False, "bands": False, "detail": 0.0, "photo_detail": 0.0}
    made = atelier.stylize(photo, style.astype(np.float32), method="nnst_d", **raw, **more).pixels
    return float(made.std((0, 1)).max())


@settings(max_examples=8, deadline=None)
@given(level=st.integers(20, 230), across=st.booleans())
def test_a_shading_of_one_grey_level_chooses_one_place_and_not_several(level: int, across: bool) -> None:
    assert flat_photo_deviation(level, across) < 0.1


def test_without_colour_the_halves_of_a_flat_photo_choose_distant_tones() -> None:
    """By cosine alone they are matched with opposite places of the style; chance can spare a single level."""
    levels = range(35, 230, 30)
    with_colour = np.mean([flat_photo_deviation(level, across=False) for level in levels])
    without = np.mean([flat_photo_deviation(level, across=False, tone=0.0) for level in levels])
    assert without > 2 * with_colour
