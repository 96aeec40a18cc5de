"""Bradley-Terry: strengths of methods from votes between pairs of them (Bradley & Terry 1952)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components

from atelier.core.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Strengths:
    """Scores (N,) with zero mean, the logarithms of strengths; `low` and `high` bound them."""

    scores: Floats
    low: Floats
    high: Floats

    def probability(self) -> Floats:
        """How often the method of each row beats that of each column, (N, N)."""
        return win_probability(self.scores)


def bradley_terry(
    wins: npt.ArrayLike, *, bootstrap: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Strengths:
    """The strengths that `wins` (N, N) make most likely; wins[i][j] counts how often i was preferred to j.

    A tie counts as half a win for each. The bounds are quantiles of the scores of votes that are drawn again,
    each pair as often as it was asked. Raises InputError where no estimate exists, because some methods won
    (or lost) all their votes against the rest.

    >>> bradley_terry([[0, 30], [10, 0]], bootstrap=0).scores.round(3).tolist()
    [0.549, -0.549]
    """
    table = _checked(wins)
    scores = fitted(table)
    drawn = [scores[None]]
    if bootstrap:
        drawn.append(fitted(_drawn_again(table, bootstrap, np.random.default_rng(seed))))
    edges = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = np.quantile(np.concatenate(drawn), edges, axis=0)
    return Strengths(scores, low, high)


def _drawn_again(table: Floats, count: int, random: np.random.Generator) -> Floats:
    """Tables (count, N, N) of as many votes a pair, each won as often as in `table`."""
    asked = np.rint(table + table.T).astype(int)
    share = np.divide(table, table + table.T, out=np.zeros_like(table), where=asked > 0)
    upper = np.triu(random.binomial(asked, share, (count, *table.shape)), 1).astype(float)
    drawn: Floats = upper + np.tril(asked - upper.swapaxes(1, 2), -1)
    for one in drawn:
        if not _connected(one):
            # Half a win for both keeps an estimate where a method has lost or won everything.
            one += 0.5 * (asked > 0)
    return drawn


def fitted(wins: Floats, *, tolerance: float = 1e-12, rounds: int = 100) -> Floats:
    """The scores (..., N) with zero mean of tables of wins (..., N, N), by Newton's method.

    The logarithm of the likelihood is concave, so the only danger is a step that is too long: it is cut at 1.
    """
    asked, won = wins + wins.swapaxes(-1, -2), wins.sum(-1)
    scores = np.zeros(wins.shape[:-1])
    for _ in range(rounds):
        expected = win_probability(scores)
        slope = won - (asked * expected).sum(-1)
        bend = asked * expected * (1 - expected)
        # Scores have a common offset that votes do not fix; 1 in every place fixes their mean.
        matrix = np.eye(wins.shape[-1]) * bend.sum(-1)[..., None] - bend + 1
        step = np.linalg.solve(matrix, slope[..., None])[..., 0]
        scores = scores + step / np.maximum(1, np.abs(step).max(-1, keepdims=True))
        if np.abs(step).max() < tolerance:
            break
    centred: Floats = scores - scores.mean(-1, keepdims=True)
    return centred


def win_probability(scores: npt.ArrayLike) -> Floats:
    """How often the method of each row beats that of each column, (..., N, N); 1/2 on the diagonal."""
    s = np.asarray(scores, float)
    odds: Floats = 1 / (1 + np.exp(s[..., None, :] - s[..., :, None]))
    return odds


def _checked(wins: npt.ArrayLike) -> Floats:
    table = np.array(wins, float)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2 or (table < 0).any():
        raise InputError("a table of wins is square, of at least two methods, and holds no negative number")
    np.fill_diagonal(table, 0)
    if not _connected(table):
        raise InputError(
            "these votes have no Bradley-Terry scores: some methods won or lost every vote against the "
            "rest; ask for more votes"
        )
    return table


def _connected(table: Floats) -> bool:
    """Whether every group of methods has a win and a loss against the rest."""
    return int(connected_components(table > 0, directed=True, connection="strong")[0]) == 1
