"""StarGAN v2 as a method: domains, references, seeds, errors, training; the parity case has its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import stylize
from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.exports import networks
from atelier.features.faces import Faces
from atelier.methods.gan.starganv2 import LEARNERS, StarGanV2, random_latents
from atelier.store.records import record
from atelier.store.weights import load
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask
from atelier.translators.starganv2 import (
    Generator,
    MappingNetwork,
    Plan,
    StyleEncoder,
    from_state,
    initialise,
)

Floats = npt.NDArray[np.float32]
TINY = Plan(side=16, width=4, widest=8, style=4, latent=4, hidden=8)


def written(path: Path, plan: Plan = TINY, **more: torch.nn.Module) -> str:
    torch.manual_seed(0)
    parts = {
        "generator": Generator(("summer", "winter", "été"), plan),
        "mapping_network": MappingNetwork(3, plan),
        "style_encoder": StyleEncoder(3, plan),
    } | more
    for network in parts.values():
        initialise(network)
    save_file(
        {f"{name}.{key}": one for name, part in parts.items() for key, one in part.state_dict().items()},
        path,
    )
    return str(path)


@pytest.fixture
def weights_file(tmp_path: Path) -> str:
    return written(tmp_path / "seasons.safetensors")


def painted(photo: Floats, weights: str, style: Any = None, **more: Any) -> Floats:
    settings = {"weights": weights, "device": "cpu", "half": False}
    return stylize(photo, style, method="starganv2", **(settings | more)).pixels


def differ(one: Floats, other: Floats) -> bool:
    return not np.allclose(one, other, atol=1e-3)


# looks


def test_a_seed_gives_a_look_and_a_domain_another(weights_file: str, photo: Floats) -> None:
    first = painted(photo, weights_file, seed=1)
    assert np.array_equal(first, painted(photo, weights_file, seed=1, domain="summer"))
    assert differ(first, painted(photo, weights_file, seed=2))
    assert differ(first, painted(photo, weights_file, seed=1, domain="été"))


def test_without_variety_all_seeds_look_alike(weights_file: str, photo: Floats) -> None:
    one, other = (painted(photo, weights_file, seed=seed, truncation=0.0) for seed in (1, 2))
    assert np.array_equal(one, other)


def test_a_reference_gives_the_look(weights_file: str, photo: Floats, painting: Floats) -> None:
    """The picture of a mixture is that of the mixed styles, and its seed does not matter."""
    made = painted(photo, weights_file, painting, domain="winter")
    assert np.array_equal(made, painted(photo, weights_file, painting, domain="winter", seed=5))
    assert differ(made, painted(photo, weights_file, photo, domain="winter"))
    both = painted(photo, weights_file, [painting, photo], style_weights=[3, 1], domain="winter")
    assert differ(both, made)
    alone = painted(photo, weights_file, [painting, photo], style_weights=[1, 0], domain="winter")
    np.testing.assert_allclose(alone, made, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 30), (21, 35)])
def test_any_size(height: int, width: int) -> None:
    network = Generator(("a", "b"), TINY).prepare("cpu", torch.float32)
    picture = torch.rand(1, 3, height, width)
    assert network.paint(picture, torch.rand(1, 4)).shape == picture.shape


def test_networks_of_faces_paint_at_their_own_size(tmp_path: Path, photo: Floats) -> None:
    torch.manual_seed(0)
    plan = Plan(side=32, width=4, widest=8, style=4, latent=4, hidden=8, edges=True)
    generator = Generator(("summer", "winter", "été"), plan)
    path = written(tmp_path / "faces.safetensors", plan, generator=generator, fan=Faces())
    assert painted(photo, path).shape == photo.shape
    with pytest.raises(WeightsError, match=r"do not fit the network of landmarks: .* are missing"):
        painted(photo, written(tmp_path / "none.safetensors", plan, generator=generator))


# for other programs


def test_the_exported_network_mixes_the_domains_looks_of_a_seed(weights_file: str, photo: Floats) -> None:
    exported = networks.load("starganv2", settings={"weights": weights_file, "seed": 3})
    content, shares = exported.portable.inputs
    assert (content.name, list(shares.labels)) == ("content", ["summer", "winter", "été"])
    assert exported.facts()["atelier.seed"] == "3"

    def made(*weights: float) -> Floats:
        given = torch.from_numpy(photo).permute(2, 0, 1)[None], torch.tensor([weights])
        with torch.inference_mode():
            return exported.portable.module()(*given)[0].permute(1, 2, 0).numpy()

    looks = [painted(photo, weights_file, seed=3, domain=name) for name in shares.labels]
    for weights, look in zip(np.eye(3).tolist(), looks, strict=True):
        np.testing.assert_allclose(made(*weights), look, atol=1e-5)
    assert all(differ(made(0.5, 0.5, 0), look) for look in looks)


def test_a_domain_or_a_reference_becomes_part_of_the_exported_network(
    weights_file: str, photo: Floats, painting: Floats
) -> None:
    content = torch.from_numpy(photo).permute(2, 0, 1)[None]
    settings = {"weights": weights_file, "domain": "winter", "seed": 4}
    for style in (None, painting):
        exported = networks.load("starganv2", style, size=max(photo.shape), settings=settings)
        assert [one.name for one in exported.portable.inputs] == ["content"]
        with torch.inference_mode():
            made = exported.portable.module()(content)[0].permute(1, 2, 0).numpy()
        wanted = painted(photo, weights_file, style, domain="winter", seed=4)
        np.testing.assert_allclose(made, wanted, atol=1e-5)
    with pytest.raises(UsageError, match="has no domain 'spring'"):
        networks.load("starganv2", settings=settings | {"domain": "spring"})


def test_networks_of_faces_are_not_exported(tmp_path: Path) -> None:
    plan = Plan(side=32, width=4, widest=8, style=4, latent=4, hidden=8, edges=True)
    path = written(tmp_path / "faces.safetensors", plan, fan=Faces())
    with pytest.raises(UsageError, match="landmarks of a face, which cannot be exported"):
        networks.load("starganv2", settings={"weights": path})


# errors


def test_an_unknown_domain_is_an_error(weights_file: str, photo: Floats) -> None:
    with pytest.raises(
        UsageError, match=r"has no domain 'wintr': did you mean 'winter'\? .*summer, winter, été"
    ):
        painted(photo, weights_file, domain="wintr")


def test_another_networks_file_is_an_error(photo: Floats, tiny_encoder: Path) -> None:
    with pytest.raises(WeightsError, match="are not those of StarGAN v2's generator, mapping network and"):
        painted(photo, str(tiny_encoder))


def test_absent_weights_say_how_to_get_them(photo: Floats) -> None:
    with pytest.raises(WeightsError, match=r"atelier weights pull starganv2\.afhq"):
        stylize(photo, method="starganv2", device="cpu")
    assert "NC" in record("starganv2.celeba_hq").licence


def test_a_crop_that_is_no_power_of_two_is_an_error(coloured: Any) -> None:
    with pytest.raises(TrainingError, match=r"crop = 48 is not a power of 2, .*: use 32 or 64"):
        task(coloured(10, 16), crop=48).networks()


# the training


def task(folders: Mapping[str, Path], **more: Any) -> MethodTask:
    small = {
        "width": 4,
        "widest": 8,
        "style": 4,
        "latent": 4,
        "hidden": 8,
        "crop": 16,
        "steps": 4,
        "batch": 2,
    }
    often = {"half": False, "device": "cpu", "evaluate_every": 10_000, "save_every": 10_000, "held_back": 2}
    domains = tuple(f"{name}={path}" for name, path in folders.items())
    return MethodTask(StarGanV2, settings_of(StarGanV2)(domain=domains, **(small | often | more)))


def test_a_resumed_run_is_bit_identical(coloured: Any, run_of: Any, everything: Any, tmp_path: Path) -> None:
    """The running averages of three networks and the optimisers of four included."""
    folders = coloured(10, 16)
    whole = everything(run_of(task(folders), tmp_path / "whole"))
    assert run_of(task(folders), tmp_path / "parts", steps=2).step == 2
    torch.manual_seed(99)
    again = everything(run_of(task(folders), tmp_path / "parts"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    averages = [name for name in whole if "/averages/" in name and name.endswith("module.from_rgb.weight")]
    assert len(averages) == 1
    assert not any(
        torch.equal(whole[averages[0]], one) for name, one in whole.items() if "/networks/" in name
    )


def test_what_it_writes_is_laid_out_as_published(coloured: Any, run_of: Any, tmp_path: Path) -> None:
    run = run_of(task(coloured(10, 16), steps=1), tmp_path / "run")
    assert run.judge().keys() == {"judged_cycle", "judged_loss"}
    run.export(tmp_path / "made.safetensors")
    state = load_file(tmp_path / "made.safetensors")
    assert {name.split(".")[0] for name in state} == set(LEARNERS)
    assert from_state(state).generator.domains == ("red", "green", "blue")


@pytest.mark.slow  # the network of landmarks has one size
def test_training_on_faces(coloured: Any, run_of: Any, tmp_path: Path, photo: Floats) -> None:
    """The network of landmarks does not learn, and is written with the others, which need it."""
    torch.manual_seed(0)
    torch.save({"state_dict": Faces().state_dict()}, tmp_path / "wing.ckpt")
    small = task(coloured(10, 16), crop=32, steps=1, faces=str(tmp_path / "wing.ckpt"))
    run = run_of(small, tmp_path / "run")
    run.export(tmp_path / "made.safetensors")
    written = load_file(tmp_path / "made.safetensors")
    for name, value in Faces.from_state(load(tmp_path / "wing.ckpt")).state_dict().items():
        assert torch.equal(written[f"fan.{name}"], value.half() if value.is_floating_point() else value)
    assert painted(photo, str(tmp_path / "made.safetensors"), domain="blue").shape == photo.shape


def test_references_are_of_the_wanted_domain(coloured: Any, shapes: Any) -> None:
    one = task(coloured(10, 16), batch=12)
    place = SimpleNamespace(count=1, index=0, device=torch.device("cpu"), mean=None)
    (batch,) = next(iter(one.batches(0, place)))
    assert batch["references"].shape == (12, 2, 3, 16, 16)
    assert torch.equal(shapes.named(batch["pictures"]), batch["domain"])
    for index in (0, 1):
        assert torch.equal(shapes.named(batch["references"][:, index]), batch["wanted"])
    assert str(one) == "8 red, 8 green, 8 blue; 6 held out for evaluation"


def test_who_learns_from_what(coloured: Any) -> None:
    """The critic twice, then all three from random styles, and the generator alone from references."""
    one = task(coloured(10, 16))
    networks = one.networks()
    place = SimpleNamespace(count=1, index=0, device=torch.device("cpu"), mean=None)
    (batch,) = next(iter(one.batches(0, place)))
    updates = list(one.updates(networks, batch, {}))
    assert [update.optimiser for update in updates] == ["critic", "critic", LEARNERS, ("generator",)]
    assert list(updates[2].terms) == ["made", "style", "diversity", "cycle"]


def painter(run: Run, shapes: Any, side: int, *, by_reference: bool) -> Callable[[Tensor, str], Tensor]:
    """Translates pictures by references of the domain, or by random styles."""
    networks = {name: run.judged[name].eval() for name in LEARNERS}

    def painted(pictures: Tensor, name: str) -> Tensor:
        count, domains = len(pictures), networks["generator"].domains
        domain = torch.full((count,), domains.index(name))
        if by_reference:
            references, _ = shapes.drawn(count, side, name, 55)
            style = networks["style_encoder"](2 * references - 1, domain)
        else:
            style = networks["mapping_network"](random_latents(count, 4, seed=3), domain)
        return networks["generator"].paint(pictures, style)

    return painted


LEARNING = {"batch": 4, "zoom": 1.0, "held_back": 0, "mapping_rate": 0.1, "cycle_weight": 5.0}


def test_pictures_take_the_colour_of_the_reference(
    coloured: Any, shapes: Any, run_of: Any, tmp_path: Path
) -> None:
    """The small sibling of the next test. By chance, a third would have the right colour."""
    more = {"width": 6, "widest": 12, "hidden": 16, "diversity_weight": 0.0, "average": 0.9}
    more |= {"cooldown": 0.5, "learning_rate": 4e-3, "steps": 45}
    run = run_of(task(coloured(60, 16), **LEARNING, **more), tmp_path / "run")
    assert shapes.coloured(painter(run, shapes, 16, by_reference=True), 16) >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pictures_take_the_colour_and_keep_the_shape(
    coloured: Any, shapes: Any, run_of: Any, tmp_path: Path
) -> None:
    """By references and by random styles. Colours need a tenth of the steps, shapes all of them."""
    more = {"width": 8, "widest": 16, "style": 8, "hidden": 16, "diversity_steps": 100, "average": 0.99}
    more |= {"crop": 32, "cooldown": 0.5, "learning_rate": 2e-3, "steps": 1500}
    run = run_of(task(coloured(200, 32), **LEARNING, **more), tmp_path / "run")
    for by_reference in (True, False):
        found = shapes.accuracy(painter(run, shapes, 32, by_reference=by_reference), 32)
        assert min(found) >= 0.9, (by_reference, found)
