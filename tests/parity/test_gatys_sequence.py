"""The first L-BFGS evaluations of the PyTorch neural style tutorial (the case's second half).

The losses are what a listener hears of `stylize` with `quality="tutorial"`. The images, and the losses
after the fifth, come from the same method with pictures in float64: the recorded run differs from that by
1.3e-6, while in float32 a single ReLU that rounding flips moves some pixels by 6e-3.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import atelier
from atelier.core.knobs import parse
from atelier.core.progress import Event, Progress
from atelier.losses.objective import Objective
from atelier.maths import Descent
from atelier.methods.base import Job
from atelier.methods.optimise import gatys
from atelier.methods.registry import knobs_for

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "gatys" / "layout.json").read_text())
CASE = np.load(HERE / "gatys" / "case.npz")


def check(name: str, value: Any) -> None:
    fill.check(CASE, LAYOUT, name, np.asarray(value))


def listen(encoder: Path, content: str, iterations: int) -> list[Event]:
    events: list[Event] = []
    atelier.stylize(
        torch.from_numpy(CASE[content]),
        torch.from_numpy(CASE["style"]),
        method="gatys",
        quality="tutorial",
        encoder=str(encoder),
        iterations=iterations,
        device="cpu",
        progress=events.append,
    )
    return events


def run(encoder: Path, iterations: int) -> tuple[Tensor, list[Event]]:
    """The method's own picture in float64."""
    events: list[Event] = []
    job = Job(
        content=torch.from_numpy(CASE["content"]).double(),
        styles=[torch.from_numpy(CASE["style"]).double()],
        style_weights=[1.0],
        device=torch.device("cpu"),
        dtype=torch.float64,
        progress=Progress(events.append),
    )
    # `half` means the job's precision, whichever that is.
    chosen = {"encoder": str(encoder), "iterations": iterations, "half": True}
    knobs = parse(gatys.Gatys.Knobs, knobs_for(gatys.Gatys, "tutorial", chosen))
    return gatys.Gatys().transfer(job, knobs), events


@pytest.fixture(scope="module")
def five(vgg19_file: Path) -> list[Event]:
    return listen(vgg19_file, "content", 5)


def test_style_losses(five: list[Event]) -> None:
    check("lbfgs_style", [event.losses["style"] for event in five])


def test_content_losses(five: list[Event]) -> None:
    check("lbfgs_content", [event.losses["content"] for event in five])


def test_totals(five: list[Event]) -> None:
    check("lbfgs_total", [sum(event.losses.values()) for event in five])
    assert [event.done for event in five] == [1, 2, 3, 4, 5]


def test_ten_totals(vgg19_file: Path) -> None:
    check("lbfgs_total_10", [sum(event.losses.values()) for event in run(vgg19_file, 10)[1]])


def test_fifth_image(vgg19_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descents: list[Descent] = []
    run_descent = Descent.run

    def keep(self: Descent, start: Tensor) -> Tensor:
        descents.append(self)
        return run_descent(self, start)

    monkeypatch.setattr(Descent, "run", keep)
    run(vgg19_file, 5)
    (descent,) = descents
    check("lbfgs_image_5", descent.image.detach())


def test_what_the_sixth_evaluation_sees(vgg19_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    evaluate = Objective.__call__

    def keep(self: Objective, picture: Tensor) -> dict[str, Tensor]:
        seen.append(picture.detach().clone())
        return evaluate(self, picture)

    monkeypatch.setattr(Objective, "__call__", keep)
    picture, _ = run(vgg19_file, 6)
    check("lbfgs_image_5_clamped", seen[5])
    # The loss is the lowest at the second evaluation, before the leap.
    assert torch.equal(picture, seen[1])


def test_another_start_is_far_outside(vgg19_file: Path) -> None:
    events = listen(vgg19_file, "input", 1)
    with pytest.raises(AssertionError, match="lbfgs_style"):
        check("lbfgs_style", [event.losses["style"] for event in events] * 5)
