"""Palettes: the few colours that a picture can be painted with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]

_SAMPLES = 6000
_ROUNDS = 20


def palette(colours: Floats, count: int, seed: int) -> Floats:
    """At most `count` colours (K, C) that stand for `colours` (N, C): k-means from spread-out starts.

    Starts as in k-means++ (Arthur & Vassilvitskii, 2007). Distances are Euclidean, so give CIELAB where
    eyes should judge.
    """
    generator = np.random.default_rng(seed)
    points = colours.reshape(-1, colours.shape[-1])
    if len(points) > _SAMPLES:
        points = points[generator.choice(len(points), _SAMPLES, replace=False)]
    centres = [points[generator.integers(len(points))]]
    distance = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < count and distance.max() > 1e-6:
        chances = distance.astype(np.float64) / distance.sum(dtype=np.float64)
        centres.append(points[generator.choice(len(points), p=chances)])
        distance = np.minimum(distance, ((points - centres[-1]) ** 2).sum(axis=1))
    found = np.stack(centres)
    for _ in range(_ROUNDS):
        owner = nearest(points, found)
        for index in np.unique(owner):
            found[index] = points[owner == index].mean(axis=0)
    return floats(found)


def nearest(colours: Floats, centres: Floats) -> npt.NDArray[np.intp]:
    """The index of the nearest of `centres` (K, C) for each of `colours` (N, C)."""
    # |a - b|^2 without |a|^2, which is the same for all centres.
    distance = (centres**2).sum(axis=1) - 2 * colours @ centres.T
    index: npt.NDArray[np.intp] = distance.argmin(axis=1)
    return index
