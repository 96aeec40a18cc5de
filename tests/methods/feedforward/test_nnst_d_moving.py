"""NNST-D in a video: patches stay with what they paint."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from atelier.methods.base import Job
from atelier.methods.feedforward.nnst_d_moving import BONUS, Moving, remember

GRIDS = ((6, 9),)
CELLS = (5, 7)


def job(memory: dict[str, torch.Tensor], flow: float | None, known: Any = None) -> Job:
    content = torch.zeros(1, 3, 4 * CELLS[0], 4 * CELLS[1])
    motion = None if flow is None else torch.full((1, 2, *content.shape[-2:]), 0.0)
    if motion is not None:
        motion[:, 0] = flow
    device = torch.device("cpu")
    made = Job(content, (), (), device, torch.float32, flow=motion, known=known)
    return dataclasses.replace(made, memory=memory)


def first(memory: dict[str, torch.Tensor]) -> torch.Tensor:
    """Choices that copy the style's grid, moved by one row and one column."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in CELLS), indexing="ij")
    index = (rows + 1) * GRIDS[0][1] + columns + 1
    remember(job(memory, None), 0, index, GRIDS, None)
    return index


def test_a_whole_cell_of_motion_moves_the_choices_by_one() -> None:
    memory: dict[str, torch.Tensor] = {}
    index = first(memory)
    found = Moving.of(job(memory, -4.0), 0, CELLS, GRIDS)
    assert found is not None
    assert torch.equal(found.index[:, 1:], index[:, :-1])
    assert found.known[:, 1:].all()
    assert not found.known[:, 0].any()  # it was outside the last frame


def test_slow_motion_adds_up_to_a_cell() -> None:
    memory: dict[str, torch.Tensor] = {}
    index = first(memory)
    found = None
    for _ in range(4):  # a quarter of a cell each
        now = job(memory, -1.0)
        found = Moving.of(now, 0, CELLS, GRIDS)
        assert found is not None
        remember(now, 0, found.index, GRIDS, found)
    assert found is not None
    assert torch.equal(found.index[:, 2:-1], index[:, 1:-2])


def test_what_was_hidden_and_other_sizes_have_no_last_choice() -> None:
    memory: dict[str, torch.Tensor] = {}
    first(memory)
    hidden = torch.ones(1, 1, 4 * CELLS[0], 4 * CELLS[1])
    hidden[..., :8, :] = 0
    found = Moving.of(job(memory, 0.0, hidden), 0, CELLS, GRIDS)
    assert found is not None
    assert not found.known[:2].any()
    assert found.known[2:].all()
    assert Moving.of(job(memory, 0.0), 0, (4, 4), GRIDS) is None
    assert Moving.of(job({}, 0.0), 0, CELLS, GRIDS) is None


def test_a_choice_stays_until_another_is_clearly_better() -> None:
    memory: dict[str, torch.Tensor] = {}
    first(memory)
    moving = Moving.of(job(memory, 0.0), 0, CELLS, GRIDS)
    assert moving is not None
    keys, queries = torch.zeros(54, 1), torch.ones(1, *CELLS)
    keys[0] = BONUS / 2
    window = (slice(0, CELLS[0]), slice(0, CELLS[1]))
    other = torch.zeros(CELLS, dtype=torch.long)
    assert torch.equal(moving.kept(other, queries, keys, None, window), moving.index)
    keys[0] = BONUS * 2
    assert torch.equal(moving.kept(other, queries, keys, None, window), other)
