"""WCT: levels, strength, styles, unusual pictures, and training of the decoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from atelier import Picture, UsageError, WeightsError, stylize
from atelier.core.knobs import parse
from atelier.core.progress import Event
from atelier.maths.moments import mean_and_covariance
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward.wct import WCT, Levels
from atelier.methods.registry import find, knobs_for
from atelier.networks.decoder import levels_from_state

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, str]:
    """The knobs that name a tiny encoder and its decoders."""
    path = tmp_path_factory.mktemp("wct") / "wct.safetensors"
    save_file(dict(WCT.tiny()["weights"]), path)
    return {"encoder": str(tiny_encoder), "weights": str(path)}


@pytest.fixture
def make(photo: Floats, painting: Floats, files: dict[str, str]) -> Make:
    def call(content: Any = photo, style: Any = painting, **more: Any) -> Picture:
        return stylize(content, style, method="wct", **files | {"device": "cpu", "half": False} | more)

    return call


def job(content: Tensor, *styles: Tensor, **more: Any) -> Job:
    shares = more.pop("shares", [1 / len(styles)] * len(styles))
    return Job(content, styles, shares, torch.device("cpu"), more.pop("dtype", torch.float32), **more)


def random(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


# the picture


def test_strength_0_is_the_photo_and_small_strength_is_close(make: Make, photo: Floats) -> None:
    assert np.array_equal(make(strength=0).pixels, photo)
    far = [np.abs(make(strength=strength).pixels - photo).max() for strength in (1e-3, 0.5, 1)]
    assert far[0] < 0.01 < far[1]
    assert np.abs(make(strength=1e-3, restore=False).pixels - photo).max() > 0.1


def test_alpha_scales_the_strength(make: Make) -> None:
    plain = {"restore": False, "colours": False, "bands": False}
    half = make(alpha=0.5, strength=1.0, **plain).pixels
    np.testing.assert_array_equal(half, make(alpha=1.0, strength=0.5, **plain).pixels)
    assert np.abs(half - make(alpha=1.0, strength=1.0, **plain).pixels).max() > 1e-4


def test_strength_0_of_a_level_is_the_decoders_reconstruction(files: dict[str, str]) -> None:
    levels = Levels(job(random(24, 32), random(16, 16)), parse(WCT.Knobs, files))
    content = random(24, 32)
    seen = levels.encoder(content, ["relu3_1"])
    torch.testing.assert_close(levels.step(content, 3, 0.0), levels.decoders.level(3)(seen))


@pytest.mark.parametrize("level", [3, 1])
def test_features_have_the_styles_mean_and_covariance(files: dict[str, str], level: int) -> None:
    # Without the ridge, and with more positions than channels, exactly; its share makes it less.
    content, style = random(96, 96), random(80, 112, seed=1)
    levels = Levels(job(content, style), parse(WCT.Knobs, files | {"ridge": 0.0}))
    found = mean_and_covariance(levels.transformed(levels.look(content, level), level, 1.0), unbiased=True)
    wanted = mean_and_covariance(levels.look(style, level), unbiased=True)
    # At the other levels the tiny random encoder has channels that are silent, and so cannot be woken.
    seen = torch.linalg.eigvalsh(mean_and_covariance(levels.look(content, level), unbiased=True)[1])
    assert seen.min() > 1e-6 * seen.max()
    torch.testing.assert_close(found[0], wanted[0], atol=1e-4, rtol=1e-3)
    assert (found[1] - wanted[1]).norm() < 1e-2 * wanted[1].norm()
    damped = Levels(job(content, style), parse(WCT.Knobs, files | {"ridge": 1.0}))
    less = damped.transformed(damped.look(content, level), level, 1.0)
    assert mean_and_covariance(less)[1].norm() < 0.9 * wanted[1].norm()


def test_styles_are_blended(make: Make, painting: Floats) -> None:
    one, other = painting, 1 - painting[::-1]
    alone = make(style=one).pixels
    np.testing.assert_allclose(make(style=[one, other], style_weights=(1, 0)).pixels, alone, atol=1e-5)
    half = make(style=[one, other]).pixels
    assert np.abs(half - alone).mean() > 1e-5


def test_style_statistics_are_computed_once(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    look = Levels._look

    def count(self: Levels, picture: Tensor, taps: Any) -> Any:
        calls.append(tuple(picture.shape[-2:]))
        return look(self, picture, taps)

    monkeypatch.setattr(Levels, "_look", count)
    WCT().transfer(job(random(24, 32), random(20, 20)), parse(WCT.Knobs, files))
    assert calls.count((20, 20)) == 1
    assert calls.count((24, 32)) == 5


@pytest.mark.parametrize("level", [4, 2, 1])
def test_bfloat16_is_close_to_float32(files: dict[str, str], level: int) -> None:
    # One level at a time: untrained decoders make pictures that are all but flat, rounding above all.
    knobs = parse(WCT.Knobs, files | {"levels": (level,), "alpha": 1.0, "colours": False, "bands": False})
    content, style = random(96, 128), random(80, 64, seed=1)
    plain, half = (
        WCT().transfer(job(content, style, dtype=dtype), knobs) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < (plain - half).abs().mean() < 0.05 * plain.std()


@pytest.mark.parametrize("size", [(17, 400), (64, 4096), (1, 1), (1, 20), (5, 3)])
@pytest.mark.parametrize("padding", ["replicate", "reflect"])
def test_any_size(files: dict[str, str], size: tuple[int, int], padding: str) -> None:
    knobs = parse(WCT.Knobs, files | {"padding": padding})
    found = WCT().transfer(job(random(*size), random(1, 1)), knobs)
    assert found.shape == (1, 3, *size)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_flat_pictures(files: dict[str, str], dtype: torch.dtype, ridge: float) -> None:
    flat, knobs = torch.full((1, 3, 40, 56), 0.3), parse(WCT.Knobs, files | {"ridge": ridge})
    found = WCT().transfer(job(flat, random(32, 32), dtype=dtype), knobs)
    assert (found.amax((2, 3)) - found.amin((2, 3))).max() < 0.02
    back = WCT().transfer(job(random(40, 56), flat, dtype=dtype), knobs)
    assert (back.amax((2, 3)) - back.amin((2, 3))).max() < 0.02


def test_each_level_reports_progress_and_can_stop(make: Make) -> None:
    events: list[Event] = []
    make(levels=(4, 2, 1), progress=events.append)
    assert [(event.done, event.total, event.stage) for event in events] == [
        (1, 3, "level 4"),
        (2, 3, "level 2"),
        (3, 3, "level 1"),
    ]
    stopped = make(levels=(4, 2, 1), progress=lambda event: False)
    np.testing.assert_array_equal(stopped.pixels, make(levels=(4,)).pixels)


def test_levels_are_by_default_those_of_the_decoders(
    make: Make, files: dict[str, str], tmp_path: Path
) -> None:
    two = {name: part for name, part in WCT.tiny()["weights"].items() if name[:6] in ("level1", "level3")}
    save_file(two, tmp_path / "two.safetensors")
    found = make(weights=str(tmp_path / "two.safetensors")).pixels
    np.testing.assert_array_equal(found, make(levels=(3, 1)).pixels)


@pytest.mark.parametrize("levels", [(3, 3), (6,), (0,)])
def test_invalid_levels_are_errors(make: Make, levels: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="level"):
        make(levels=levels)


# weights


def test_decoders_that_do_not_fit_or_are_missing_are_an_error(
    photo: Floats, painting: Floats, tiny_encoder: Path
) -> None:
    with pytest.raises(WeightsError, match=r"the decoder needs 256 channels at relu4_1, but the encoder"):
        stylize(photo, painting, method="wct", encoder=str(tiny_encoder))
    with pytest.raises(WeightsError, match=r"wct\.published are not installed"):
        stylize(photo, painting, method="wct", quality="published")


def test_published_quality_takes_one_file() -> None:
    kind = find("wct")
    knobs = parse(kind.Knobs, knobs_for(kind, "published", {}))
    assert kind().weights(knobs) == ("wct.published",)


def test_weights_of_another_network_are_an_error(make: Make, files: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="not those of a set of decoders"):
        make(weights=files["encoder"])


# training


def test_training_learns_to_reconstruct(files: dict[str, str]) -> None:
    torch.manual_seed(0)
    method = WCT()
    training = parse(WCT.Training, {"encoder": files["encoder"], "levels": (2, 1)})
    network = method.network(training)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    course = []
    for _ in range(40):
        terms = method.losses(network, batch(), training)
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        course.append({name: float(term.detach()) for name, term in terms.items()})
    assert course[0].keys() == {"pixels", "features"}
    assert all(course[-1][name] < 0.5 * course[0][name] for name in course[0])
    assert levels_from_state(network.state_dict()).levels == (2, 1)


def test_decoders_can_have_fewer_convolutions(files: dict[str, str]) -> None:
    chosen = {"encoder": files["encoder"], "levels": (4, 2)}
    state = WCT().network(parse(WCT.Training, chosen | {"convs": (2, 1, 1)})).state_dict()
    layers = {name.removesuffix(".weight") for name in state if name.endswith("weight")}
    deep = {"conv4_1", "conv3_1", "conv2_1", "conv1_2", "conv1_1"}
    shallow = {"conv2_1", "conv1_2", "conv1_1"}
    assert layers == {f"level4.{name}" for name in deep} | {f"level2.{name}" for name in shallow}
    assert levels_from_state(state).levels == (4, 2)
    with pytest.raises(UsageError, match="needs the convolutions of 3 stages, 1 or more each: got 2, 0"):
        WCT().network(parse(WCT.Training, chosen | {"convs": (2, 0)}))


def test_published_losses_are_sums_of_squares(files: dict[str, str]) -> None:
    method = WCT()
    training = parse(
        WCT.Training,
        {"encoder": files["encoder"], "levels": (3,), "scale": "published", "feature_weight": 2.0},
    )
    network = method.network(training)
    terms = method.losses(network, batch(), training)
    encoder = method._encoder(training, torch.device("cpu"))
    pictures = torch.cat([batch().photos, batch().paintings])
    seen = encoder(pictures, ["relu3_1"])
    made = network(seen)[3]
    apart = encoder(made, ["relu3_1"])["relu3_1"] - seen["relu3_1"]
    torch.testing.assert_close(terms["pixels"] * pictures.numel(), (made - pictures).square().sum())
    torch.testing.assert_close(terms["features"] * pictures.numel(), 2 * apart.square().sum())


def batch() -> Batch:
    photos, paintings = (torch.cat([random(16, 16, seed + n) for n in range(2)]) for seed in (0, 10))
    return Batch.pairs(photos, paintings, 0, torch.Generator())
