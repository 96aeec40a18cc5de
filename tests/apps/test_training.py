"""`atelier train encoder` and `atelier train METHOD` on a handful of tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from atelier import features
from atelier.methods import registry

SMALL = (
    "train encoder --photos a.npz --validation a.npz --out run --widths 4 --widths 6 --depths 1 --depths 1 "
    "--sizes 16 --late-sizes 16 --steps 3 --batch 4 --warmup 1 --no-half --device cpu --threads 1"
)


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Accelerate keeps one state for the whole process; every test gets a new one."""
    state = pytest.importorskip("accelerate.state")
    state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _shard(folder: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    files = [cv2.imencode(".jpg", picture)[1].ravel() for picture in pictures]
    offset = np.cumsum([0, *(len(file) for file in files)])
    np.savez(folder / "a.npz", jpeg=np.concatenate(files), offset=offset, label=np.arange(8) % 2)


def test_it_trains_exports_and_goes_on(run: Any, folder: Path) -> None:
    shown = run(SMALL)
    assert shown.code == 0, shown.err
    assert shown.err.splitlines()[-1] == "run/encoder.safetensors  3 steps"
    assert "3 of 3  training  loss " in shown.err
    assert features.load(folder / "run" / "encoder.safetensors").taps[-1] == "pool2"
    again = run(SMALL.replace("--steps 3", "--steps 5"))
    assert again.err.splitlines()[1] == "resuming from step 3"
    assert again.err.splitlines()[-1] == "run/encoder.safetensors  5 steps"
    steps = [json.loads(line)["step"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [3, 5]


def test_fresh_refuses_a_folder_with_checkpoints(run: Any) -> None:
    assert run(SMALL).code == 0
    shown = run(f"{SMALL} --fresh")
    assert shown.code == 7
    sentence = "run holds checkpoints: choose another --out, or leave out --fresh to continue from them"
    assert shown.err == f"atelier: {sentence}\n"


def test_help_of_the_trainer(run: Any) -> None:
    text = run("train encoder --help").out
    assert "\nTraining:\n" in text
    assert "--photos text" in text
    assert "[required]" in text


def test_without_accelerate(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    shown = run(SMALL)
    assert shown.code == 6
    assert shown.err == "atelier: training needs Accelerate: pip install 'atelier[train]'\n"


def test_a_method_is_trained_and_paints(run: Any, folder: Path) -> None:
    shown = run(
        "train nnst-d --photos a.npz --paintings a.npz --encoder tiny.safetensors --steps 2 "
        "--batch 2 --crop 32 --held-back 2 --sheet photo.png --sheet style.png "
        "--no-half --device cpu --threads 1"
    )
    assert shown.code == 0, shown.err
    assert shown.err.splitlines()[-1] == "runs/nnst_d/nnst_d.safetensors  2 steps"
    assert (folder / "runs" / "nnst_d" / "sheet-0000002.jpg").is_file()
    painted = run(
        "stylize photo.png -s style.png -o out.png --method nnst_d --encoder tiny.safetensors "
        "--weights runs/nnst_d/nnst_d.safetensors --device cpu --threads 1"
    )
    assert painted.code == 0, painted.err


def test_every_method_that_learns_has_a_command(run: Any) -> None:
    text = run("train --help").out
    for name, kind in registry.list_methods().items():
        assert (f"\n  {name.replace('_', '-')} " in text) == (kind.Training is not None)
    assert "--match-weight" in run("train nnst-d --help").out
