"""PatchMatch against brute force, its invariants, and small fields worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from atelier.images import Picture
from atelier.patches.patchmatch import PatchMatch, enlarge, sweep_all, vote

Floats = npt.NDArray[np.float32]
PUBLISHED_ITERATIONS = 10


def features(seed: int, height: int, width: int, channels: int = 16, blur: float = 2.0) -> Floats:
    """Smooth unit-length features, like those of a network."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    smooth = gaussian_filter(noise, (blur, blur, 0)) + 0.05 * noise
    return (smooth / np.linalg.norm(smooth, axis=2, keepdims=True)).astype(np.float32)


def patches(values: Floats, size: int) -> npt.NDArray[np.float64]:
    """All patches as vectors; the border is repeated."""
    before = size // 2
    border = (before, size - 1 - before)
    wide = np.pad(values.astype(np.float64), (border, border, (0, 0)), mode="edge")
    height, width = values.shape[:2]
    shifts = [(row, column) for row in range(size) for column in range(size)]
    parts = [wide[row : row + height, column : column + width] for row, column in shifts]
    return np.concatenate(parts, axis=2).reshape(height * width, -1)


def brute_force(query: Floats, key: Floats, size: int) -> npt.NDArray[np.float64]:
    """The least distance of each query patch, by exhaustive search."""
    a, b = patches(query, size), patches(key, size)
    return np.array([np.min(np.sum((b - one) ** 2, axis=1)) for one in a]).reshape(query.shape[:2])


def matched(query: Floats, key: Floats, sweeps: int = PUBLISHED_ITERATIONS, **options: Any) -> PatchMatch:
    match = PatchMatch(query, key, **options)
    for _ in range(sweeps):
        match.sweep()
    return match


@pytest.mark.parametrize("patch", [3, 5])
def test_within_five_percent_of_brute_force(patch: int) -> None:
    query, key = features(0, 40, 44), features(1, 42, 38)
    found = matched(query, key, patch=patch, seed=3).distance
    exact = brute_force(query, key, patch)
    assert (found >= exact * (1 - 1e-4)).all()
    assert found.mean() <= 1.05 * exact.mean()


def test_within_five_percent_on_a_networks_features() -> None:
    from atelier import examples
    from atelier.features import load

    maps = []
    for name in ("astronaut", "chelsea"):
        photo = Picture.of(examples.photo(name)).resized((96, 112)).tensor()
        found = functional.normalize(load()(photo, ["relu3_1"])["relu3_1"], dim=1)
        maps.append(found[0].permute(1, 2, 0).contiguous().numpy())
    match = matched(maps[0], maps[1], patch=3, seed=3)
    assert match.distance.mean() <= 1.05 * brute_force(maps[0], maps[1], 3).mean()


def test_distances_belong_to_the_matches_of_the_field() -> None:
    query, key = features(0, 12, 9), features(1, 8, 14)
    match = matched(query, key, sweeps=2, patch=3)
    a, b = patches(query, 3), patches(key, 3)
    at = match.field[..., 0] * 14 + match.field[..., 1]
    expected = np.sum((a - b[at.ravel()]) ** 2, axis=1).reshape(12, 9)
    assert np.allclose(match.distance, expected, rtol=1e-4)


def test_a_picture_matches_itself() -> None:
    query = features(0, 30, 34)
    match = matched(query, query, seed=1)
    rows, columns = np.mgrid[0:30, 0:34]
    right = (match.field == np.stack([rows, columns], 2)).all(2)
    assert right.mean() > 0.99


def test_a_shift_is_found_from_a_start_nearby() -> None:
    wide = features(0, 30, 40)
    rows, columns = np.mgrid[0:20, 0:20].astype(np.int32)
    start = np.stack([rows + 4, columns + 9], 2)
    match = matched(wide[6:26, 11:31], wide, sweeps=4, radius=4, start=start)
    inside = match.field[2:-2, 2:-2] - np.stack([rows, columns], 2)[2:-2, 2:-2]
    assert (inside == (6, 11)).all(2).mean() > 0.99


def test_distances_never_increase() -> None:
    match = PatchMatch(features(0, 16, 16), features(1, 16, 16))
    for _ in range(6):
        before = match.distance.copy()
        match.sweep()
        assert (match.distance <= before).all()


def test_the_same_seed_gives_the_same_field() -> None:
    query, key = features(0, 20, 20), features(1, 20, 20)
    one, again, other = (matched(query, key, sweeps=2, seed=seed).field for seed in (5, 5, 6))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_number_of_threads_does_not_change_the_field() -> None:
    query, key = features(0, 20, 20), features(1, 24, 20)

    def both(threads: int) -> list[Any]:
        matches = [PatchMatch(query, key, seed=1), PatchMatch(key, query, seed=2)]
        for _ in range(2):
            sweep_all(matches, threads)
        return [match.field for match in matches]

    for one, two in zip(both(1), both(2), strict=True):
        assert np.array_equal(one, two)


@settings(max_examples=15, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 7)] * 4),
    patch=st.integers(1, 5),
    radius=st.one_of(st.none(), st.integers(1, 9)),
)
def test_matches_stay_inside_the_key(
    sides: tuple[int, int, int, int], patch: int, radius: int | None
) -> None:
    query, key = features(0, *sides[:2], blur=0.5), features(1, *sides[2:], blur=0.5)
    match = matched(query, key, sweeps=2, patch=patch, radius=radius)
    assert match.field.shape == (*sides[:2], 2)
    assert (match.field >= 0).all()
    assert (match.field < sides[2:]).all()
    assert np.isfinite(match.distance).all()


def test_a_start_outside_the_key_is_clamped() -> None:
    start = np.full((4, 4, 2), 99, np.int32)
    match = PatchMatch(features(0, 4, 4), features(1, 5, 6), start=start)
    assert (match.field == (4, 5)).all()


def test_different_numbers_of_channels_raise() -> None:
    with pytest.raises(ValueError, match="16 and 8 channels"):
        PatchMatch(features(0, 4, 4), features(1, 4, 4, channels=8))


def test_enlarge_agrees_with_values_worked_out_by_hand() -> None:
    field = np.array([[[1, 2], [0, 0]]], np.int32)
    fine = enlarge(field, (2, 5), (4, 6))
    assert fine[:, :2].tolist() == [[[2, 4], [2, 5]], [[3, 4], [3, 5]]]
    # The odd last column continues the last match.
    assert fine[0, 4].tolist() == [0, 0]
    assert enlarge(field, (1, 2), (3, 3), factor=1).tolist() == field.tolist()
    assert (enlarge(field, (4, 8), (3, 3), factor=4) < 3).all()


def test_vote_agrees_with_values_worked_out_by_hand() -> None:
    key = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    same = np.stack([np.zeros((1, 5)), np.arange(5)[None]], 2).astype(np.int32)
    assert np.allclose(vote(key, same, 3), key)
    # All matches are at the middle: a position gets the middle, and its neighbours from adjacent patches.
    middle = np.full((1, 5, 2), (0, 2), np.int32)
    assert vote(key, middle, 1).ravel().tolist() == [2] * 5
    assert vote(key, middle, 3).ravel().tolist() == pytest.approx([1.5, 2, 2, 2, 2.5])


def test_patches_that_leave_the_key_have_no_vote() -> None:
    key = np.arange(3, dtype=np.float32).reshape(1, 3, 1)
    corner = np.zeros((1, 3, 2), np.int32)
    assert vote(key, corner, 3).ravel().tolist() == pytest.approx([0, 0.5, 0.5])


def test_numba_is_loaded_at_the_first_search() -> None:
    code = "import sys, atelier.patches.patchmatch; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_it_needs_a_hundredth_of_the_comparisons_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels as plain Python, with every comparison counted."""
    from atelier.patches import patchmatch_kernels as kernels

    count = 0

    def counted(*given: Any) -> Any:
        nonlocal count
        count += 1
        return kernels.distance.py_func(*given)

    query, key = features(0, 24, 24, 4), features(1, 64, 64, 4)
    plain = {
        name: FunctionType(getattr(kernels, name).py_func.__code__, vars(kernels) | {"distance": counted})
        for name in ("measure", "sweep")
    }
    compiled = matched(query, key, sweeps=4, seed=3)
    monkeypatch.setattr(kernels, "measure", plain["measure"])
    monkeypatch.setattr(kernels, "sweep", plain["sweep"])
    with np.errstate(over="ignore"):  # the random numbers overflow intentionally
        found = matched(query, key, sweeps=4, seed=3)
    # One per position at the start; per sweep two neighbours and radii of 64, 32, ..., 1.
    most = 24 * 24 * (1 + 4 * (2 + 7))
    assert 0.8 * most < count <= most
    assert count < 0.01 * (24 * 24) * (64 * 64)
    assert found.distance.mean() == pytest.approx(compiled.distance.mean(), rel=0.01)
