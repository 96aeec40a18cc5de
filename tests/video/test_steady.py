"""What holds frames: motion, cuts, and the weight of the last result."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from atelier.images import Picture
from atelier.video.motion import Motion, moved
from atelier.video.steady import Painter, steadied

from .conftest import scene


def still(size: tuple[int, int], trust: float = 1.0) -> Motion:
    ones = np.ones(size, np.float32)
    return Motion(np.zeros((*size, 2), np.float32), ones, trust * ones, cut=False)


def test_the_flow_leads_back_to_where_a_place_was() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (96, 128, 3)).astype(np.float32)
    before = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.uint8)
    now = np.roll(before, 3, 1)
    motion = Motion.between(before, now)
    inner = motion.flow[16:-16, 16:-16]
    assert np.median(np.abs(inner - [-3, 0])) < 0.1
    again = moved(before.astype(np.float32), motion.flow)
    assert np.abs(again - now)[16:-16, 16:-16].mean() < 2
    assert motion.seen[16:-16, 16:-16].mean() > 0.95
    assert not motion.cut


def test_what_is_new_is_not_trusted() -> None:
    before, now = scene(2, (96, 128), step=0.0)
    now = now.copy()
    now[40:60, 50:80] = 255
    motion = Motion.between(before, now)
    assert motion.trust[44:56, 56:74].mean() < 0.05
    assert motion.trust[:30].mean() > 0.9
    assert Motion.between(before, scene(1, (96, 128), seed=9)[0]).cut


def test_the_last_result_counts_by_its_weight() -> None:
    last, painted = np.full((32, 32, 3), 0.5, np.float32), np.full((32, 32, 3), 0.51, np.float32)
    assert steadied(painted, last, still((32, 32)), 0.75) == pytest.approx(0.5025, abs=1e-4)
    assert steadied(painted, last, still((32, 32), trust=0.0), 0.75) == pytest.approx(0.51, abs=1e-6)
    other = np.full((32, 32, 3), 0.9, np.float32)  # it was uncovered: the paint is to be another
    assert steadied(other, last, still((32, 32)), 0.75) == pytest.approx(0.9, abs=0.02)


def test_detail_keeps_the_contrast_of_the_frame_as_painted() -> None:
    random = np.random.default_rng(0)
    last, painted = (random.uniform(0.3, 0.7, (64, 64, 3)).astype(np.float32) for _ in range(2))
    for _ in range(12):
        last = steadied(painted + 0, last, still((64, 64)), 0.9)
        painted = random.uniform(0.3, 0.7, (64, 64, 3)).astype(np.float32)
    assert last.std() > 0.75 * painted.std()


def test_flicker_of_a_clip_as_it_is_equals_that_of_the_clip() -> None:
    painter = Painter(lambda content, **context: Picture(content.pixels), steady=0.0)
    first, *rest = scene(3, (48, 64))
    _, state = painter.paint(first, None, None)
    for before, now in pairwise([first, *rest]):
        _, state = painter.paint(now, (state, Motion.between(before, now)), None)
    assert state.flicker.pairs == 2
    assert state.flicker.result == pytest.approx(state.flicker.content, rel=1e-6)
    assert state.flicker.content > 0
