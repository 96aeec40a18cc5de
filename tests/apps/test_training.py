"""`atelier train encoder` and `atelier train METHOD` on a handful of tiny pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import atelier
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


METHOD = '''
"""A method that learns the mean colour of its pictures, to try the training of every kind of data."""

from __future__ import annotations

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Method, Paper, Takes
from atelier.store.weights import load


class Mean(Method):
    """Give the picture the mean colour of the pictures that were seen."""

    name = "mean"
    paper = Paper("Nobody", 2024, "Means", "https://example.org")
    takes = Takes(least=0)
    data = "DATA"

    class Knobs(AnyKnobs):
        weights: str = knob("", "The colour's file.")

    class Training(AnyKnobs):
        pull: float = knob(1.0, "Weight of the mean.", ge=0)

    def network(self, training):
        module = torch.nn.Module()
        module.colour = torch.nn.Parameter(torch.full((3,), 0.5))
        return module

    def losses(self, network, batch, training):
        seen = batch["ITEM"]
        for name, kind in {EXTRA}.items():
            assert isinstance(batch[name], kind), name
        return {"apart": training.pull * (network.colour - seen.mean((0, 2, 3))).square().sum()}

    def transfer(self, job, knobs):
        return 0 * job.content + load(knobs.weights)["colour"].float()[:, None, None]
'''


@pytest.mark.parametrize(
    ("data", "item", "extra", "flags"),
    [
        ("pairs", "paintings", "{'photos': torch.Tensor}", "--photos dark --paintings light"),
        ("one_style", "photos", "{'styles': list}", "--photos light --style style.png --sheet photo.png"),
        ("styles", "photos", "{'styles': list}", "--photos light --paintings style.png --paintings dark"),
        ("domains", "b", "{'a': torch.Tensor}", "--a dark --b light --sheet photo.png"),
        ("labelled", "pictures", "{'domain': torch.Tensor}", "--domain one=light --domain two=light"),
        ("pictures", "pictures", "{}", "--pictures light --sheet photo.png"),
        ("captioned", "pictures", "{'captions': list}", "--pictures light"),
        ("bucketed", "pictures", "{'captions': list, 'names': list}", "--pictures light"),
    ],
)
def test_the_flags_follow_the_data_that_a_method_declares(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, data: str, item: str, extra: str, flags: str
) -> None:
    (folder / "methods").mkdir()
    text = METHOD.replace("DATA", data).replace("ITEM", item).replace("{EXTRA}", extra)
    (folder / "methods" / "mean.py").write_text(text)
    monkeypatch.setenv("ATELIER_METHODS", str(folder / "methods"))
    for name, grey in (("dark", 51), ("light", 204)):
        (folder / name).mkdir()
        for index in range(4):
            cv2.imwrite(str(folder / name / f"{index}.png"), np.full((20, 24, 3), grey, np.uint8))
            (folder / name / f"{index}.txt").write_text(f"a {name} picture")
    small = "--steps 30 --batch 2 --crop 16 --held-back 1 --warmup 0 --learning-rate 0.05 --average 0"
    shown = run(f"train mean {flags} {small} --no-half --device cpu --threads 1")
    assert shown.code == 0, shown.err
    assert shown.err.splitlines()[0].startswith("mean on cpu: network 0.00 M weights, 0.0 MiB with gradients")
    assert shown.err.splitlines()[-1] == "runs/mean/mean.safetensors  30 steps"
    assert (folder / "runs" / "mean" / "sheet-0000030.jpg").is_file() == ("--sheet" in flags)
    painted = run("stylize photo.png -o out.png --method mean --weights runs/mean/mean.safetensors")
    assert painted.code == 0, painted.err
    made = cv2.imread(str(folder / "out.png"))
    assert made.mean() == pytest.approx(204, abs=12)
    wanted = {flag for flag in flags.split() if flag.startswith("--")}
    text = run("train mean --help").out
    assert all(f"{flag} " in text for flag in wanted | {"--pull"})


def test_an_empty_folder_is_said_before_anything_is_built(run: Any, folder: Path) -> None:
    (folder / "nothing").mkdir()
    shown = run("train adain --photos nothing --paintings a.npz")
    assert shown.code == 7
    assert shown.err.startswith("atelier: no pictures below nothing: use .bmp")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("words", ["train --help", "train cin --help", "train encoder --help"])
def test_help_loads_no_torch(words: str) -> None:
    code = (
        "import sys; from atelier.apps.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    source = {"PYTHONPATH": str(Path(atelier.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        env={**os.environ, **source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
