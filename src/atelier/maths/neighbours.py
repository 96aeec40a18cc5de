"""Nearest neighbours between the features of two pictures, by cosine similarity after centring.

Each side is centred by its own mean, so that positions are matched by how they differ from the rest of their
picture (Kolkin et al. 2022, section 3.2). Candidates are projected onto the few directions in which they vary
most. The norm of a query, and its component outside these directions, do not change the ranking and are not
computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.maths.roots import one_thread

_ROWS = 512
#: The steps to the eight neighbours of a position.
_AROUND = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


@dataclass(frozen=True)
class Candidates:
    """Candidates for matches: normalised `keys` (M, P) on several `grids` (rows, columns), concatenated.

    `basis` (P, D) projects features to keys. Each grid belongs to a group in `groups`, and a query can be
    limited to one group. `visible` (M,) marks the candidates that may be chosen; None allows all. Hidden
    candidates keep their place on the grid, so that neighbours stay neighbours.
    """

    keys: Tensor
    basis: Tensor
    grids: tuple[tuple[int, int], ...]
    groups: tuple[int, ...]
    visible: Tensor | None = None

    def of_group(self, group: int) -> Tensor:
        """The visible keys (N, P) of a group."""
        members = self.group_of().to(self.keys.device) == group
        return self.keys[members if self.visible is None else members & self.visible]

    def with_hidden(self, bias: Tensor | None) -> Tensor | None:
        """The `bias` (M,) of the products, with -inf for hidden candidates."""
        if self.visible is None:
            return bias
        plain = torch.zeros(len(self.keys), device=self.keys.device) if bias is None else bias
        return torch.where(self.visible.to(plain.device), plain, -torch.inf)

    def group_of(self) -> Tensor:
        """The group of each candidate, (M,)."""
        counts = torch.tensor([rows * columns for rows, columns in self.grids])
        return torch.repeat_interleave(torch.tensor(self.groups), counts)


#: For each map, the positions (H, W) that may be chosen, or None for all; an empty sequence hides nothing.
Masks = Sequence[Tensor | None]


def candidates(
    maps: Sequence[Tensor], groups: Sequence[int], *, dims: int = 96, seed: int = 0, visible: Masks = ()
) -> Candidates:
    """Candidates from feature maps (D, H, W); each group is centred by its own mean.

    At most `dims` directions are kept (see `basis`). Hidden positions count neither for the means nor for the
    directions.
    """
    joined, shown = torch.cat(_centred(maps, groups, visible)), joined_masks(maps, visible)
    directions = basis(joined if shown is None else joined[shown], dims, seed=seed)
    lengths = joined.norm(dim=1, dtype=torch.float32)
    return _divided((joined @ directions.T).float(), lengths, directions, maps, groups, shown)


def projected(
    maps: Sequence[Tensor], groups: Sequence[int], directions: Tensor, *, visible: Masks = ()
) -> Candidates:
    """Candidates from maps (P, H, W) that are already projected onto the `directions` (P, D) of a basis.

    Comparison uses these directions only, so the full features need not be in memory together.
    """
    keys = torch.cat(_centred(maps, groups, visible)).float()
    return _divided(keys, keys.norm(dim=1), directions, maps, groups, joined_masks(maps, visible))


def joined_masks(maps: Sequence[Tensor], visible: Masks) -> Tensor | None:
    """The masks of all maps (D, H, W), concatenated (M,); None if nothing is hidden."""
    if all(mask is None for mask in visible):
        return None
    whole = (
        torch.ones(one.shape[1:], dtype=torch.bool, device=one.device) if mask is None else mask
        for one, mask in zip(maps, visible, strict=True)
    )
    return torch.cat([mask.flatten() for mask in whole])


def _centred(maps: Sequence[Tensor], groups: Sequence[int], visible: Masks = ()) -> list[Tensor]:
    """The vectors (H W, D) of each map, centred by the mean of the visible vectors in its group."""
    rows = [one.flatten(1).T for one in maps]
    shown = [
        one if mask is None else one[mask.flatten()]
        for one, mask in zip(rows, visible or [None] * len(rows), strict=True)
    ]
    centred = []
    for group, one in zip(groups, rows, strict=True):
        members = [other for index, other in zip(groups, shown, strict=True) if index == group]
        count = sum(len(member) for member in members)
        mean = torch.stack([member.sum(0, dtype=torch.float32) for member in members]).sum(0) / count
        centred.append(one - mean.to(one.dtype))
    return centred


def _divided(
    keys: Tensor,
    lengths: Tensor,
    directions: Tensor,
    maps: Sequence[Tensor],
    groups: Sequence[int],
    visible: Tensor | None,
) -> Candidates:
    grids = tuple((int(one.shape[1]), int(one.shape[2])) for one in maps)
    return Candidates(keys / lengths.clamp(min=1e-6)[:, None], directions, grids, tuple(groups), visible)


def basis(rows: Tensor, dims: int, *, seed: int = 0, sample: int = 4096) -> Tensor:
    """Approximately the `dims` orthonormal directions (P, D) in which centred rows (N, D) vary most.

    Computed by randomised subspace iteration (Halko et al. 2011, algorithm 4.4) on at most `sample` rows. If
    D is not larger than `dims`, this is the identity.
    """
    count, width = rows.shape
    if width <= dims:
        return torch.eye(width, dtype=rows.dtype, device=rows.device)
    if count > sample:
        rows = rows[torch.linspace(0, count - 1, sample, device=rows.device).long()]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn((width, dims), generator=generator).to(rows)
    for _ in range(3):
        # Without orthonormalisation all directions would converge to the strongest one.
        start = one_thread(torch.linalg.qr, (rows.T @ (rows @ start)).float())[0].to(rows.dtype)
    return start.T.contiguous()


def nearest(
    queries: Tensor, keys: Tensor, *, bias: Tensor | None = None, rows: int = _ROWS
) -> tuple[Tensor, Tensor]:
    """Index and value (N,) of the highest dot product of each query (N, P) with the keys (M, P).

    `bias` (M,) is added to the products. Ties go to the first key. Queries are processed in blocks of `rows`,
    which limits the memory to `rows` x M.
    """
    best, score = [], []
    turned = keys.T.contiguous()
    for start in range(0, len(queries), rows):
        products = queries[start : start + rows] @ turned
        if bias is not None:
            products += bias
        value, index = products.max(1)
        best.append(index)
        score.append(value)
    return torch.cat(best), torch.cat(score)


def coherent(
    queries: Tensor,
    choices: Candidates,
    before: Tensor,
    coarse: Sequence[tuple[int, int]],
    *,
    allowed: Tensor | None = None,
    bias: Tensor | None = None,
    origin: tuple[int, int] = (0, 0),
    whole: tuple[int, int] | None = None,
) -> Tensor:
    """The best candidate (H, W) for each query of a map (P, H, W), near the choices of the coarser level.

    `before` (h, w) holds the choices of the coarser level, among candidates on the grids `coarse`. Each of
    the 3x3 coarse neighbours proposes its own choice, shifted by its offset to the query (the coherence of
    Ashikhmin 2001). Then the eight positions around the best proposal are tried, so the cost is linear in the
    number of queries. `allowed` (H, W) limits each query to one group (-1 for any). If no proposal is
    allowed, or all have a `bias` of -inf, all candidates are searched. A map that is part of a larger one of
    size `whole` (rows, columns) starts at `origin` in it.
    """
    dims, height, width = queries.shape
    flat = queries.permute(1, 2, 0).reshape(-1, dims)
    search = _Search(flat, choices, None if allowed is None else allowed.flatten(), bias)
    down, right = whole or (height, width)
    y = torch.arange(height, device=queries.device) + origin[0]
    x = torch.arange(width, device=queries.device) + origin[1]
    up = (before.shape[0] / down, before.shape[1] / right)
    parent_y, parent_x = ((y + 0.5) * up[0]).long(), ((x + 0.5) * up[1]).long()
    places = _Places(choices.grids, coarse, queries.device)
    for dy in (0, -1, 1):
        for dx in (0, -1, 1):
            row = (parent_y + dy).clamp(0, before.shape[0] - 1)
            column = (parent_x + dx).clamp(0, before.shape[1] - 1)
            shift_y = (y + 0.5) - (row + 0.5) / up[0]
            shift_x = (x + 0.5) - (column + 0.5) / up[1]
            chosen = before[row[:, None], column[None, :]]
            search.propose(places.finer(chosen, shift_y[:, None], shift_x[None, :]).flatten())
    for step in _AROUND:
        search.propose(places.beside(search.best, *step))
    return search.finished().view(height, width)


def pieces(
    found: Tensor,
    queries: Tensor,
    choices: Candidates,
    bonus: float,
    *,
    rounds: int = 4,
    allowed: Tensor | None = None,
    bias: Tensor | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Tensor:
    """Revises the choices `found` (H, W) for queries (P, H, W) so that neighbours copy coherent pieces.

    Increases the sum of the scores plus `bonus` for each pair of neighbours, of eight, whose choices lie
    beside each other as the two positions do (the coherence of Ashikhmin 2001). In each of the `rounds`,
    every position takes the best of its own choice and those of its neighbours, shifted; a quarter of the
    positions, no two of them neighbours, at a time (iterated conditional modes, Besag 1986). `allowed`,
    `bias` and `origin` as in `coherent`.
    """
    best, places = found.flatten(), _Places(choices.grids, choices.grids, found.device)
    flat = queries.flatten(1).T
    groups = None if allowed is None else allowed.flatten()
    quarters = []
    for mine, around in _quarters((found.shape[0], found.shape[1]), origin, found.device):
        search = _Search(flat[mine], choices, None if groups is None else groups[mine], bias)
        quarters.append((mine, around, search))
    for _ in range(rounds):
        for mine, around, search in quarters:
            proposed = [best[mine]]
            scores = [search.scores(best[mine])]
            for step, there in zip(_AROUND, around, strict=True):
                theirs, known = places.shifted(best[there.clamp(min=0)], -step[0], -step[1])
                known &= there >= 0
                # -1 is nobody's choice, so it gets no votes.
                proposed.append(torch.where(known, theirs, -1))
                scores.append(torch.where(known, search.scores(theirs), -torch.inf))
            every = torch.stack(proposed)
            votes = torch.stack([(every[1:] == one).sum(0) for one in every])
            winner = (torch.stack(scores) + bonus * votes).argmax(0)
            best = best.index_copy(0, mine, every.gather(0, winner[None])[0])
    return best.view(found.shape)


def _quarters(
    size: tuple[int, int], origin: tuple[int, int], device: torch.device
) -> list[tuple[Tensor, list[Tensor]]]:
    """Four sets of positions without neighbours in them, with their neighbours in each direction.

    Positions are numbers on a grid of that size, whose first one lies at `origin`; -1 is beyond the edge.
    """
    height, width = size
    numbers = torch.arange(height * width, device=device).view(height, width)
    framed = F.pad(numbers, (1, 1, 1, 1), value=-1)
    found = []
    for start in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x = ((first + of) % 2 for first, of in zip(start, origin, strict=True))
        around = [
            framed[1 + y + down : 1 + height + down : 2, 1 + x + right : 1 + width + right : 2].flatten()
            for down, right in _AROUND
        ]
        found.append((numbers[y::2, x::2].flatten(), around))
    return found


class _Search:
    """The best proposal so far for each query."""

    def __init__(
        self, queries: Tensor, choices: Candidates, allowed: Tensor | None, bias: Tensor | None
    ) -> None:
        self.queries, self.choices, self.bias, self.allowed = queries, choices, bias, allowed
        self.groups = choices.group_of().to(queries.device) if allowed is not None else None
        self.best = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        self.score = torch.full((len(queries),), -torch.inf, device=queries.device)

    def scores(self, index: Tensor) -> Tensor:
        """The score of the candidate `index` (N,) of each query; -inf where it is not allowed."""
        score = torch.empty_like(self.score)
        for start in range(0, len(index), 1 << 14):  # blocks that fit into the CPU cache
            part = slice(start, start + (1 << 14))
            score[part] = (F.embedding(index[part], self.choices.keys) * self.queries[part]).sum(1)
        if self.bias is not None:
            score += self.bias[index]
        if self.allowed is not None and self.groups is not None:
            score[(self.allowed >= 0) & (self.groups[index] != self.allowed)] = -torch.inf
        return score

    def propose(self, index: Tensor) -> None:
        score = self.scores(index)
        better = score > self.score
        self.score = torch.where(better, score, self.score)
        self.best = torch.where(better, index, self.best)

    def finished(self) -> Tensor:
        lost = (self.score == -torch.inf).nonzero()[:, 0]
        if len(lost):
            allowed = None if self.allowed is None else self.allowed[lost]
            self.best[lost] = confined(self.queries[lost], self.choices, allowed, self.bias)
        return self.best


def confined(
    queries: Tensor, choices: Candidates, allowed: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """Like `nearest`, but limits each query (N, P) to its `allowed` group (N,); -1 or None for any."""
    if allowed is None:
        return nearest(queries, choices.keys, bias=bias)[0]
    groups = choices.group_of().to(queries.device)
    result = torch.empty(len(queries), dtype=torch.long, device=queries.device)
    for group in sorted(set(allowed.tolist())):
        mine = (allowed == group).nonzero()[:, 0]
        theirs = (groups == group if group >= 0 else torch.ones_like(groups)).nonzero()[:, 0]
        few = None if bias is None else bias[theirs]
        result[mine] = theirs[nearest(queries[mine], choices.keys[theirs], bias=few)[0]]
    return result


def balance(scores: Tensor, shares: Sequence[float], *, steps: int = 300) -> Tensor:
    """Biases (K,) for the scores (N, K) with which group k wins about `shares[k]` of the N queries.

    Solves the dual of optimal transport to K points (Aurenhammer, Hoffmann & Aronov 1998) by ascent with a
    decreasing step. The shares sum to 1.
    """
    wanted = torch.tensor(shares, dtype=torch.float32, device=scores.device)
    bias, step = torch.zeros_like(wanted), float(scores.max() - scores.min())
    for index in range(steps):
        won = torch.bincount((scores + bias).argmax(1), minlength=len(shares)) / len(scores)
        bias = bias + step * (wanted - won) / (1 + 0.2 * index)
    return bias - bias.mean()


class _Places:
    """Conversion between candidate indices and grid positions, at two levels."""

    def __init__(
        self, fine: Sequence[tuple[int, int]], coarse: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        self.fine, self.coarse = torch.tensor(fine, device=device), torch.tensor(coarse, device=device)
        self.fine_start = _starts(self.fine)
        self.coarse_start = _starts(self.coarse)

    def finer(self, index: Tensor, shift_y: Tensor, shift_x: Tensor) -> Tensor:
        """The fine candidate at the position of the coarse choice `index`, shifted by fine positions."""
        grid, y, x = _placed(index, self.coarse, self.coarse_start)
        ratio = self.fine[grid] / self.coarse[grid]
        row = ((y + 0.5) * ratio[..., 0] + shift_y).floor().long()
        column = ((x + 0.5) * ratio[..., 1] + shift_x).floor().long()
        return self._number(grid, row, column)

    def beside(self, index: Tensor, dy: int, dx: int) -> Tensor:
        grid, y, x = _placed(index, self.fine, self.fine_start)
        return self._number(grid, y + dy, x + dx)

    def shifted(self, index: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
        """As `beside`, and whether that place lies on the grid."""
        grid, y, x = _placed(index, self.fine, self.fine_start)
        rows, columns = self.fine[grid].unbind(-1)
        inside = (y + dy >= 0) & (y + dy < rows) & (x + dx >= 0) & (x + dx < columns)
        return self._number(grid, y + dy, x + dx), inside

    def _number(self, grid: Tensor, y: Tensor, x: Tensor) -> Tensor:
        rows, columns = self.fine[grid].unbind(-1)
        y = torch.minimum(y.clamp(min=0), rows - 1)
        x = torch.minimum(x.clamp(min=0), columns - 1)
        return self.fine_start[grid] + y * columns + x


def _starts(grids: Tensor) -> Tensor:
    """The index of the first candidate of each grid."""
    return F.pad(grids.prod(1).cumsum(0)[:-1], (1, 0))


def _placed(index: Tensor, grids: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grid = torch.bucketize(index, starts, right=True) - 1
    inside = index - starts[grid]
    columns = grids[grid, 1]
    return grid, inside // columns, inside % columns
