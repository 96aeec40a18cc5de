"""Image analogies against a slow version of the paper's algorithm, and properties at any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from atelier.patches import analogy
from atelier.patches.analogy import Level, Rules, coherent, pyramid, synthesise
from atelier.patches.patchmatch import enlarge

Floats = npt.NDArray[np.float32]
PATCHMATCH, TREE = {"exact": 0.0}, {"exact": np.inf}


def texture(seed: int, height: int, width: int, channels: int = 1, blur: float = 1.0) -> Floats:
    noise = np.random.default_rng(seed).random((height, width, channels))
    smooth = gaussian_filter(noise, (blur, blur, 0))
    return ((smooth - smooth.mean()) / max(smooth.std(), 1e-9) * 0.2 + 0.5).astype(np.float32)


def made(
    source: Floats, filtered: Floats, target: Floats, levels: int = 3, seed: int = 0, **rules: Any
) -> Level:
    *_, last = synthesise(source, filtered, target, Rules(**rules), levels=levels, seed=seed)
    assert last[0] == last[1]
    return last[2]


# Against a slow reference.


def around(values: Floats, row: int, column: int, size: int, *, clamp: bool) -> dict[tuple[int, int], Any]:
    """The values at each offset of a window; without `clamp`, only those inside the map."""
    reach, (height, width) = size // 2, values.shape[:2]
    found = {}
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            y, x = row + down, column + right
            if clamp or (0 <= y < height and 0 <= x < width):
                found[down, right] = values[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
    return found


def distance(mine: list[Any], others: list[Any], plain: int, structure: float) -> float:
    """The weighted distance of two lists of windows (fine, then coarse), over the offsets both have."""
    total = 0.0
    for (one, size, causal), (other, _, _) in zip(mine, others, strict=True):
        reach = size // 2
        grid = range(-reach, reach + 1)
        bell = {(y, x): np.exp(-(y * y + x * x) / 2 / (size / 4) ** 2) for y in grid for x in grid}
        known = {at: one for at, one in bell.items() if not causal or at < (0, 0)}
        for at in one:
            squares = (one[at].astype(np.float64) - other[at]) ** 2
            total += structure * bell[at] / sum(bell.values()) * squares[:plain].sum()
            total += known.get(at, 0) / sum(known.values()) * squares[plain:].sum()
    return float(total)


def slowly(source: Floats, filtered: Floats, target: Floats, rules: Rules) -> npt.NDArray[np.int32]:
    """The field of two levels, pixel by pixel, each compared with every pixel of the example."""
    below: Level | None = None
    for step in (1, 0):
        plain, changed, picture = (pyramid(one, 2)[step] for one in (source, filtered, target))
        # The initial guess, which is not under test, fills the area above and left of the first pixels.
        level = analogy._begun(plain, changed, picture, below, rules, seed=0)
        field, count = level.field, level.plain
        example, canvas = level.example, level.picture

        def windows(values: Floats, coarse: Floats | None, row: int, column: int, clamp: bool) -> list[Any]:
            both = [(around(values, row, column, rules.window, clamp=clamp), rules.window, True)]
            if coarse is not None:
                both.append((around(coarse, row // 2, column // 2, 3, clamp=clamp), 3, False))
            return both

        coarse_example, coarse_canvas = (below.example, below.picture) if below else (None, None)
        places = [tuple(at) for at in np.ndindex(example.shape[:2])]
        stored = {at: windows(example, coarse_example, *at, True) for at in places}
        for row, column in np.ndindex(field.shape[:2]):
            full = windows(canvas, coarse_canvas, row, column, True)
            nearest = min(places, key=lambda at: distance(full, stored[at], count, rules.structure))
            inside = windows(canvas, coarse_canvas, row, column, False)
            best, reach = None, rules.window // 2
            for offset in [(-y, x) for y in range(reach + 1) for x in range(-reach, reach + 1)]:
                up, left = row + offset[0], column + offset[1]
                if offset >= (0, 0) or up < 0 or not 0 <= left < field.shape[1]:
                    continue
                at = (field[up, left, 0] - offset[0], field[up, left, 1] - offset[1])
                if at in stored:
                    apart = distance(inside, stored[at], count, rules.structure)
                    best = min(best or (apart, at), (apart, at))
            slack = 1 + rules.coherence * 2.0**-step
            limit = slack * distance(inside, stored[nearest], count, rules.structure)
            chosen = best[1] if best and best[0] <= limit else nearest
            field[row, column] = chosen
            canvas[row, column, count:] = example[chosen][count:]
        below = level
    assert below is not None
    return below.field


@pytest.mark.parametrize("coherence", [0.0, 1.0])
def test_the_exact_search_agrees_with_a_slow_reference(
    coherence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analogy, "_NEARLY", 0.0)
    monkeypatch.setattr(analogy, "_COMPONENTS", 1000)
    monkeypatch.setattr(analogy, "_VARIANCE", 1.0)
    source, filtered, target = (
        texture(seed, *size) for seed, size in ((0, (7, 6)), (1, (7, 6)), (2, (6, 7)))
    )
    rules = Rules(coherence=coherence, window=3, structure=2.0, **TREE)
    *_, (_, _, level) = synthesise(source, filtered, target, rules, levels=2)
    slow = slowly(source, filtered, target, rules)
    assert np.array_equal(level.field, slow)
    assert np.array_equal(level.made, filtered[slow[..., 0], slow[..., 1]])


# Expected behaviour.


@pytest.mark.parametrize("search", [PATCHMATCH, TREE])
def test_a_crop_of_a_becomes_the_same_crop_of_the_filtered(search: dict[str, Any]) -> None:
    source = texture(0, 120, 50, channels=2)
    filtered = 1 - source[:, ::-1]
    level = made(source, filtered, source[8:109, 12:44], structure=5.0, **search)
    rows, columns = np.mgrid[8:109, 12:44]
    right = (level.field == np.stack([rows, columns], 2)).all(2)
    assert right.mean() > 0.97
    assert np.array_equal(level.made[right], filtered[8:109, 12:44][right])


@pytest.mark.parametrize("search", [PATCHMATCH, TREE])
def test_each_label_gets_its_own_texture(search: dict[str, Any]) -> None:
    y, x = np.mgrid[:48, :64]
    labels = np.where((x < 32)[..., None], (1, 0, 0), (0, 0, 1)).astype(np.float32)
    # Vertical stripes for red, horizontal stripes for blue.
    stripes = np.where(x < 32, x % 4 < 2, y % 4 < 2)[..., None] * np.ones(3)
    stripes = stripes * np.where((x < 32)[..., None], (1, 1, 0), (0, 1, 1))
    yy, xx = np.mgrid[:40, :40]
    disc = (yy - 20) ** 2 + (xx - 20) ** 2 < 144
    target = np.where(disc[..., None], (0, 0, 1), (1, 0, 0)).astype(np.float32)
    level = made(labels, stripes.astype(np.float32), target, coherence=1.0, structure=3.0, **search)
    assert ((level.field[..., 1] >= 32) == disc).mean() > 0.97
    left = level.made[:, :6, 0]
    assert np.abs(np.diff(left, axis=0)).mean() < 0.2 < np.abs(np.diff(left, axis=1)).mean()


@pytest.mark.parametrize("search", [PATCHMATCH, TREE])
def test_larger_kappa_is_more_coherent(search: dict[str, Any]) -> None:
    source, filtered, target = (texture(seed, 40, 40) for seed in (0, 0, 1))
    shares = [
        coherent(made(source, filtered, target, coherence=kappa, **search).field) for kappa in (0, 1, 5)
    ]
    assert shares[0] + 0.05 < shares[1] < shares[2] - 0.05


def test_structure_follows_the_photo() -> None:
    source, filtered, target = (texture(seed, 40, 40) for seed in (0, 3, 1))
    errors = []
    for structure in (0.2, 20.0):
        field = made(source, filtered, target, structure=structure).field
        errors.append(np.abs(source[field[..., 0], field[..., 1]] - target).mean())
    assert errors[1] < 0.8 * errors[0]


def test_orientation_separates_equal_values() -> None:
    y, x = np.mgrid[:40, :80].astype(np.float32)
    # Opposite slants on the left and right, with the same distribution of values.
    slant = (0.5 + 0.3 * np.sin(np.where(x < 40, x + y, x - y) / 3))[..., None].astype(np.float32)
    side = (x >= 40)[..., None].astype(np.float32)
    target = (0.5 + 0.3 * np.sin((x + y + 0.37) / 3))[:, :40, None].astype(np.float32)
    shares = [
        made(slant, side, target, window=1, levels=1, coherence=0, orientation=weight, **TREE).made.mean()
        for weight in (0.0, 2.0)
    ]
    assert shares[0] > 0.3
    assert shares[1] < 0.1


# Invariants.


@pytest.mark.parametrize("search", [PATCHMATCH, TREE])
def test_results_depend_on_the_seed_not_on_threads(search: dict[str, Any]) -> None:
    # Tall enough for three bands, which are shared between threads.
    source, target = texture(0, 30, 30), texture(1, 101, 30)
    one, again, other = (
        made(source, source, target, seed=seed, threads=threads, **search).field
        for seed, threads in ((5, 1), (5, 2), (6, 1))
    )
    assert np.array_equal(one, again)
    assert search == TREE or not np.array_equal(one, other)


@settings(max_examples=12, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 9)] * 4),
    window=st.sampled_from([1, 3, 5]),
    levels=st.integers(1, 3),
    exact=st.sampled_from([0.0, np.inf]),
)
def test_any_size_and_window_gives_valid_matches(
    sides: tuple[int, int, int, int], window: int, levels: int, exact: float
) -> None:
    source, target = texture(0, *sides[:2]), texture(1, *sides[2:])
    level = made(source, source, target, levels=levels, window=window, orientation=0.5, exact=exact)
    assert level.field.shape == (*sides[2:], 2)
    assert (level.field >= 0).all()
    assert (level.field < sides[:2]).all()
    assert np.array_equal(level.made, source[level.field[..., 0], level.field[..., 1]])


@pytest.mark.parametrize("search", [PATCHMATCH, TREE])
def test_flat_pictures_stay_flat_or_get_varied_matches(search: dict[str, Any]) -> None:
    flat, rough = np.full((70, 80, 1), 0.4, np.float32), texture(0, 40, 30)
    assert (made(flat, flat, rough, **search).made == np.float32(0.4)).all()
    field = made(rough, rough, flat, **search).field
    assert len(np.unique(field.reshape(-1, 2), axis=0)) > 10


def test_progress_counts_pixels_of_all_rounds() -> None:
    source = texture(0, 24, 30)
    events = list(synthesise(source, source, source, Rules(rounds=3, exact=200), levels=2))
    # 12 x 15 in one scan, 24 x 30 in three rounds.
    assert [event[0] for event in events] == [180, 900, 1620, 2340]
    assert {event[1] for event in events} == {2340}


def test_pyramid_sides_are_rounded_up() -> None:
    image = texture(0, 21, 1, channels=7)
    assert [one.shape for one in pyramid(image, 4)] == [(21, 1, 7), (11, 1, 7), (6, 1, 7), (3, 1, 7)]
    assert enlarge(np.zeros((11, 1, 2), np.int32), (21, 1), (21, 1)).shape == (21, 1, 2)
    flat = np.full((9, 14, 2), 0.3, np.float32)
    assert all(np.allclose(one, 0.3) for one in pyramid(flat, 3))


def test_coherent_is_the_fraction_of_continued_matches() -> None:
    field = np.array([[[0, 0], [0, 1], [0, 2], [5, 3]]], np.int32)
    assert coherent(field) == pytest.approx(2 / 3)
    assert coherent(field[:, :1]) == 1
