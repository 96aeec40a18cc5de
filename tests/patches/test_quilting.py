"""Quilting: cuts against exhaustive search, masks, and a picture quilted from itself."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from atelier.patches.quilting import Quilt, cheapest_cut, overlap, sewn, starts


def every_way(height: int, width: int) -> list[tuple[int, ...]]:
    ways = itertools.product(range(width), repeat=height)
    return [way for way in ways if all(abs(a - b) <= 1 for a, b in itertools.pairwise(way))]


def price(cost: np.ndarray, way: tuple[int, ...] | np.ndarray) -> float:
    return float(sum(cost[row, column] for row, column in enumerate(way)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1), (4, 2), (6, 4), (7, 3)])
def test_the_cut_is_the_cheapest_of_all(shape: tuple[int, int]) -> None:
    for seed in range(8):
        cost = np.random.default_rng(seed).random(shape).astype(np.float32)
        found = cheapest_cut(cost)
        assert len(found) == shape[0]
        assert (np.abs(np.diff(found)) <= 1).all()
        assert price(cost, found) == pytest.approx(min(price(cost, way) for way in every_way(*shape)))


def test_ties_take_the_left_cut() -> None:
    assert (cheapest_cut(np.zeros((5, 4), np.float32)) == 0).all()


def test_a_block_covers_what_is_right_of_the_cut() -> None:
    old, new = np.zeros((6, 6, 3), np.float32), np.ones((6, 6, 3), np.float32)
    new[:, 1] = 0  # where they agree
    mask = sewn(old, new, 3, 0)
    assert not mask[:, 0].any()
    assert mask[:, 1:].all()
    new[:] = 1
    new[2] = 0
    mask = sewn(old, new, 0, 4)
    assert not mask[:2].any()
    assert mask[2:].all()
    assert sewn(old, new, 0, 0).all()


def test_with_two_overlaps_a_block_stays_within_both_cuts() -> None:
    generator = np.random.default_rng(0)
    old, new = generator.random((2, 9, 9, 3)).astype(np.float32)
    both, left, top = (sewn(old, new, *reach) for reach in ((3, 3), (3, 0), (0, 3)))
    np.testing.assert_array_equal(both, left & top)
    assert both[3:, 3:].all()
    assert not both.all()


def test_softness_changes_only_the_seams() -> None:
    style, photo = scene(), scene(1)

    def made(softness: float) -> np.ndarray:
        quilt = Quilt(
            style, photo[..., :1].copy(), style[..., :1].copy(), tolerance=0, softness=softness, seed=0
        )
        return next(quilt.sew(18, seams=0.0, guidance=1.0))[:15]

    # With a seam weight of 0 both versions use the same pieces.
    hard, soft = made(0), made(1.5)
    inside = np.ones(72, bool)
    for left in list(starts(72, 18))[1:]:
        inside[left : left + overlap(18)] = False
    np.testing.assert_array_equal(hard[:, inside], soft[:, inside])
    assert np.abs(hard - soft).max() > 0.01
    edges = [np.abs(np.diff(picture, axis=1)).max() for picture in (hard, soft)]
    assert edges[1] < edges[0]


@pytest.mark.parametrize("length", [1, 2, 7, 50, 83])
@pytest.mark.parametrize("block", [4, 9, 24])
def test_pieces_cover_a_side_and_overlap(length: int, block: int) -> None:
    places = list(starts(length, block))
    assert places[0] == 0
    assert places[-1] + block >= length
    assert all(b - a == block - overlap(block) for a, b in itertools.pairwise(places))
    assert len(places) == 1 or places[-1] < length


def scene(seed: int = 0) -> np.ndarray:
    picture = np.random.default_rng(seed).random((60, 72, 3)).astype(np.float32)
    return cv2.GaussianBlur(picture, (0, 0), 1.5)


@pytest.mark.parametrize("block", [8, 11, 24])
def test_a_picture_quilted_from_itself_is_unchanged(block: int) -> None:
    style = scene()
    quilt = Quilt(style, style, style, tolerance=0.0, seed=0)
    rows = list(quilt.sew(block, seams=0.1, guidance=0.9))
    assert len(rows) == len(starts(60, block))
    # Complete pieces fit exactly; pieces cut by the border have less information.
    inside = style.shape[0] // (block - overlap(block)) * (block - overlap(block)) - block
    np.testing.assert_array_equal(rows[-1][:inside, :inside], style[:inside, :inside])


def test_later_passes_reduce_the_error() -> None:
    style, photo = scene(), scene(1)
    quilt = Quilt(style, photo[..., :1].copy(), style[..., :1].copy(), tolerance=0.1, seed=0)
    off = []
    for block in (24, 12, 6):
        picture = list(quilt.sew(block, seams=0.2, guidance=2.0))[-1]
        off.append(float(((picture - photo)[..., 0] ** 2).mean()))
    assert off[2] < off[1] < off[0]
    # Nothing is blended: each pixel is a copy of a style pixel.
    known = {tuple(colour) for colour in style.reshape(-1, 3)}
    assert all(tuple(colour) in known for colour in picture.reshape(-1, 3))


def test_seams_go_where_pieces_agree() -> None:
    stripes = (np.sin(np.arange(90) / 2)[None, :, None] * np.ones((70, 1, 3)) * 0.5 + 0.5).astype(np.float32)
    nothing = np.zeros((40, 47, 0), np.float32)
    quilt = Quilt(stripes, nothing, np.zeros((70, 90, 0), np.float32), tolerance=0.1, seed=1)
    picture = list(quilt.sew(12, seams=1.0, guidance=0.0))[-1]
    # Without a photo the stripes still continue from top to bottom with an even period.
    assert np.abs(np.diff(picture, axis=0)).mean() < 0.02
    step = np.abs(np.diff(picture[..., 0], axis=1)).max()
    assert step < 1.6 * np.abs(np.diff(stripes[..., 0], axis=1)).max()


def test_the_same_seed_gives_the_same_picture() -> None:
    style, photo = scene(), scene(1)

    def made(seed: int) -> np.ndarray:
        quilt = Quilt(style, photo[..., :1].copy(), style[..., :1].copy(), tolerance=0.5, seed=seed)
        return list(quilt.sew(12, seams=0.5, guidance=0.5))[-1]

    np.testing.assert_array_equal(made(3), made(3))
    assert not np.array_equal(made(3), made(4))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (5, 3)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (7, 3)])
def test_tiny_and_flat_styles_work(shape: tuple[int, int], size: tuple[int, int]) -> None:
    style, goal = np.full((*shape, 3), 0.3, np.float32), np.full((*size, 1), 0.5, np.float32)
    quilt = Quilt(style, goal, style[..., :1].copy(), tolerance=0.1, seed=0)
    for block in (13, 4):
        np.testing.assert_array_equal(
            list(quilt.sew(block, seams=0.5, guidance=0.5))[-1], np.full((*size, 3), 0.3, np.float32)
        )
