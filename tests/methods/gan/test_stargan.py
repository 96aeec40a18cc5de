"""StarGAN as a method: its domains by name, errors and training; the parity case has its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import stylize
from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.methods.gan.stargan import StarGan
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask
from atelier.translators.stargan import Critic, Generator, from_state

Floats = npt.NDArray[np.float32]


@pytest.fixture
def weights_file(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = Generator(("summer", "winter", "été"), width=4, blocks=1)
    save_file(network.state_dict(), tmp_path / "seasons.safetensors")
    return str(tmp_path / "seasons.safetensors")


# domains


def test_the_domain_is_chosen_by_name(weights_file: str, photo: Floats) -> None:
    network = from_state(load_file(weights_file)).prepare("cpu", torch.float32)
    assert network.domains == ("summer", "winter", "été")
    given = torch.from_numpy(photo).permute(2, 0, 1)[None]
    settings = {"weights": weights_file, "device": "cpu", "half": False}
    for index, name in enumerate(network.domains):
        made = stylize(photo, method="stargan", domain=(name,), **settings)
        expected = network.paint(given, torch.eye(3)[[index]])[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(made.pixels, expected, atol=1e-4)
    first = stylize(photo, method="stargan", **settings).pixels
    assert not np.allclose(first, made.pixels, atol=1e-3)


def test_an_unknown_domain_is_an_error(weights_file: str, photo: Floats) -> None:
    with pytest.raises(
        UsageError, match=r"has no domain 'wintr': did you mean 'winter'\? .*summer, winter, été"
    ):
        stylize(photo, method="stargan", weights=weights_file, domain=("wintr",), device="cpu")


def test_another_networks_file_is_an_error(photo: Floats, tiny_encoder: Path) -> None:
    with pytest.raises(WeightsError, match="are not those of a StarGAN generator"):
        stylize(photo, method="stargan", weights=str(tiny_encoder), device="cpu")


def test_absent_weights_say_how_to_get_them(photo: Floats) -> None:
    with pytest.raises(WeightsError, match=r"copy 200000-G\.ckpt .* `atelier weights add stargan\.celeba"):
        stylize(photo, method="stargan", device="cpu")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 30), (21, 35)])
def test_any_size(height: int, width: int) -> None:
    network = Generator(("a", "b"), width=4, blocks=1).prepare("cpu", torch.float32)
    picture = torch.rand(1, 3, height, width)
    assert network.paint(picture, network.label(["b"])).shape == picture.shape


# the training


def task(folders: Mapping[str, Path], **more: Any) -> MethodTask:
    small = {"width": 4, "blocks": 1, "depth": 2, "crop": 16, "steps": 6, "critic_steps": 2, "batch": 4}
    often = {"half": False, "device": "cpu", "evaluate_every": 10_000, "save_every": 10_000, "held_back": 2}
    domains = tuple(f"{name}={path}" for name, path in folders.items())
    return MethodTask(StarGan, settings_of(StarGan)(domain=domains, **(small | often | more)))


def test_a_resumed_run_is_bit_identical(coloured: Any, run_of: Any, everything: Any, tmp_path: Path) -> None:
    whole = everything(run_of(task(coloured(10, 16)), tmp_path / "whole"))
    assert run_of(task(coloured(10, 16)), tmp_path / "parts", steps=3).step == 3
    torch.manual_seed(99)
    again = everything(run_of(task(coloured(10, 16)), tmp_path / "parts"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_what_it_writes_knows_the_names(coloured: Any, run_of: Any, tmp_path: Path, photo: Floats) -> None:
    run = run_of(task(coloured(10, 16), steps=2), tmp_path / "run")
    run.export(tmp_path / "made.safetensors")
    assert from_state(load_file(tmp_path / "made.safetensors")).domains == ("red", "green", "blue")
    settings = {"weights": str(tmp_path / "made.safetensors"), "domain": ("blue",), "device": "cpu"}
    assert stylize(photo, method="stargan", **settings).pixels.shape == photo.shape


def test_the_generator_learns_every_few_steps(coloured: Any) -> None:
    one = task(coloured(10, 16), critic_steps=3)
    networks = one.networks()
    place = type("Place", (), {"count": 1, "index": 0, "device": torch.device("cpu"), "mean": None})
    course = []
    for (batch,) in one.batches(0, place):
        course.append([update.optimiser for update in one.updates(networks, batch, {})])
    assert course == [["critic"], ["critic"], ["critic", "generator"]] * 2


def test_a_crop_that_does_not_fit_the_critic_is_an_error(coloured: Any) -> None:
    with pytest.raises(TrainingError, match=r"crop = 36 is not a multiple of 16, .*depth 4 needs: use 32"):
        task(coloured(10, 16), crop=36, depth=4).networks()


def test_the_critic_names_domains_of_its_size() -> None:
    scores, logits = Critic(3, side=16, width=4, depth=2)(torch.rand(2, 3, 16, 16))
    assert (tuple(scores.shape), tuple(logits.shape)) == ((2, 1, 4, 4), (2, 3))


def painter(run: Run) -> Callable[[Tensor, str], Tensor]:
    generator = run.judged["generator"].prepare("cpu", torch.float32)
    return lambda pictures, name: generator.paint(pictures, generator.label([name]))


def test_the_judges_know_real_pictures(shapes: Any) -> None:
    for index, name in enumerate(shapes.colours):
        assert (shapes.named(shapes.drawn(20, 16, name, 7)[0]) == index).all()


def test_pictures_take_the_colour_that_is_asked_for(
    coloured: Any, shapes: Any, run_of: Any, tmp_path: Path
) -> None:
    """The small sibling of the next test. By chance, a third would have the right colour."""
    more = {"width": 6, "critic_steps": 1, "learning_rate": 4e-3, "steps": 120}
    run = run_of(task(coloured(60, 16), zoom=1.0, held_back=0, **more), tmp_path / "run")
    assert shapes.coloured(painter(run), 16) >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pictures_take_the_colour_and_keep_the_shape(
    coloured: Any, shapes: Any, run_of: Any, tmp_path: Path
) -> None:
    """Shapes need ten times the steps of colours, and pictures whose quarter in size still shows them."""
    more = {
        "width": 12,
        "blocks": 2,
        "depth": 4,
        "critic_steps": 1,
        "learning_rate": 1e-3,
        "steps": 3000,
        "batch": 8,
    }
    run = run_of(task(coloured(200, 32), crop=32, zoom=1.0, held_back=0, **more), tmp_path / "run")
    colour, shape = shapes.accuracy(painter(run), 32)
    assert (colour >= 0.9, shape >= 0.9) == (True, True), (colour, shape)
