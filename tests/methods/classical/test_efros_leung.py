"""Efros-Leung: guidance, size of the grown picture, and stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import atelier
from atelier.core.progress import Event

SMALL = {"window": 5, "grown": 32, "sample": 24}


def made(photo: np.ndarray, style: np.ndarray, **settings: Any) -> np.ndarray:
    return atelier.stylize(photo, style, method="efros_leung", **SMALL | settings).pixels


def test_without_guidance_only_the_size_comes_from_the_photo(photo: np.ndarray, painting: np.ndarray) -> None:
    one, other = made(photo, painting, guidance=0), made(1 - photo, painting, guidance=0)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert not np.array_equal(one, made(photo, painting, guidance=0, seed=1))


@pytest.mark.parametrize("guide", ["lightness", "colours"])
def test_guidance_follows_the_photo(photo: np.ndarray, painting: np.ndarray, guide: str) -> None:
    # In its colours, or its tones alone.
    aim = atelier.stylize(photo, painting, method="colour").pixels if guide == "colours" else photo

    def likeness(guidance: float) -> float:
        result = made(photo, painting, guide=guide, guidance=guidance, grown=56)
        pair = [one if guide == "colours" else one.mean(axis=2) for one in (result, aim)]
        return float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])

    free, led = likeness(0), likeness(10)
    assert led > 0.5
    assert led > free + 0.3


def test_every_pixel_is_a_style_pixel_at_full_size(photo: np.ndarray, painting: np.ndarray) -> None:
    style = np.ascontiguousarray(painting[:40, :30])
    result = made(photo[:36, :40], style, grown=64, sample=64)
    known = {tuple(colour) for colour in np.rint(style.reshape(-1, 3) * 255)}
    assert all(tuple(colour) in known for colour in np.rint(result.reshape(-1, 3) * 255))


def test_a_large_picture_is_as_sharp_as_the_style(photo: np.ndarray) -> None:
    rows, columns = np.mgrid[:192, :192] // 12
    board = np.repeat(((rows + columns) % 2)[..., None], 3, axis=2).astype(np.float32)
    canvas = np.repeat(np.repeat(photo, 4, axis=0), 4, axis=1)[:160, :192]
    result = made(canvas, board, grown=64, sample=64, window=9, guidance=0)
    # Grown at a third of the size: a plain enlargement would be grey between cells.
    assert ((result < 0.2) | (result > 0.8)).mean() > 0.85


def test_stopping_returns_a_complete_picture(photo: np.ndarray, painting: np.ndarray) -> None:
    events: list[Event] = []

    def stop(event: Event) -> bool:
        events.append(event)
        return len(events) < 2

    result = made(photo, painting, progress=stop)
    assert len(events) == 2
    assert result.shape == photo.shape
    assert result.std() > 0.05
    # Nothing is left black where it has not grown.
    assert (result.max(axis=2) > 0.02).mean() > 0.95
