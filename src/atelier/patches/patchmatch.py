"""PatchMatch: a fast approximate nearest-neighbour search between the patches of two feature maps.

Barnes et al. 2009, "PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing". Adjacent
patches tend to have adjacent matches, so good matches propagate to their neighbours. Random searches with a
shrinking radius around the best match so far find new ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Field = npt.NDArray[np.int32]


class PatchMatch:
    """The nearest-neighbour field of patches of `query` (H, W, C) in `key` (H', W', C), float32.

    `field` (H, W, 2) holds the row and column of each position's match, `distance` (H, W) the sum of squared
    differences of the two patches. Patches have sides of `patch` positions, and maps are padded by repeating
    their border. The field starts at random, or at `start`. `radius` is the largest radius of the random
    search around the best match so far; None searches the whole key. The same seed gives the same field.

    Raises ValueError if the maps differ in their number of channels.
    """

    def __init__(
        self,
        query: Floats,
        key: Floats,
        *,
        patch: int = 3,
        radius: int | None = None,
        start: Field | None = None,
        seed: int = 0,
    ) -> None:
        if query.shape[2] != key.shape[2]:
            raise ValueError(f"maps of {query.shape[2]} and {key.shape[2]} channels cannot be matched")
        from atelier.patches import patchmatch_kernels as kernels  # numba: compiled at first use

        self.kernels, self.patch = kernels, patch
        self.query, self.key = _bordered(query, patch), _bordered(key, patch)
        self.radius = max(key.shape[:2]) if radius is None else radius
        generator = np.random.default_rng(seed)
        if start is None:
            start = generator.integers(0, key.shape[:2], (*query.shape[:2], 2), dtype=np.int32)
        self.field: Field = start.clip(0, np.array(key.shape[:2]) - 1).astype(np.int32)
        self.distance: Floats = np.empty(query.shape[:2], np.float32)
        kernels.measure(self.query, self.key, self.field, self.distance, patch)
        self.state = int(generator.integers(1, 2**63))
        self.sweeps = 0

    def sweep(self) -> None:
        """One pass over all positions, alternately forwards and backwards. Distances never increase."""
        self.state = int(
            self.kernels.sweep(
                self.query,
                self.key,
                self.field,
                self.distance,
                self.patch,
                self.radius,
                self.sweeps % 2 == 1,
                np.uint64(self.state),
            )
        )
        self.sweeps += 1


def sweep_all(matches: list[PatchMatch], threads: int = 1) -> None:
    """One pass of each search, in parallel on up to `threads` threads."""
    if threads < 2 or len(matches) < 2:
        for match in matches:
            match.sweep()
        return
    with ThreadPoolExecutor(min(threads, len(matches))) as pool:
        for done in [pool.submit(match.sweep) for match in matches]:
            done.result()


def enlarge(field: Field, size: tuple[int, int], key: tuple[int, int], factor: int = 2) -> Field:
    """Upsamples a field (h, w, 2) by `factor` to `size`, for a key of size `key`, both (height, width).

    Sides need not be exact multiples: the last matches are continued, and clamped to the key.
    """
    rows, columns = np.arange(size[0]), np.arange(size[1])
    above, left = (
        np.minimum(places // factor, count - 1)
        for places, count in zip((rows, columns), field.shape[:2], strict=True)
    )
    within = np.stack(np.broadcast_arrays(rows[:, None] % factor, columns % factor), 2)
    fine: Field = (factor * field[above][:, left] + within).clip(0, np.array(key) - 1).astype(np.int32)
    return fine


def vote(key: Floats, field: Field, patch: int) -> Floats:
    """The mean (H, W, C) at each position of all matched patches of `key` (H', W', C) that cover it.

    Parts of patches outside the key do not count.
    """
    height, width = field.shape[:2]
    reach, limits = patch // 2, np.array(key.shape[:2])
    total, votes = (
        np.zeros((height, width, key.shape[2]), np.float32),
        np.zeros((height, width, 1), np.float32),
    )
    for down in range(-reach, patch - reach):
        for right in range(-reach, patch - reach):
            # At this offset, position p is covered by the patch around p - offset.
            rows = slice(max(0, down), min(height, height + down))
            columns = slice(max(0, right), min(width, width + right))
            centre = field[
                max(0, -down) : min(height, height - down), max(0, -right) : min(width, width - right)
            ]
            there = centre + np.array((down, right))
            inside: npt.NDArray[np.bool_] = np.logical_and(there >= 0, there < limits).all(2, keepdims=True)
            there = there.clip(0, limits - 1)
            total[rows, columns] += key[there[..., 0], there[..., 1]] * inside
            votes[rows, columns] += inside
    voted: Floats = total / votes
    return voted


def _bordered(values: Floats, patch: int) -> Floats:
    before = patch // 2
    border = (before, patch - 1 - before)
    return np.ascontiguousarray(np.pad(values, (border, border, (0, 0)), mode="edge"), dtype=np.float32)
