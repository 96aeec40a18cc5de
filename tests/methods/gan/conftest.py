"""Synthetic domains, shapes in three colours, with judges that know only real pictures; and short runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from atelier.core.progress import Progress
from atelier.training import checkpoint
from atelier.training.loop import Run
from atelier.training.task import MethodTask

COLOURS = {"red": (0.8, 0.15, 0.15), "green": (0.15, 0.8, 0.15), "blue": (0.15, 0.15, 0.8)}
Folders = Callable[[int, int], Mapping[str, Path]]


class Shapes:
    """Discs and squares on grey: what they are, and judges of pictures of them."""

    colours = COLOURS

    @staticmethod
    def drawn(count: int, side: int, colour: str, seed: int) -> tuple[Tensor, Tensor]:
        """Pictures (count, 3, side, side) of one colour, and whether each shows a square."""
        generator = torch.Generator().manual_seed(seed)
        y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
        pictures, squares = torch.full((count, 3, side, side), 0.5), []
        for picture in pictures:
            right, down, size, form = torch.rand(4, generator=generator).tolist()
            across, along = (x - 0.35 - 0.3 * right).abs(), (y - 0.35 - 0.3 * down).abs()
            far = torch.hypot(across, along) if form < 0.5 else torch.maximum(across, along)
            picture[:, far < 0.22 + 0.1 * size] = torch.tensor(COLOURS[colour])[:, None]
            squares.append(form >= 0.5)
        return pictures, torch.tensor(squares)

    @staticmethod
    def named(pictures: Tensor) -> Tensor:
        """The place in `COLOURS` of the colour of each picture's colourful part, without any training."""
        colourful = pictures.amax(1) - pictures.amin(1) > 0.25
        shares = colourful[:, None] / colourful.sum((1, 2)).clamp(min=1)[:, None, None, None]
        return torch.cdist((pictures * shares).sum((2, 3)), torch.tensor(list(COLOURS.values()))).argmin(1)

    @classmethod
    def coloured(cls, painted: Callable[[Tensor, str], Tensor], side: int) -> float:
        """The share of new pictures in the colour that is asked for; `painted` as in `accuracy`."""
        with torch.no_grad():
            right = [
                cls.named(painted(cls.drawn(20, side, own, 7)[0], wanted).clamp(0, 1)) == index
                for own in COLOURS
                for index, wanted in enumerate(COLOURS)
            ]
        return float(torch.cat(right).float().mean())

    @classmethod
    def accuracy(cls, painted: Callable[[Tensor, str], Tensor], side: int) -> tuple[float, float]:
        """The shares of new pictures in the colour that is asked for, and with the shape that they had.

        `painted` translates pictures to the domain of a name.
        """
        judge, colours, forms = _judge(side), [], []
        for own in COLOURS:
            pictures, squares = cls.drawn(30, side, own, 7)
            for index, wanted in enumerate(COLOURS):
                with torch.no_grad():
                    found = judge(painted(pictures, wanted).clamp(0, 1))
                colours.append(found[:, :3].argmax(1) == index)
                forms.append((found[:, 3] > 0) == squares)
        return float(torch.cat(colours).float().mean()), float(torch.cat(forms).float().mean())


@cache
def _judge(side: int) -> nn.Module:
    """A classifier of colour (three logits) and shape (one), trained on real pictures, sharp and blurred."""
    real = [Shapes.drawn(300, side, name, 100 + index) for index, name in enumerate(COLOURS)]
    pictures, squares = (torch.cat(part) for part in zip(*real, strict=True))
    colours = torch.arange(len(COLOURS)).repeat_interleave(300)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        judge = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, side // 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(32, 48, 3, 1, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
            nn.Linear(48, 4),
        )
        optimiser = torch.optim.Adam(judge.parameters(), 2e-3)
        for _ in range(500):
            rows = torch.randint(len(pictures), (64,))
            found = judge(_blurred(pictures[rows]))
            loss = F.cross_entropy(found[:, :3], colours[rows])
            loss = loss + F.binary_cross_entropy_with_logits(found[:, 3], squares[rows].float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return judge.eval()


def _blurred(pictures: Tensor) -> Tensor:
    """Softer by a random amount, up to a sixteenth of the side, and with a little noise."""
    amount = float(torch.rand(())) * pictures.shape[-1] / 16
    if amount > 0.3:
        kernel = torch.exp(-torch.arange(-4.0, 5.0).square() / (2 * amount**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, 9)
        pictures = F.conv2d(F.pad(pictures, (4, 4, 0, 0), mode="replicate"), kernel, groups=3)
        pictures = F.conv2d(F.pad(pictures, (0, 0, 4, 4), mode="replicate"), kernel.mT, groups=3)
    return pictures + 0.03 * torch.randn_like(pictures)


@pytest.fixture(scope="session")
def shapes() -> type[Shapes]:
    return Shapes


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Writes a folder of shapes for each colour."""

    @cache
    def written(count: int, side: int) -> Mapping[str, Path]:
        folder = tmp_path_factory.mktemp("colours")
        for seed, name in enumerate(COLOURS):
            (folder / name).mkdir()
            for index, picture in enumerate(Shapes.drawn(count, side, name, seed)[0]):
                pixels = (255 * picture.permute(1, 2, 0)).round().byte().numpy()
                Image.fromarray(pixels).save(folder / name / f"{index}.png")
        return {name: folder / name for name in COLOURS}

    return written


@pytest.fixture(scope="session")
def run_of() -> Callable[..., Run]:
    """Runs a task in a folder, or goes on there, up to `steps` if they are given."""

    def run(task: MethodTask, folder: Path, steps: int | None = None) -> Run:
        made = Run(task, task.settings, folder)
        made.resume()
        made.go(Progress((lambda event: event.done < steps) if steps else None))
        return made

    return run


@pytest.fixture(scope="session")
def everything() -> Callable[[Run], dict[str, Tensor]]:
    """All tensors of a run's state, by path."""

    def found(run: Run) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        parts: dict[str, Any] = {
            "networks": {name: network.state_dict() for name, network in run.networks.items()},
            "averages": {name: average.state_dict() for name, average in run.averages.items()},
            "optimisers": {name: one.state_dict()["state"] for name, one in run.optimisers.items()},
            "state": {name: one.state_dict() for name, one in run.state.items()},
        }
        checkpoint._described(parts, "", tensors)
        return tensors

    return found
