"""Palettes: a few colours that represent a picture."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]

_SAMPLES = 6000
_ROUNDS = 20


def palette(colours: Floats, count: int, seed: int) -> Floats:
    """At most `count` colours (K, C) that represent `colours` (N, C), by k-means.

    Initialised by k-means++ (Arthur & Vassilvitskii, 2007). Distances are Euclidean, so pass CIELAB if the
    palette should match perceived differences. K is smaller than `count` if there are fewer distinct colours
    or a cluster ends up empty. The same seed gives the same palette.
    """
    from scipy.cluster.vq import kmeans2

    generator = np.random.default_rng(seed)
    points = colours.reshape(-1, colours.shape[-1])
    if len(points) > _SAMPLES:
        points = generator.choice(points, _SAMPLES, replace=False)
    distinct = np.unique(points, axis=0)
    if len(distinct) <= count:  # k-means++ cannot draw more centres than there are distinct colours
        return floats(distinct)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, owner = kmeans2(points.astype(np.float64), count, iter=_ROUNDS, minit="++", rng=generator)
    return floats(centres[np.unique(owner)])


def nearest(colours: Floats, centres: Floats) -> npt.NDArray[np.intp]:
    """The index of the nearest of `centres` (K, C) for each of `colours` (N, C)."""
    # |a - b|^2 without the term |a|^2, which is the same for all centres.
    distance = (centres**2).sum(axis=1) - 2 * colours @ centres.T
    index: npt.NDArray[np.intp] = distance.argmin(axis=1)
    return index
