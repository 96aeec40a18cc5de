"""CAP-VSTNet with a tiny network: strength, statistics, regions, sizes, precision, and a step of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from atelier.core.errors import InputError, UsageError, WeightsError
from atelier.core.knobs import parse
from atelier.images import MAX_PIXELS, Picture, write
from atelier.maths.cholesky import gaussian
from atelier.maths.moments import mean_and_covariance
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward import cap_vstnet
from atelier.methods.feedforward.cap_vstnet import CapVstnet, Loaded
from atelier.networks.reversible import SLIM, TINY, Reversible
from atelier.session.inputs import open_files
from atelier.store import records, weights
from atelier.store.models import MODELS


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    save_file(dict(CapVstnet.tiny()["weights"]), path)
    return path


@pytest.fixture(scope="session")
def coarse_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose features are not spread: 128 channels at a quarter of the size."""
    path = tmp_path_factory.mktemp("network") / "coarse.safetensors"
    state = Reversible(replace(TINY, hidden=64, spread=0)).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Soft shades with some grain, (1, 3, H, W) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, 4, 4), generator=generator)
    shades = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (shades + 0.05 * torch.randn(shades.shape, generator=generator)).clamp(0, 1)


def job(content: Tensor, *styles: Tensor, shares: tuple[float, ...] = (1.0,), **more: Any) -> Job:
    return Job(content, styles, shares, torch.device("cpu"), more.pop("dtype", torch.float32), **more)


def made(network_file: Path, some: Job, **knobs: Any) -> Tensor:
    chosen = parse(CapVstnet.Knobs, {"weights": str(network_file), **knobs})
    some.files = open_files(CapVstnet.Knobs, chosen, {}, MAX_PIXELS)
    return CapVstnet().picture(some, chosen)


@pytest.fixture
def loaded(network_file: Path) -> Loaded:
    name = str(network_file)
    MODELS.clear()
    return cap_vstnet._loaded(name, weights.fingerprint(name), "auto", torch.device("cpu"), torch.float32)


# strength and statistics


def test_strength_interpolates_from_the_photo(network_file: Path) -> None:
    content, style = picture(30, 41), picture(33, 20, seed=1)
    apart = [
        (made(network_file, job(content, style, strength=strength)) - content).abs().max().item()
        for strength in (0.0, 0.2, 0.6, 1.0)
    ]
    assert apart[0] < 1e-5
    assert apart == sorted(apart)
    assert apart[3] > 0.1


def test_the_photo_as_its_own_style_is_unchanged(network_file: Path) -> None:
    content = picture(30, 41)
    assert (made(network_file, job(content, content.clone())) - content).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(32, 40), (31, 42)])
def test_features_have_the_styles_mean_and_covariance(
    loaded: Loaded, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, style = picture(*size), picture(25, 38, seed=1)
    with torch.inference_mode():
        wanted = gaussian(loaded.features(style)[..., :25, :38])
        # What the way back starts from.
        monkeypatch.setattr(Reversible, "_inverse", lambda self, features: features)
        found = gaussian(cap_vstnet.stylised(loaded, job(content, style)))
    torch.testing.assert_close(found.mean, wanted.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.root, wanted.root, atol=1e-4, rtol=1e-4)


def test_styles_are_blended_by_their_shares(network_file: Path) -> None:
    content, one, two = picture(24, 24), picture(24, 24, seed=1), picture(20, 32, seed=2)
    alone = made(network_file, job(content, one))
    assert torch.equal(made(network_file, job(content, one, two, shares=(1.0, 0.0))), alone)
    both = made(network_file, job(content, one, two, shares=(0.5, 0.5)))
    torch.testing.assert_close(made(network_file, job(content, two, one, shares=(0.5, 0.5))), both)
    for end in (alone, made(network_file, job(content, two))):
        assert (both - end).abs().mean() > 0.01


def test_style_statistics_are_computed_once(
    network_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    plain = Reversible.forward

    def counted(self: Reversible, tensor: Tensor, *, inverse: bool = False) -> Tensor:
        sizes.append(tensor.shape[-1])
        return plain(self, tensor, inverse=inverse)

    monkeypatch.setattr(Reversible, "forward", counted)
    content, style = picture(16, 16), picture(16, 24, seed=71)
    before = made(network_file, job(content, style))
    assert sizes == [16, 24, 16]
    assert torch.equal(made(network_file, job(content, style.clone())), before)
    assert sizes[3:] == [16, 16]
    CapVstnet().look(job(content, picture(16, 24, seed=72)), CapVstnet.Knobs(weights=str(network_file)))
    assert sizes[5:] == [24]
    made(network_file, job(content, picture(16, 24, seed=72)))
    assert sizes[6:] == [16, 16]


# any picture


@pytest.mark.parametrize(
    ("content", "style"),
    [
        ((17, 400), (20, 30)),
        ((4096, 64), (33, 21)),
        ((1, 1), (1, 1)),
        ((20, 30), (1, 1)),
        ((2, 300), (300, 2)),
    ],
)
def test_odd_and_extreme_sizes(network_file: Path, content: tuple[int, int], style: tuple[int, int]) -> None:
    found = made(network_file, job(picture(*content), picture(*style, seed=1)))
    assert found.shape == (1, 3, *content)
    assert found.isfinite().all()
    assert 0 <= found.min() <= found.max() <= 1


def flat(*colour: float) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 30, 26).contiguous()


def test_flat_pictures(network_file: Path, coarse_file: Path) -> None:
    red, blue = flat(0.8, 0.2, 0.1), flat(0.1, 0.3, 0.9)
    assert (made(network_file, job(red, red.clone())) - red).abs().max() < 1e-5
    for pair in ((red, blue), (red, picture(30, 26)), (picture(30, 26), blue)):
        assert made(network_file, job(*pair)).isfinite().all()
    # Spread features of a flat picture have a pattern, which training takes away; these have none.
    assert (made(coarse_file, job(red, blue)) - blue).abs().max() < 1e-3
    assert (made(coarse_file, job(picture(30, 26), blue)) - blue).abs().mean() < 0.05
    assert (made(coarse_file, job(red, picture(30, 26))).std((2, 3)) < 0.05).all()


# precision


def test_bfloat16_is_used_only_if_the_trial_passes(
    network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, style = picture(24, 24), picture(24, 24, seed=1)

    def run(limit: float) -> Tensor:
        MODELS.clear()
        monkeypatch.setattr(cap_vstnet, "_HARM", limit)
        return made(network_file, job(content, style, dtype=torch.bfloat16))

    exact = made(network_file, job(content, style))
    assert torch.equal(run(0.0), exact)
    rounded = run(1.0)
    assert 0 < (rounded - exact).abs().max() < 0.05
    assert torch.equal(made(network_file, job(content, style, dtype=torch.bfloat16), half=False), exact)
    MODELS.clear()


def test_harm_measures_the_rounding_error() -> None:
    network, half = Reversible(TINY), Reversible(TINY).prepare("cpu", torch.bfloat16)
    assert cap_vstnet.harm(network, network) == 0
    assert 0 < cap_vstnet.harm(network, half) < 1e-3


# regions


def halves(path: Path, height: int, width: int, colours: Any, *, kind: str = "RGB") -> str:
    """A label map in a PNG: the left half of one colour, the right half of another."""
    from PIL import Image

    image = Image.new(kind, (width, height), colours[0])
    image.paste(colours[1], (width // 2, 0, width, height))
    image.save(path)
    return str(path)


def test_regions_take_their_own_style(coarse_file: Path, tmp_path: Path) -> None:
    content, style = picture(40, 48), torch.cat([flat(0.1, 0.2, 0.8), flat(0.9, 0.7, 0.1)], 3)
    green, grey = (0, 128, 0), (7, 7, 7)
    maps = {
        "content_labels": halves(tmp_path / "content.png", 80, 96, (green, grey)),
        # The other way round: colours and not places belong together.
        "style_labels": (halves(tmp_path / "style.png", 30, 52, (grey, green)),),
    }
    found = made(coarse_file, job(content, style), **maps)
    assert (found[..., :18] - flat(0.9, 0.7, 0.1)[..., :1, :1]).abs().median() < 0.05
    assert (found[..., 30:] - flat(0.1, 0.2, 0.8)[..., :1, :1]).abs().median() < 0.05
    assert (made(coarse_file, job(content, style, strength=0.0), **maps) - content).abs().max() < 1e-5


def test_regions_of_the_job_assign_the_styles(coarse_file: Path) -> None:
    content, dark, bright = picture(40, 48), flat(0.1, 0.1, 0.2), flat(0.9, 0.8, 0.9)
    shares = torch.zeros(2, 1, 40, 48)
    shares[0, ..., :24], shares[1, ..., 24:40] = 1, 1
    found = made(coarse_file, job(content, dark, bright, shares=(0.5, 0.5), regions=shares))
    assert (found[..., :20] - dark[..., :1, :1]).abs().median() < 0.05
    assert (found[..., 28:40] - bright[..., :1, :1]).abs().median() < 0.05
    assert (found[..., 46:] - content[..., 46:]).abs().mean() < 0.1


def test_regions_without_a_style_are_unchanged(network_file: Path, tmp_path: Path) -> None:
    content, style = picture(40, 48), picture(40, 48, seed=1)
    maps = {
        "content_labels": halves(tmp_path / "content.png", 40, 48, (1, 2), kind="L"),
        "style_labels": (halves(tmp_path / "style.png", 40, 48, (3, 4), kind="L"),),
    }
    assert (made(network_file, job(content, style), **maps) - content).abs().max() < 1e-5
    table = np.array([[0, 1, 2, 3, 4], [1, 3, 4, 1, 2], [2, 4, 3, 2, 1], [3, 2, 1, 4, 3], [4, 0, 0, 0, 0]])
    np.save(tmp_path / "affinity.npy", table)
    found = made(network_file, job(content, style), **maps, label_affinity=str(tmp_path / "affinity.npy"))
    assert (found - content).abs().mean() > 0.05


def test_each_style_has_its_own_regions(network_file: Path, tmp_path: Path) -> None:
    content, dark, bright = picture(40, 48), flat(0.1, 0.1, 0.2), flat(0.9, 0.8, 0.9)
    maps = {
        "content_labels": halves(tmp_path / "content.png", 40, 48, (1, 2), kind="L"),
        "style_labels": (
            halves(tmp_path / "dark.png", 30, 26, (1, 1), kind="L"),
            halves(tmp_path / "bright.png", 30, 26, (2, 2), kind="L"),
        ),
    }
    found = made(network_file, job(content, dark, bright, shares=(0.3, 0.7)), **maps)
    assert found[..., :18].mean() < 0.3
    assert found[..., 30:].mean() > 0.7


@pytest.mark.parametrize(
    ("knobs", "kind", "message"),
    [
        ({"content_labels": "map.png"}, UsageError, "each of the 1 styles: 0 were given"),
        ({"style_labels": ("map.png",)}, UsageError, "regions need content_labels"),
        ({"content_labels": "map.png", "regions": True}, UsageError, "cannot be combined with regions"),
        ({"content_labels": "gone.png", "style_labels": ("map.png",)}, InputError, "gone.png"),
        ({"label_affinity": "map.png"}, InputError, r"cannot be read as \.npy"),
        ({"label_affinity": "floats.npy"}, InputError, "not a square table of integers"),
        ({"label_affinity": "oblong.npy"}, InputError, "not a square table of integers"),
        ({"weights": "map.png"}, WeightsError, "map.png"),
    ],
)
def test_invalid_label_maps_are_errors(
    network_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    knobs: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    knobs = dict(knobs)
    write(Picture.of(np.zeros((6, 6, 3), np.float32)), Path("map.png"))
    np.save("floats.npy", np.zeros((3, 3)))
    np.save("oblong.npy", np.zeros((3, 4), int))
    regions = torch.ones(1, 1, 8, 8) if knobs.pop("regions", False) else None
    if "label_affinity" in knobs:
        knobs = {"content_labels": "map.png", "style_labels": ("map.png",), **knobs}
    with pytest.raises(kind, match=message) as caught:
        made(network_file, job(picture(8, 8), picture(8, 8), regions=regions), **knobs)
    assert "\n" not in str(caught.value)


def test_non_finite_weights_are_an_error(tmp_path: Path) -> None:
    state = {
        name: value * 1e30 if value.is_floating_point() else value
        for name, value in CapVstnet.tiny()["weights"].items()
    }
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="non-finite values"):
        made(tmp_path / "broken.safetensors", job(picture(8, 8), picture(8, 8)))


# training


def training(tiny_encoder: Path, **chosen: Any) -> Any:
    return parse(CapVstnet.Training, {"encoder": str(tiny_encoder), **chosen})


def batch(content: Tensor, style: Tensor, step: int = 0) -> Batch:
    return Batch.pairs(content, style, step, torch.Generator().manual_seed(step))


def test_trainable_networks(tiny_encoder: Path) -> None:
    torch.manual_seed(4)
    first = CapVstnet().network(training(tiny_encoder))
    torch.manual_seed(4)
    again = CapVstnet().network(training(tiny_encoder))
    assert isinstance(first, Reversible)
    assert first.plan == SLIM
    name = "stack.3.conv.1.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    with pytest.raises(UsageError, match="multiple of 4"):
        CapVstnet().network(training(tiny_encoder, crop=150))


def test_the_initial_network_is_a_colour_transfer(tiny_encoder: Path) -> None:
    content, style = picture(64, 48), picture(48, 64, seed=1) ** 2 * 0.5
    apart = []
    for gain in (0.0, 0.02):
        torch.manual_seed(4)
        network = CapVstnet().network(training(tiny_encoder, start_gain=gain))
        with torch.no_grad():
            made, again, _ = cap_vstnet.cycle(network, content, style)
        mean, covariance = (
            one[0] - other[0]
            for one, other in zip(mean_and_covariance(made), mean_and_covariance(style), strict=True)
        )
        apart.append(float(mean.abs().max() + covariance.abs().max()))
        assert (again - content).abs().mean() < 0.1
    assert apart[1] < 0.1 * apart[0]


def test_the_temporal_loss_starts_at_its_step(tiny_encoder: Path) -> None:
    method, network, chosen = CapVstnet(), Reversible(TINY), training(tiny_encoder, temporal_from=5)
    content, style = picture(32, 32), picture(32, 32, seed=1)
    before = method.losses(network, batch(content, style, 4), chosen)
    after = method.losses(network, batch(content, style, 5), chosen)
    assert before.keys() == {"style", "colour", "reconstruction", "matting"}
    assert after.keys() - before.keys() == {"temporal"}
    assert all(term.ndim == 0 and term.isfinite() for term in after.values())
    assert torch.equal(
        after["temporal"], method.losses(network, batch(content, style, 5), chosen)["temporal"]
    )


@pytest.mark.parametrize(
    ("content", "style"),
    [
        (flat(0.5, 0.5, 0.5)[..., :24, :24], picture(24, 24)),
        (picture(24, 24), flat(0, 0, 0)[..., :24, :24]),
        (flat(1, 1, 1)[..., :24, :24], flat(1, 1, 1)[..., :24, :24]),
    ],
    ids=["flat content", "flat style", "both"],
)
def test_flat_pictures_do_not_break_a_step(tiny_encoder: Path, content: Tensor, style: Tensor) -> None:
    network = Reversible(TINY)
    both = [torch.cat([one, picture(24, 24, seed=7)]) for one in (content, style)]
    terms = CapVstnet().losses(network, batch(*both), training(tiny_encoder, temporal_from=0))
    torch.stack(list(terms.values())).sum().backward()
    norms = [weight.grad.norm() for weight in network.parameters() if weight.grad is not None]
    assert len(norms) == len(list(network.parameters()))
    assert torch.stack(norms).isfinite().all()
    assert torch.stack(norms).max() < 1e5


def test_steps_lower_the_losses(tiny_encoder: Path) -> None:
    method, network, chosen = CapVstnet(), Reversible(TINY, seed=2), training(tiny_encoder)
    content, style = picture(24, 24), picture(24, 24, seed=1)
    optimiser, sums = torch.optim.Adam(network.parameters(), lr=2e-3), []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            terms = method.losses(network, batch(content, style), chosen)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        sums.append({name: term.item() for name, term in terms.items()})
    assert sum(sums[-1].values()) < 0.9 * sum(sums[0].values())
    assert sums[-1]["style"] < sums[0]["style"]


def test_published_records() -> None:
    for tag, file in (("photo", "photo_image.pt"), ("art", "art_image.pt"), ("art-video", "art_video.pt")):
        assert records.record(f"cap_vstnet.{tag}").file == file
    assert "atelier train cap-vstnet" in records.record("cap_vstnet.atelier").note
