"""Image analogies: B' such that A : A' :: B : B', built from pixels of A', coarse to fine.

Hertzmann, Jacobs, Oliver, Curless & Salesin, "Image analogies", 2001. Each pixel of B' is copied from A'. Two
matches compete. The `approximate` match has the most similar neighbourhood: windows of A and A' are compared
with those of B and the finished part of B', at this level and the next coarser one. The `coherent` match
(Ashikhmin 2001) continues the match of a neighbouring pixel, and is preferred if it is nearly as similar.
Here A is the `source`, A' the `filtered` and B the `target`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats
from atelier.patches.analogy_channels import oriented
from atelier.patches.patchmatch import Field, PatchMatch, enlarge

Floats = npt.NDArray[np.float32]

_COMPONENTS, _VARIANCE = 24, 0.9999  # the tree keeps components up to this variance, and at most 24
_NEARLY = 0.5  # eps of the tree query: matches may be this much farther away, at a third of the time
_CHUNK = 1 << 15
_BANDS = 4  # bands of a picture that are processed in parallel
_NEAR = 32  # radius in pixels of PatchMatch's random search around the match of the coarser level
_OFTEN = 1 << 14  # pixels between two progress reports of the exact search


@dataclass(frozen=True)
class Rules:
    """Parameters of the search for matches.

    `coherence` is kappa in the paper: how much worse a coherent match may be and still win. Windows have
    sides of `window` pixels. Differences between A and B have `structure` times the weight of those between
    A' and B'; edge directions have `orientation` times the weight of values.

    Levels of up to `exact` pixels use the search of the paper: one pass in scan-line order, with the nearest
    window from a tree. At these sizes this is cheap, and it keeps textures from repeating. Larger levels use
    PatchMatch, in `rounds` of `sweeps` each. Each round compares whole windows of the B' that the previous
    round made, not only the part above and to the left of the pixel. `threads` limits the CPU threads.
    """

    coherence: float = 5.0
    window: int = 5
    structure: float = 1.0
    orientation: float = 0.0
    exact: float = 40_000
    rounds: int = 2
    sweeps: int = 3
    threads: int = 1


@dataclass
class Level:
    """One pyramid level.

    `example` (H', W', C) has the `plain` channels of A followed by those of A', and `picture` (H, W, C) the
    channels of B followed by those of B'. `field` (H, W, 2) holds the matches.
    """

    example: Floats
    picture: Floats
    plain: int
    field: Field

    @property
    def made(self) -> Floats:
        """B' (H, W, D)."""
        return self.picture[..., self.plain :]


def synthesise(
    source: Floats, filtered: Floats, target: Floats, rules: Rules, *, levels: int, seed: int = 0
) -> Iterator[tuple[int, int, Level]]:
    """Yields the pixels done so far, the total, and the current level, coarse to fine.

    `source` (H', W', C) and `filtered` (H', W', D) have the same size; `target` is (H, W, C). The last level
    is the result: its `made` (H, W, D) is B', and its `field` (H, W, 2) the position in A' of each pixel.
    """
    pyramids = [list(reversed(pyramid(one, levels))) for one in (source, filtered, target)]
    sizes = [
        (one.shape[0] * one.shape[1], two.shape[0] * two.shape[1])
        for one, two in zip(*pyramids[1:], strict=True)
    ]
    exact = [max(pair) <= rules.exact for pair in sizes]
    work = [pixels * (1 if once else rules.rounds) for (_, pixels), once in zip(sizes, exact, strict=True)]
    below: Level | None = None
    for index, (plain, changed, picture) in enumerate(zip(*pyramids, strict=True)):
        level = _begun(plain, changed, picture, below, rules, seed)
        # Coherence has less weight at coarse levels, where a pixel represents many (section 3.2).
        slack = 1 + rules.coherence * 2.0 ** (index + 1 - len(work))
        search = _exactly if exact[index] else _quickly
        for done in search(level, below, rules, slack, seed + index + 1):
            yield sum(work[:index]) + done, sum(work), level
        below = level


def pyramid(image: Floats, levels: int) -> list[Floats]:
    """The Gaussian pyramid of an image (H, W, C), fine to coarse; sides are halved and rounded up."""
    found = [floats(image)]
    for _ in range(levels - 1):
        height, width, channels = found[-1].shape
        # Channel by channel: OpenCV drops a channel axis of length 1 and limits the number of channels to 4.
        planes = [cv2.pyrDown(floats(found[-1][..., channel])) for channel in range(channels)]
        found.append(floats(np.stack(planes, 2).reshape((height + 1) // 2, (width + 1) // 2, channels)))
    return found


def coherent(field: Field) -> float:
    """The fraction of pixels whose match is just right of their left neighbour's; 1 for a plain copy."""
    if field.shape[1] < 2:
        return 1.0
    return float((field[:, 1:] - field[:, :-1] == (0, 1)).all(2).mean())


def _begun(
    plain: Floats, changed: Floats, picture: Floats, below: Level | None, rules: Rules, seed: int
) -> Level:
    """A level with an initial B', from the matches of the coarser level or of A and B alone."""
    size, key = picture.shape[:2], plain.shape[:2]
    if rules.orientation:
        plain, picture = (
            np.concatenate([one, rules.orientation * oriented(one[..., : changed.shape[2]])], 2)
            for one in (plain, picture)
        )
    if below is None:
        match = PatchMatch(picture, plain, patch=rules.window, seed=seed)
        for _ in range(4):
            match.sweep()
        field = match.field
    else:
        field = enlarge(below.field, (size[0], size[1]), (key[0], key[1]))
    made = np.concatenate([picture, changed[field[..., 0], field[..., 1]]], 2)
    return Level(floats(np.concatenate([plain, changed], 2)), floats(made), plain.shape[2], field)


def _quickly(level: Level, below: Level | None, rules: Rules, slack: float, seed: int) -> Iterator[int]:
    """Rounds of PatchMatch, each followed by a choice between its matches and coherent ones.

    The scan direction alternates. Bands of the picture are processed in parallel. Each band sees the others
    as the previous round left them, so the result does not depend on the number of threads.
    """
    height, width = level.field.shape[:2]
    count = max(1, min(_BANDS, height // 32))
    edges = [height * index // count for index in range(count + 1)]
    worker = _Worker(level, below, rules, slack)
    for turn in range(rules.rounds):
        with ThreadPoolExecutor(min(rules.threads, count)) as pool:
            seeds = [seed + turn + 1000 * index for index in range(count)]
            pieces = list(pool.map(worker.work, edges[:-1], edges[1:], seeds, [turn % 2 == 1] * count))
        level.picture[:] = np.concatenate([picture for picture, _ in pieces])
        level.field[:] = np.concatenate([field for _, field in pieces])
        yield (turn + 1) * height * width


class _Worker:
    """Processes bands of a picture; the bands share the level and the weighted example."""

    def __init__(self, level: Level, below: Level | None, rules: Rules, slack: float) -> None:
        self.level, self.below, self.rules, self.slack = level, below, rules, slack
        self.scale = np.ones(level.example.shape[2], np.float32)
        self.scale[: level.plain] = rules.structure**0.5
        self.key = level.example * self.scale

    def work(self, first: int, last: int, seed: int, backward: bool) -> tuple[Floats, Field]:
        """The picture and the field of rows `first` to `last`, exclusive, after one round."""
        # Starts at an even row, which is aligned with a row of the coarser level.
        top, bottom = max(0, first - self.rules.window) // 2 * 2, last + self.rules.window
        part = _rows(self.level, top, bottom)
        coarse = self.below and _rows(self.below, top // 2, bottom // 2 + 2)
        match = PatchMatch(
            part.picture * self.scale,
            self.key,
            patch=self.rules.window,
            radius=_NEAR if coarse else None,
            start=part.field,
            seed=seed,
        )
        for _ in range(self.rules.sweeps):
            match.sweep()
        height, width = part.field.shape[:2]
        mine, way = slice(first - top, last - top), -1 if backward else 1
        places = _scan(height, width).reshape(height, width, 2)[mine].reshape(-1, 2)[::way].copy()
        approximate = match.field[mine].reshape(-1, 2)[::way].copy()
        chooser = _Chooser(part, coarse, self.rules, self.slack, causal=False)
        chooser.choose(places, approximate, backward=backward)
        return part.picture[mine], part.field[mine]


def _rows(level: Level, top: int, bottom: int) -> Level:
    """A level with a copy of some rows of the picture and the whole example."""
    return Level(level.example, level.picture[top:bottom].copy(), level.plain, level.field[top:bottom].copy())


def _exactly(level: Level, below: Level | None, rules: Rules, slack: float, seed: int) -> Iterator[int]:
    """One pass in scan-line order, with the nearest window from a tree of principal components.

    Pixels whose windows do not depend on each other are looked up together. They lie on a slanted line: one
    row up, it is `window // 2 + 1` pixels further right (3 for a window of 5).
    """
    chooser = _Chooser(level, below, rules, slack, causal=True)
    tree = _Tree(level, below, chooser, rules, seed)
    height, width = level.field.shape[:2]
    places = _scan(height, width)
    front = places[:, 1] + (rules.window // 2 + 1) * places[:, 0]
    order = np.argsort(front, kind="stable")
    edges = np.flatnonzero(np.diff(front[order])) + 1
    done = reported = 0
    for some in np.split(order, edges):
        here = places[some]
        chooser.choose(here, tree.nearest(here), backward=False)
        done += len(some)
        if done - reported >= _OFTEN or done == len(order):
            reported = done
            yield done


class _Chooser:
    """Chooses between approximate and coherent matches: the kernel with the maps and weights of a level."""

    def __init__(
        self, level: Level, below: Level | None, rules: Rules, slack: float, *, causal: bool
    ) -> None:
        from atelier.patches import analogy_kernels

        self.kernels, self.slack, self.level = analogy_kernels, slack, level
        channels = level.example.shape[2]
        coarse = min(3, rules.window)
        self.weights = _weights(rules.window, level.plain, channels, rules.structure, causal=causal)
        self.coarse_weights = _weights(coarse, level.plain, channels, rules.structure, causal=False)
        self.example, self.picture = _bordered(level.example, rules.window // 2), _flat(level.picture)
        if below is None:
            self.coarse_weights[:] = 0
            below = Level(_nothing(level.example), _nothing(level.picture), level.plain, level.field)
        self.coarse_example, self.coarse_picture = _bordered(below.example, coarse // 2), _flat(below.picture)
        grid = _scan(rules.window, rules.window) - rules.window // 2
        # A window of 1 pixel has coherent neighbours as well.
        grid = grid if rules.window > 1 else _scan(3, 3) - 1
        self.before = np.ascontiguousarray(grid[: len(grid) // 2][::-1])  # nearest first

    def choose(self, places: Field, approximate: Field, *, backward: bool) -> None:
        self.kernels.choose(
            self.picture,
            self.example,
            self.weights,
            self.coarse_picture,
            self.coarse_example,
            self.coarse_weights,
            self.level.plain,
            places,
            approximate,
            -self.before if backward else self.before,
            self.slack,
            self.level.field,
        )


class _Tree:
    """Finds the nearest windows of the example by their principal components."""

    def __init__(self, level: Level, below: Level | None, chooser: _Chooser, rules: Rules, seed: int) -> None:
        from scipy.spatial import cKDTree

        self.level, self.below, self.chooser, self.threads = level, below, chooser, rules.threads
        self.roots = [np.sqrt(chooser.weights), np.sqrt(chooser.coarse_weights)]
        self.depth = sum(int((one > 0).sum()) for one in self.roots)
        height, self.width = level.example.shape[:2]
        places = _scan(height, self.width)
        # The axes come from a sample, since all windows at once would not fit into memory.
        sample = self._vectors(places[:: 1 + len(places) // (2 * _CHUNK)], example=True)
        self.axes = _axes(sample)
        # Random jitter separates equal windows (label maps, flat pictures), which no branch could split.
        self.chance = np.random.default_rng(seed)
        self.jitter = 1e-4 * float(sample.std()) + 1e-9
        chunks = [places[at : at + _CHUNK] for at in range(0, len(places), _CHUNK)]
        points = np.concatenate([self._projected(chunk, example=True) for chunk in chunks])
        self.tree = cKDTree(points, leafsize=16, balanced_tree=False)

    def nearest(self, places: Field) -> Field:
        """Matching positions in the example (N, 2) for positions in the picture (N, 2)."""
        vectors = self._projected(places, example=False)
        _, found = self.tree.query(vectors, eps=_NEARLY, workers=self.threads)
        return np.stack([found // self.width, found % self.width], 1).astype(np.int32)

    def _projected(self, places: Field, *, example: bool) -> npt.NDArray[np.float64]:
        vectors = self._vectors(places, example=example) @ self.axes
        return np.concatenate([vectors, self.jitter * self.chance.random((len(places), 1))], 1)

    def _vectors(self, places: Field, *, example: bool) -> Floats:
        vectors = np.empty((len(places), self.depth), np.float32)
        first = 0
        for level, roots, factor in ((self.level, self.roots[0], 1), (self.below, self.roots[1], 2)):
            if level is not None:
                values = level.example if example else level.picture
                self.chooser.kernels.gather(
                    _flat(values), values.shape[1], roots, places // factor, vectors, first
                )
                first += int((roots > 0).sum())
        return vectors


def _axes(vectors: Floats) -> Floats:
    """The principal axes (D, K) of vectors (N, D): enough for nearly all of the variance, at most 24."""
    centred = vectors - vectors.mean(0)
    values, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    shares = np.cumsum(values[::-1].clip(0)) / max(values.clip(0).sum(), 1e-30)
    keep = min(int(np.searchsorted(shares, _VARIANCE)) + 1, _COMPONENTS, len(values))
    return floats(axes[:, ::-1][:, :keep])


def _weights(size: int, plain: int, channels: int, structure: float, *, causal: bool) -> Floats:
    """Gaussian window weights (size, size * C) that sum to 1 per channel; plain ones times `structure`.

    With `causal`, the filtered channels have weights only above and to the left of the centre.
    """
    steps = np.arange(size) - size // 2
    bell = np.exp(-0.5 * (steps / (size / 4)) ** 2)
    window = bell[:, None] * bell
    known = window.copy()
    if causal:
        known.reshape(-1)[size * size // 2 :] = 0
    planes = [window * structure / window.sum()] * plain
    planes += [known / max(known.sum(), 1e-30)] * (channels - plain)
    return floats(np.stack(planes, 2).reshape(size, -1))


def _nothing(like: Floats) -> Floats:
    """A coarser map of zeros."""
    height, width, channels = like.shape
    return np.zeros(((height + 1) // 2, (width + 1) // 2, channels), np.float32)


def _scan(height: int, width: int) -> Field:
    """All positions (H * W, 2) in scan-line order."""
    return np.stack(np.divmod(np.arange(height * width, dtype=np.int32), np.int32(width)), 1)


def _flat(values: Floats) -> Floats:
    """A view (H, W * C) of a map (H, W, C)."""
    return values.reshape(values.shape[0], -1)


def _bordered(values: Floats, reach: int) -> Floats:
    return _flat(np.pad(values, ((reach, reach), (reach, reach), (0, 0)), mode="edge"))
