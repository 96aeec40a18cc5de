"""Nearest neighbours: against a slow float64 search, in fewer directions, and near a coarser choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from atelier import maths
from atelier.maths.neighbours import basis


def smooth(dims: int, height: int, width: int, seed: int) -> torch.Tensor:
    """A feature map that varies slowly, like those of an encoder."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, dims, height // 4 + 2, width // 4 + 2), generator=generator)
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return fine[0] + 0.05 * torch.randn((dims, height, width), generator=generator)


def by_hand(query: torch.Tensor, style: torch.Tensor) -> np.ndarray:
    """The choices by centred cosine similarity in float64 NumPy, query by query."""
    q, s = (one.double().flatten(1).T.numpy() for one in (query, style))
    q, s = q - q.mean(0), s - s.mean(0)
    s = s / np.linalg.norm(s, axis=1, keepdims=True)
    return np.array([int(np.argmax(s @ one)) for one in q])


def centred(query: torch.Tensor) -> torch.Tensor:
    return query - query.mean((1, 2), keepdim=True)


def test_with_all_directions_choices_agree_with_brute_force() -> None:
    query, style = smooth(12, 9, 7, 0), smooth(12, 8, 11, 1)
    choices = maths.candidates([style], [0], dims=12)
    queries = (choices.basis @ centred(query).flatten(1)).T
    index, score = maths.nearest(queries, choices.keys, rows=10)
    assert index.tolist() == by_hand(query, style).tolist()
    assert torch.allclose(score, (queries * choices.keys[index]).sum(1), atol=1e-5)


def test_few_directions_choose_almost_as_well() -> None:
    # 200 channels near a subspace of 24 dimensions, plus noise: 32 directions are enough.
    mix = torch.randn((200, 24), generator=torch.Generator().manual_seed(5))
    query, style = (torch.einsum("dk,khw->dhw", mix, smooth(24, 24, 24, seed)) for seed in (0, 1))
    exact = by_hand(query, style)
    choices = maths.candidates([style], [0], dims=32)
    index, _ = maths.nearest((choices.basis @ centred(query).flatten(1)).T, choices.keys)
    rows = F.normalize(centred(style).flatten(1).T, dim=1)
    wanted = F.normalize(centred(query).flatten(1).T, dim=1)
    best, found = ((wanted * rows[one]).sum(1).mean() for one in (torch.from_numpy(exact), index))
    assert float(found) > 0.99 * float(best)
    assert (index.numpy() == exact).mean() > 0.9


def test_the_basis_spans_the_directions_of_most_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((500, 40), generator=generator) * torch.linspace(2, 0.1, 40) ** 6
    rows -= rows.mean(0)
    kept = basis(rows, 8)
    assert torch.allclose(kept @ kept.T, torch.eye(8), atol=1e-5)
    explained = (rows @ kept.T).square().sum() / rows.square().sum()
    possible = torch.linalg.svdvals(rows)[:8].square().sum() / rows.square().sum()
    assert float(explained) > 0.99 * float(possible)


def test_queries_are_confined_to_their_group() -> None:
    maps = [smooth(6, 4, 5, 0), smooth(6, 3, 3, 1), smooth(6, 4, 5, 2)]
    choices = maths.candidates(maps, [0, 1, 0], dims=6)
    assert choices.grids == ((4, 5), (3, 3), (4, 5))
    groups = choices.group_of()
    assert torch.bincount(groups).tolist() == [40, 9]
    allowed = torch.arange(30) % 2
    queries = torch.randn((30, 6), generator=torch.Generator().manual_seed(3))
    found = maths.confined(queries, choices, allowed)
    assert torch.equal(groups[found], allowed)
    scores = (queries @ choices.keys.T).masked_fill(groups[None] != allowed[:, None], -9e9)
    assert torch.equal(found, scores.argmax(1))


def test_candidates_of_projected_maps() -> None:
    maps_, groups = [smooth(6, 4, 5, 0), smooth(6, 3, 3, 1)], [0, 1]
    whole = maths.candidates(maps_, groups, dims=6)
    turned = torch.linalg.qr(torch.randn((6, 6), generator=torch.Generator().manual_seed(2)))[0]
    found = maths.projected([torch.einsum("pd,dhw->phw", turned, one) for one in maps_], groups, turned)
    assert (found.grids, found.groups) == (whole.grids, whole.groups)
    # With all directions nothing is lost: the keys are the same up to a rotation.
    torch.testing.assert_close(found.keys @ turned, whole.keys, atol=1e-5, rtol=1e-5)


def test_a_flat_map_gives_finite_keys() -> None:
    choices = maths.candidates([torch.ones(5, 3, 3)], [0], dims=4)
    assert torch.isfinite(choices.keys).all()
    index, _ = maths.nearest(torch.zeros(2, 4), choices.keys)
    assert index.tolist() == [0, 0]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (0.6, 0.3, 0.1)])
def test_the_balance_gives_each_group_its_share(shares: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn((700, len(shares)), generator=generator) + torch.arange(len(shares)) * 2.0
    bias = maths.balance(scores, shares)
    won = torch.bincount((scores + bias).argmax(1), minlength=len(shares)) / 700
    assert torch.allclose(won, torch.tensor(shares), atol=0.02)


# Search near the coarser choice.


def levels(seed: int) -> tuple[torch.Tensor, torch.Tensor, maths.Candidates, maths.Candidates]:
    """Queries and candidates of a style, at two levels."""
    fine, style = smooth(10, 32, 40, seed), smooth(10, 28, 36, seed + 100)
    half = [F.avg_pool2d(one[None], 2)[0] for one in (fine, style)]
    return half[0], fine, maths.candidates([half[1]], [0], dims=10), maths.candidates([style], [0], dims=10)


def test_the_search_near_the_coarser_choice_is_nearly_as_good() -> None:
    coarse, fine, small, large = levels(0)
    before, _ = maths.nearest((small.basis @ centred(coarse).flatten(1)).T, small.keys)
    queries = F.normalize((large.basis @ centred(fine).flatten(1)), dim=0).view(10, 32, 40)
    found = maths.coherent(queries, large, before.view(16, 20), small.grids)
    flat = queries.flatten(1).T
    _, best = maths.nearest(flat, large.keys)
    near = (flat * large.keys[found.flatten()]).sum(1)
    assert float(near.mean()) > 0.93 * float(best.mean())
    assert (near <= best + 1e-5).all()


def test_a_picture_matches_itself() -> None:
    style = smooth(10, 24, 28, 7)
    half = F.avg_pool2d(style[None], 2)[0]
    small, large = (maths.candidates([one], [0], dims=10) for one in (half, style))
    before, _ = maths.nearest((small.basis @ centred(half).flatten(1)).T, small.keys)
    assert before.tolist() == list(range(12 * 14))
    queries = (large.basis @ centred(style).flatten(1)).view(10, 24, 28)
    found = maths.coherent(queries, large, before.view(12, 14), small.grids)
    assert found.flatten().tolist() == list(range(24 * 28))


@settings(max_examples=15, deadline=None)
@given(top=st.integers(0, 20), left=st.integers(0, 30), tall=st.integers(1, 12), wide=st.integers(1, 10))
def test_part_of_a_map_makes_the_same_choices_as_the_whole(top: int, left: int, tall: int, wide: int) -> None:
    coarse, fine, small, large = levels(1)
    before = maths.nearest((small.basis @ centred(coarse).flatten(1)).T, small.keys)[0].view(16, 20)
    queries = (large.basis @ centred(fine).flatten(1)).view(10, 32, 40)
    whole = maths.coherent(queries, large, before, small.grids)
    part = (slice(top, top + tall), slice(left, left + wide))
    found = maths.coherent(
        queries[(slice(None), *part)], large, before, small.grids, origin=(top, left), whole=(32, 40)
    )
    assert torch.equal(found, whole[part])


def test_a_query_stays_in_its_group_even_where_no_proposal_does() -> None:
    _, fine, _, _ = levels(2)
    styles = [smooth(10, 28, 36, 50), smooth(10, 20, 20, 51)]
    halves = [F.avg_pool2d(one[None], 2)[0] for one in styles]
    small, large = (maths.candidates(maps, [0, 1], dims=10) for maps in (halves, styles))
    queries = (large.basis @ centred(fine).flatten(1)).view(10, 32, 40)
    before = torch.zeros((16, 20), dtype=torch.long)  # all in the first style
    allowed = torch.ones((32, 40), dtype=torch.long)
    found = maths.coherent(queries, large, before, small.grids, allowed=allowed)
    assert (large.group_of()[found] == 1).all()


# Coherent pieces.


def worth(
    found: torch.Tensor, queries: torch.Tensor, choices: maths.Candidates, bonus: float
) -> tuple[float, int]:
    """Scores plus a bonus for each pair of neighbours that copies neighbours, and their number, by hand."""
    (_, columns), height, width = choices.grids[0], *found.shape
    score = float((queries.flatten(1).T * choices.keys[found.flatten()]).sum())
    agreed = 0
    for y, x in np.ndindex(height, width):
        for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
            if y + dy < height and 0 <= x + dx < width:
                here, there = divmod(int(found[y, x]), columns), divmod(int(found[y + dy, x + dx]), columns)
                agreed += there == (here[0] + dy, here[1] + dx)
    return score + bonus * agreed, agreed


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), bonus=st.floats(0, 1), tall=st.integers(1, 9), wide=st.integers(1, 9))
def test_every_round_of_agreement_gains(seed: int, bonus: float, tall: int, wide: int) -> None:
    choices = maths.candidates([smooth(6, 7, 9, seed)], [0], dims=6)
    queries = smooth(6, tall, wide, seed + 1)
    found = maths.nearest(queries.flatten(1).T, choices.keys)[0].view(tall, wide)
    before, _ = worth(found, queries, choices, bonus)
    for _ in range(3):
        found = maths.pieces(found, queries, choices, bonus, rounds=1)
        after, _ = worth(found, queries, choices, bonus)
        assert after >= before - 1e-3
        before = after


def test_neighbours_agree_on_a_piece_of_the_style() -> None:
    style = smooth(6, 20, 24, 3)
    choices = maths.candidates([style], [0], dims=6)
    noise = torch.randn(6, 12, 16, generator=torch.Generator().manual_seed(1))
    queries = choices.keys.T.reshape(6, 20, 24)[:, 4:16, 3:19] + 0.3 * noise
    wanted = torch.arange(20 * 24).view(20, 24)[4:16, 3:19]
    alone = maths.nearest(queries.flatten(1).T, choices.keys)[0].view(12, 16)
    agreed = maths.pieces(alone, queries, choices, 0.3)
    assert (alone == wanted).float().mean() < 0.6
    assert (agreed == wanted).float().mean() > 0.95
    assert worth(agreed, queries, choices, 0)[1] > 2 * worth(alone, queries, choices, 0)[1]
    assert torch.equal(maths.pieces(wanted, queries, choices, 9.0), wanted)


def test_pieces_of_a_part_are_those_of_the_whole() -> None:
    choices = maths.candidates([smooth(6, 20, 24, 3)], [0], dims=6)
    queries = smooth(6, 40, 44, 4)
    found = maths.nearest(queries.flatten(1).T, choices.keys)[0].view(40, 44)
    whole = maths.pieces(found, queries, choices, 0.2, rounds=2)
    assert not torch.equal(whole, found)
    part = (slice(3, 36), slice(5, 44))
    mine = maths.pieces(found[part], queries[(slice(None), *part)], choices, 0.2, rounds=2, origin=(3, 5))
    # Each round has four steps, and in each a choice can spread by one position.
    assert torch.equal(mine[8:-8, 8:], whole[part][8:-8, 8:])


def test_pieces_keep_to_their_group_and_to_visible_candidates() -> None:
    maps = [smooth(6, 9, 9, 1), smooth(6, 9, 9, 2)]
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[:, 4:] = True
    choices = maths.candidates(maps, [0, 1], dims=6, visible=[mask, None])
    queries, hidden = smooth(6, 12, 12, 3), choices.with_hidden(None)
    allowed = (torch.arange(12) > 5).long().expand(12, 12)
    found = maths.confined(queries.flatten(1).T, choices, allowed.flatten(), hidden).view(12, 12)
    agreed = maths.pieces(found, queries, choices, 0.5, allowed=allowed, bias=hidden)
    assert not torch.equal(agreed, found)
    assert torch.equal(choices.group_of()[agreed], allowed)
    assert choices.visible is not None
    assert bool(choices.visible[agreed].all())


# Hidden candidates.


def test_hidden_positions_count_neither_in_means_nor_as_candidates() -> None:
    style, query = smooth(6, 8, 8, 1), smooth(6, 8, 8, 2)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, 4:] = True
    whole = maths.candidates([style], [0], visible=[mask])
    part = maths.candidates([style[:, :, 4:]], [0])
    torch.testing.assert_close(whole.keys.view(8, 8, -1)[:, 4:], part.keys.view(8, 4, -1))
    centred = (query - query.mean((1, 2), keepdim=True)).flatten(1).T
    chosen = maths.confined(centred, whole, None, whole.with_hidden(None))
    alone = maths.confined(centred, part, None)
    assert torch.equal(chosen, alone // 4 * 8 + alone % 4 + 4)


def test_a_hidden_candidate_is_not_chosen_near_a_coarse_choice_either() -> None:
    style, query = smooth(6, 8, 8, 1), smooth(6, 8, 8, 2)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, 5:] = True
    choices = maths.candidates([style], [0], visible=[mask])
    before = torch.zeros(4, 4, dtype=torch.long)  # all far from the visible part
    found = maths.coherent(query, choices, before, [(4, 4)], bias=choices.with_hidden(None))
    assert bool(mask.flatten()[found.flatten()].all())
    assert choices.of_group(0).shape == (24, 6)
