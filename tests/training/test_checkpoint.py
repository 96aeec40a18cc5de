"""Checkpoints: values survive unchanged, nothing is pickled, and earlier formats load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from atelier.core.errors import TrainingError
from atelier.training import checkpoint

KINDS = (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and all(same(*pair) for pair in pairs)
    return type(one) is type(other) and (one == other or (one != one and other != other))


def test_values_survive_a_round_trip(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {
        "transposed": base.T,
        "shared": [base, base[1:], base],
        "types": [base.to(kind) for kind in KINDS],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "numbered": {0: {"step": torch.tensor(1)}, 7: {}},
        "a/b": {"c": torch.ones(1)},
        "a": {"b/c": torch.zeros(1)},
        "plain": [True, 1, 0.1, 1e-300, -0.0, math.inf, math.nan, "tensor", None, (1, [2, ()])],
        "looks like a tensor": ["tensor", "state/scalar"],
    }
    checkpoint.write(tmp_path / "one.safetensors", state)
    assert same(checkpoint.read(tmp_path / "one.safetensors"), state)
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert file.metadata()["format"] == "atelier checkpoint 1"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"pool": object()}, "cannot store state/pool, a object"),
        ({"pool": [torch.nn.Linear(1, 1)]}, "cannot store state/pool/0, a Linear"),
        ({(1, 2): 3}, r"the key \(1, 2\) is neither text nor an integer"),
    ],
)
def test_an_unsupported_value_is_an_error(tmp_path: Path, value: Any, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        checkpoint.write(tmp_path / "one.safetensors", value)
    assert list(tmp_path.iterdir()) == []


def test_prune_keeps_the_newest_two_with_all_process_files(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        for process in (0, 1):
            checkpoint.write(checkpoint.path_of(tmp_path, step, process), {"step": step})
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [
        f"checkpoint-00000{step}.safetensors" for step in ("02", "04", "10")
    ]
    checkpoint.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-0000004-1.safetensors",
        "checkpoint-0000004.safetensors",
        "checkpoint-0000010-1.safetensors",
        "checkpoint-0000010.safetensors",
    ]
