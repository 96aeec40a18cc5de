"""MicroAST: strength and styles, odd pictures, hidden places, and a training that learns and resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import Picture, TrainingError, WeightsError, features, stylize
from atelier.core.knobs import parse
from atelier.core.progress import Progress
from atelier.images import write
from atelier.losses import MomentLoss
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward.microast import MicroAst
from atelier.networks.microast import from_state
from atelier.store.records import record
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
CPU = torch.device("cpu")


def random(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def job(content: Tensor, *styles: Tensor, **more: Any) -> Job:
    shares = more.pop("shares", [1 / len(styles)] * len(styles))
    return Job(content, styles, shares, CPU, more.pop("dtype", torch.float32), **more)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("microast") / "tiny.safetensors"
    save_file(dict(MicroAst.tiny()["weights"]), path)
    return str(path)


@pytest.fixture
def make(photo: Floats, painting: Floats, file: str) -> Make:
    def call(content: Any = photo, style: Any = painting, **more: Any) -> Picture:
        settings = {"weights": file, "device": "cpu", "half": False} | more
        return stylize(content, style, method="microast", **settings)

    return call


# the picture


def test_strength_0_is_the_photo_and_near_0_is_near(make: Make, photo: Floats) -> None:
    assert np.array_equal(make(strength=0).pixels, photo)
    far = [np.abs(make(strength=strength).pixels - photo).max() for strength in (1e-3, 0.5, 1)]
    assert far[0] < 0.01 < far[1]
    assert np.abs(make(strength=1e-3, restore=False).pixels - photo).max() > 0.1


def test_as_published_strength_mixes_statistics_alone(file: str) -> None:
    content, style = random(24, 32), random(20, 28, seed=1)
    network = from_state(load_file(file)).requires_grad_(False)
    expected = network.paint(content, network.signals(style), strength=0.3).clamp(0, 1)
    knobs = parse(MicroAst.Knobs, MicroAst.qualities["published"] | {"weights": file})
    found = MicroAst().transfer(job(content, style, strength=0.3), knobs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_styles_are_blended(make: Make, painting: Floats) -> None:
    one, other = painting, 1 - painting[::-1]
    alone = make(style=one).pixels
    np.testing.assert_allclose(make(style=[one, other], style_weights=(1, 0)).pixels, alone, atol=1e-5)
    np.testing.assert_allclose(make(style=[one, one], style_weights=(1, 3)).pixels, alone, atol=1e-5)
    half = make(style=[one, other]).pixels
    assert 0 < np.abs(half - alone).mean() < np.abs(make(style=other).pixels - alone).mean()


def test_the_finished_picture_has_the_styles_colours(make: Make, painting: Floats) -> None:
    # Soft colours, so that few leave 0..1.
    soft = 0.5 + 0.3 * (painting - 0.5)
    for colours, bound in ((True, 0.01), (False, None)):
        found = make(style=soft, colours=colours).pixels
        apart = np.abs(found.mean((0, 1)) - soft.mean((0, 1))).max()
        assert apart < bound if bound else apart > 0.02


def test_hidden_places_of_the_photo_do_not_count(file: str) -> None:
    """A photo on a canvas: what is visible is painted as alone, but for the border of the convolutions."""
    photo, style, seen = random(128, 128), random(40, 40, seed=2), torch.zeros(1, 1, 128, 384)
    seen[..., 128:256] = 1
    canvas = torch.nn.functional.pad(photo, (128, 128, 0, 0))
    knobs = parse(MicroAst.Knobs, {"weights": file, "colours": False, "bands": False})
    alone = MicroAst().transfer(job(photo, style), knobs)[..., 48:-48]
    apart = [
        (MicroAst().transfer(job(canvas, style, content_seen=alpha), knobs)[..., 176:208] - alone)
        .abs()
        .mean()
        for alpha in (seen, None)
    ]
    assert apart[0] < apart[1] / 3


def test_bfloat16_is_unharmed(file: str) -> None:
    knobs, content, style = parse(MicroAst.Knobs, {"weights": file}), random(96, 128), random(80, 64, seed=1)
    plain, half = (
        MicroAst().transfer(job(content, style, dtype=dtype), knobs)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < (plain - half).abs().mean() < 0.05 * plain.std()


@pytest.mark.parametrize("size", [(17, 400), (64, 4096), (1, 1), (1, 20), (5, 3), (7, 9)])
def test_any_size(file: str, size: tuple[int, int]) -> None:
    found = MicroAst().transfer(job(random(*size), random(1, 1)), parse(MicroAst.Knobs, {"weights": file}))
    assert found.shape == (1, 3, *size)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flat_pictures(file: str, dtype: torch.dtype) -> None:
    flat, knobs = torch.full((1, 3, 40, 56), 0.3), parse(MicroAst.Knobs, {"weights": file})
    found = MicroAst().transfer(job(flat, random(32, 32), dtype=dtype), knobs)
    # bfloat16 rounds to a shade, and the style's detail amplifies it.
    assert (found.amax((2, 3)) - found.amin((2, 3))).max() < (0.02 if dtype == torch.float32 else 0.08)
    back = MicroAst().transfer(job(random(40, 56), flat, dtype=dtype), knobs)
    assert torch.isfinite(back).all()


# weights


def test_weights_that_are_not_here_or_of_another_network(
    make: Make, tiny_encoder: Path, photo: Floats, painting: Floats
) -> None:
    with pytest.raises(WeightsError, match=r"atelier weights pull microast\.published.*with its 4 files"):
        stylize(photo, painting, method="microast", quality="published", device="cpu")
    with pytest.raises(WeightsError, match=r"tiny\.safetensors: .* not those of MicroAST"):
        make(weights=str(tiny_encoder))


def test_its_record() -> None:
    known = record("microast.published")
    assert known.licence.startswith("MIT")
    assert known.size == 1_901_259
    for part in known.parts:
        assert part.sources[0].startswith("https://raw.githubusercontent.com/EndyWon/MicroAST/")
        assert part.sources[0].endswith(f"/models/{part.name}")


def test_weights_that_were_replaced_are_loaded_anew(make: Make, file: str, tmp_path: Path) -> None:
    path, state = tmp_path / "mine.safetensors", load_file(file)
    save_file(state, path)
    first = make(weights=str(path))
    state["modulator.bias2.bias"] = state["modulator.bias2.bias"] + 1
    save_file(state, path)
    assert not np.array_equal(make(weights=str(path)).pixels, first.pixels)


# training


def settings(tiny_encoder: Path, **more: Any) -> Any:
    return parse(MicroAst.Training, {"loss_encoder": str(tiny_encoder), "width": 4} | more)


def batch(size: int = 32) -> Batch:
    photos, paintings = (torch.cat([random(size, size, seed + n) for n in range(4)]) for seed in (0, 10))
    tints = torch.rand((4, 3, 1, 1), generator=torch.Generator().manual_seed(3))
    return Batch.pairs(photos, paintings * tints, 0, torch.Generator())


def test_training_learns(tiny_encoder: Path) -> None:
    torch.manual_seed(0)
    method, training = MicroAst(), settings(tiny_encoder)
    network = method.network(training)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    course = []
    for _ in range(30):
        terms = method.losses(network, batch(), training)
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        assert all(weight.grad is not None for weight in network.parameters())
        optimiser.step()
        course.append({name: float(term.detach()) for name, term in terms.items()})
    assert course[0].keys() == {"content", "style", "contrast", "identity", "smoothness", "overshoot"}
    for name in ("style", "contrast"):
        assert course[-1][name] < 0.6 * course[0][name], name


def test_the_losses_are_those_of_the_paper(tiny_encoder: Path) -> None:
    """As published: content at relu4_1, sums over the style's layers, and the contrast of the signals."""
    plain = {
        "scale": "published",
        "style_weight": 3.0,
        "identity_share": 0.0,
        "smoothness": 0.0,
        "overshoot": 0.0,
    }
    training = settings(tiny_encoder, **plain)
    torch.manual_seed(0)
    network, both = MicroAst().network(training), batch()
    terms = MicroAst().losses(network, both, training)
    assert terms.keys() == {"content", "style", "contrast"}
    encoder = features.load(str(tiny_encoder), padding="replicate")
    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    with torch.no_grad():
        picture, wanted, found = network(both.photos, both.paintings, signals=True)
        seen, style, content = (encoder(one, taps) for one in (picture, both.paintings, both.photos))
    moments = sum(MomentLoss(style[tap])(seen[tap]) for tap in taps)
    torch.testing.assert_close(terms["style"].detach(), 3 * moments, rtol=1e-4, atol=0)
    moved = (seen["relu4_1"] - content["relu4_1"]).square().mean()
    torch.testing.assert_close(terms["content"].detach(), moved, rtol=1e-4, atol=0)
    apart = sum(
        (one.flatten(1)[:, None] - other.flatten(1)[None]).square().mean(2)
        for ours, theirs in zip(found, wanted, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    )
    contrast = sum(apart[i, i] / (apart[i].sum() - apart[i, i]) for i in range(4))
    torch.testing.assert_close(terms["contrast"].detach(), 3 * contrast, rtol=1e-3, atol=0)


def test_without_contrast_and_with_crops_of_any_size_in_bfloat16(tiny_encoder: Path) -> None:
    training = settings(tiny_encoder, contrast_weight=0.0)
    network = MicroAst().network(training)
    assert "contrast" not in MicroAst().losses(network, batch(), training)
    training = settings(tiny_encoder)
    exact = MicroAst().losses(network, batch(29), training)
    with torch.autocast("cpu", torch.bfloat16):
        terms = MicroAst().losses(network, batch(29), training)
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())
    # The contrast divides what an untrained network makes of noise: it is left out.
    for name in exact.keys() - {"contrast"}:
        torch.testing.assert_close(terms[name].float(), exact[name], atol=1e-3, rtol=0.05)


def task(
    folder: Path, tiny_encoder: Path, photo: Floats, painting: Floats, steps: int, **more: Any
) -> MethodTask:
    for name, pictures in (("photos", (photo, photo[::-1])), ("paintings", (painting, painting[:, ::-1]))):
        (folder / name).mkdir(exist_ok=True)
        for index, one in enumerate(pictures):
            write(Picture.of(np.ascontiguousarray(one)), folder / name / f"{index}.png", overwrite=True)
    given = {name: (str(folder / name),) for name in ("photos", "paintings")}
    small = {"batch": 2, "crop": 32, "held_back": 0, "half": False, "device": "cpu", "warmup": 0, "width": 4}
    chosen = (
        given | small | {"steps": steps, "save_every": 2, "loss_encoder": str(tiny_encoder), "cooldown": 0}
    )
    return MethodTask(MicroAst, parse(settings_of(MicroAst), chosen | more))


def test_a_training_stops_and_resumes_to_the_bit(
    tmp_path: Path, tiny_encoder: Path, photo: Floats, painting: Floats
) -> None:
    pytest.importorskip("accelerate")
    found = []
    for parts in ((4,), (2, 4)):
        folder = tmp_path / str(len(parts))
        for until in parts:
            one = task(tmp_path, tiny_encoder, photo, painting, 4)
            run = Run(one, one.settings, folder)
            assert run.resume() == (until != parts[0])
            run.go(Progress(lambda event, until=until: event.done < until))
            assert run.step == until
        found.append({name: part.clone() for name, part in run.networks["network"].state_dict().items()})
    assert all(torch.equal(part, found[1][name]) for name, part in found[0].items())
    start = task(tmp_path, tiny_encoder, photo, painting, 4).networks()["network"].state_dict()
    assert any(not torch.equal(part.cpu(), found[0][name]) for name, part in start.items())


def test_training_starts_from_weights_of_the_published_layout(
    tmp_path: Path, tiny_encoder: Path, photo: Floats, painting: Floats, file: str
) -> None:
    pytest.importorskip("accelerate")
    given = (tmp_path, tiny_encoder, photo, painting, 4)
    network = task(*given, start=file).networks()["network"]
    assert all(torch.equal(part, load_file(file)[name]) for name, part in network.state_dict().items())
    assert all(part.requires_grad for part in network.parameters())
    with pytest.raises(TrainingError, match="does not hold a network of microast with these settings"):
        task(*given, start=file, width=8).networks()
    with pytest.raises(TrainingError, match="does not hold a network of microast with these settings"):
        task(*given, start=str(tiny_encoder)).networks()
