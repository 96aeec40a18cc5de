"""AdaIN: strength, styles, unusual pictures, and training."""

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

from atelier import Picture, UsageError, WeightsError, features, stylize
from atelier.core.knobs import parse
from atelier.core.progress import Event, Progress
from atelier.features.vgg import TINY, VGG
from atelier.losses import EdgeLoss, LatticeLoss, MomentLoss
from atelier.maths.moments import channel_moments
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward.adain import Adain
from atelier.networks.decoder import Decoder, DecoderPlan
from atelier.store.weights import load, record

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, str]:
    """The knobs that name a tiny encoder and a tiny decoder."""
    path = tmp_path_factory.mktemp("adain") / "adain.safetensors"
    save_file(dict(Adain.tiny()["weights"]), path)
    return {"encoder": str(tiny_encoder), "weights": str(path)}


@pytest.fixture
def make(photo: Floats, painting: Floats, files: dict[str, str]) -> Make:
    def call(content: Any = photo, style: Any = painting, **more: Any) -> Picture:
        return stylize(content, style, method="adain", **files | {"device": "cpu", "half": False} | more)

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


def test_restore_at_strength_0_returns_the_photo(files: dict[str, str]) -> None:
    # With nothing of the style, what is decoded and what is lost add up to the photo.
    content = random(24, 32)
    knobs = parse(Adain.Knobs, files)
    found = Adain().decoded(job(content, random(16, 16), strength=0.0), knobs)
    torch.testing.assert_close(found, content, atol=1e-5, rtol=1e-5)


def test_decoder_input_has_the_styles_moments(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Tensor] = {}

    def watch(self: Decoder, features: dict[str, Tensor]) -> Tensor:
        got.update({tap: features[tap] for tap in self.plan.taps})
        return torch.zeros(1, 3, 64, 64)

    monkeypatch.setattr(Decoder, "forward", watch)
    style = random(40, 56, seed=1)
    Adain().decoded(job(random(64, 48), style), parse(Adain.Knobs, files))
    encoder = VGG(TINY, padding="replicate", seed=3)
    assert got.keys() == {"relu4_1", "relu3_1", "relu2_1"}
    for tap, wanted in encoder(style, list(got)).items():
        found, target = (channel_moments(one, unbiased=True) for one in (got[tap], wanted))
        torch.testing.assert_close(found[0], target[0], atol=1e-4, rtol=1e-4)
        # A channel that is silent in the content has nothing to stretch.
        heard = channel_moments(encoder(random(64, 48), [tap])[tap], unbiased=True)[1] > 0.02
        torch.testing.assert_close(found[1][heard], target[1][heard], atol=1e-3, rtol=1e-3)


def test_styles_are_blended(make: Make, painting: Floats) -> None:
    one, other = painting, 1 - painting[::-1]
    alone = make(style=one).pixels
    np.testing.assert_allclose(make(style=[one, other], style_weights=(1, 0)).pixels, alone, atol=1e-5)
    half = make(style=[one, other]).pixels
    assert 0 < np.abs(half - alone).mean() < np.abs(make(style=other).pixels - alone).mean()


def test_bfloat16_is_close_to_float32(files: dict[str, str]) -> None:
    knobs, content, style = parse(Adain.Knobs, files), random(96, 128), random(80, 64, seed=1)
    plain, half = (
        Adain().transfer(job(content, style, dtype=dtype), knobs) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < (plain - half).abs().mean() < 0.03 * plain.std()


@pytest.mark.parametrize("size", [(17, 400), (64, 4096), (1, 1), (1, 20), (5, 3)])
@pytest.mark.parametrize("padding", ["replicate", "reflect"])
def test_any_size(files: dict[str, str], size: tuple[int, int], padding: str) -> None:
    knobs = parse(Adain.Knobs, files | {"padding": padding})
    found = Adain().transfer(job(random(*size), random(1, 1)), knobs)
    assert found.shape == (1, 3, *size)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_flat_photo_makes_a_flat_picture(files: dict[str, str], dtype: torch.dtype) -> None:
    flat = torch.full((1, 3, 40, 56), 0.3)
    found = Adain().transfer(job(flat, random(32, 32), dtype=dtype), parse(Adain.Knobs, files))
    assert (found.amax((2, 3)) - found.amin((2, 3))).max() < 0.02
    back = Adain().transfer(job(random(40, 56), flat, dtype=dtype), parse(Adain.Knobs, files))
    assert torch.isfinite(back).all()


def test_recolour_gives_the_style_the_photos_colours(make: Make, painting: Floats) -> None:
    grey = np.repeat(painting.mean(axis=2, keepdims=True), 3, axis=2)
    assert not np.array_equal(make(recolour=True).pixels, make().pixels)
    own = make(content=painting, style=painting, recolour=True).pixels
    np.testing.assert_allclose(own, make(content=painting, style=painting).pixels, atol=1e-3)
    assert np.isfinite(make(content=grey, recolour=True).pixels).all()


def test_one_progress_event_is_reported(make: Make, photo: Floats) -> None:
    events: list[Event] = []
    result = make(progress=events.append)
    assert [(event.done, event.total) for event in events] == [(1, 1)]
    assert events[0].preview is not None
    torch.testing.assert_close(events[0].preview(), result.tensor())


def test_a_stopping_listener_gets_the_picture(files: dict[str, str]) -> None:
    work = job(random(16, 16), random(16, 16), progress=Progress(lambda event: False))
    assert Adain().transfer(work, parse(Adain.Knobs, files)).shape == (1, 3, 16, 16)


# weights


def test_mismatched_weights_and_encoder_are_an_error(
    make: Make, files: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(Decoder(DecoderPlan((4, 4, 4, 4), (1, 1, 1, 1))).state_dict(), path)
    with pytest.raises(WeightsError, match=r"needs 4 channels at relu4_1, .* has 16"):
        make(weights=str(path))
    with pytest.raises(WeightsError, match="do not fit the decoder"):
        make(weights=files["encoder"])


def test_the_published_record_is_a_bare_decoder() -> None:
    known = record("adain.published")
    assert known.sources[0].endswith(known.file)
    with pytest.raises(WeightsError, match=r"atelier weights pull adain\.published"):
        load("adain.published")


# training


def settings(files: dict[str, str], **more: Any) -> Any:
    return parse(Adain.Training, {"encoder": files["encoder"]} | more)


def batch(size: int = 32) -> Batch:
    photos, paintings = (torch.cat([random(size, size, seed + n) for n in range(4)]) for seed in (0, 10))
    return Batch.pairs(photos, paintings, 0, torch.Generator())


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def test_training_lowers_the_loss(files: dict[str, str]) -> None:
    torch.manual_seed(0)
    method, training = Adain(), settings(files, skips=1, blocks=1)
    network = method.network(training)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    course = []
    for _ in range(25):
        terms = method.losses(network, batch(), training)
        optimiser.zero_grad()
        total(terms).backward()
        optimiser.step()
        course.append({name: float(term.detach()) for name, term in terms.items()})
    assert course[0].keys() == {"content", "style", "identity", "smoothness", "overshoot"}
    assert sum(course[-1].values()) < 0.6 * sum(course[0].values())
    assert course[-1]["identity"] < 0.8 * course[0]["identity"]


def test_a_decoder_that_gains_skip_connections_starts_as_it_was(files: dict[str, str]) -> None:
    few, more = (settings(files, skips=skips, blocks=1) for skips in (1, 3))
    plain, gained = Adain().network(few), Adain().network(more)
    Adain().start(gained, plain.state_dict())
    given = _given(files, more)
    assert given.keys() == {"relu4_1", "relu3_1", "relu2_1", "relu1_1"}
    assert torch.equal(gained(given), plain(given))
    with pytest.raises(RuntimeError, match="skip2"):
        Adain().start(Adain().network(few), gained.state_dict())


def test_the_loss_encoder_defaults_to_the_decoded_encoder(files: dict[str, str], tmp_path: Path) -> None:
    """A copy of the encoder under another name is loaded for itself, and must see the same."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(files["encoder"]).read_bytes())
    for more in ({"skips": 0, "blocks": 0}, {"skips": 1}, {"skips": 2, "scale": "published"}):
        plain = settings(files, **more)
        network = Adain().network(plain)
        expected = Adain().losses(network, batch(), plain)
        found = Adain().losses(network, batch(), settings(files, loss_encoder=str(copy), **more))
        assert expected.keys() == found.keys()
        for name, term in expected.items():
            assert torch.allclose(found[name], term, rtol=1e-5), name


def test_the_loss_encoder_changes_only_its_own_terms(files: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = VGG(TINY, seed=11).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    other = features.load(str(path), padding="replicate")
    chosen = settings(files, loss_encoder=str(path))
    network = Adain().network(chosen)
    plain, found = (Adain().losses(network, batch(), one) for one in (settings(files), chosen))
    assert not torch.allclose(found["style"], plain["style"])
    assert not torch.allclose(found["content"], plain["content"])
    # The picture is the same: it is decoded from the features of the same encoder.
    for name in ("identity", "smoothness", "overshoot"):
        assert torch.allclose(found[name], plain[name], rtol=1e-5), name
    with torch.no_grad():
        style = other(batch().paintings, ["relu1_1", "relu2_1", "relu3_1", "relu4_1"])
        picture = network(_given(files, chosen))
        seen = other(picture, list(style))
    # Eq. 13 of the paper, as a mean over the taps, relative to the style's.
    by_hand = torch.stack([MomentLoss(style[tap], relative=True)(seen[tap]) for tap in style]).mean()
    assert torch.allclose(found["style"].detach(), chosen.style_weight * by_hand, rtol=1e-4)


def _given(files: dict[str, str], chosen: Any, size: int = 32) -> dict[str, Tensor]:
    """The features that the decoder gets: the content's with the style's means and deviations."""
    encoder, both = features.load(files["encoder"], padding="replicate"), batch(size)
    content = torch.cat([both.paintings[:1], both.photos[1:]])
    taps = [f"relu{4 - index}_1" for index in range(1 + chosen.skips)]
    with torch.no_grad():
        seen, style = encoder(content, taps), encoder(both.paintings, taps)
    moved = {}
    for tap in taps:
        mean, std = style[tap].mean((2, 3), keepdim=True), style[tap].std((2, 3), keepdim=True)
        own, spread = seen[tap].mean((2, 3), keepdim=True), seen[tap].std((2, 3), keepdim=True)
        moved[tap] = (seen[tap] - own) / spread.clamp_min(1e-5) * std + mean
    return moved


def test_exported_weights_load_as_the_knob(files: dict[str, str], make: Make, tmp_path: Path) -> None:
    network = Adain().network(settings(files, skips=3, blocks=1))
    state = {name: part.half() for name, part in network.state_dict().items()}
    save_file(state, tmp_path / "mine.safetensors")
    assert make(weights=str(tmp_path / "mine.safetensors")).pixels.shape == (40, 56, 3)


def test_the_global_seed_determines_the_network(files: dict[str, str]) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(Adain().network(settings(files)).state_dict()["conv4_1.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_loss_weights_scale_their_terms(files: dict[str, str]) -> None:
    network = Adain().network(settings(files))
    plain = Adain().losses(network, batch(), settings(files, style_weight=1.0, content_weight=1.0))
    heavy = Adain().losses(network, batch(), settings(files, style_weight=3.0, content_weight=2.0))
    torch.testing.assert_close(heavy["style"], 3 * plain["style"])
    torch.testing.assert_close(heavy["content"], 2 * plain["content"])
    none = {"identity_share": 0.0, "smoothness": 0.0, "overshoot": 0.0}
    assert Adain().losses(network, batch(), settings(files, **none)).keys() == {"content", "style"}


def test_the_edges_of_the_content_are_held(files: dict[str, str]) -> None:
    chosen = settings(files, edge_weight=3.0)
    network, some = Adain().network(chosen), batch(64)
    with torch.no_grad():
        picture = network(_given(files, chosen, 64))
        term = Adain().losses(network, some, chosen)["edges"]
    content = torch.cat([some.paintings[:1], some.photos[1:]])
    torch.testing.assert_close(term, 3 * EdgeLoss(content)(picture), rtol=1e-3, atol=0)


def test_the_penalty_for_grids_has_the_period_of_the_coarsest_features(files: dict[str, str]) -> None:
    chosen = settings(files, lattice=2.0)
    network = Adain().network(chosen)
    term = Adain().losses(network, batch(64), chosen)["lattice"]
    with torch.no_grad():
        picture = network(_given(files, chosen, 64))
    torch.testing.assert_close(term.detach(), 2 * LatticeLoss(8)(picture))
    assert not torch.allclose(term.detach(), 2 * LatticeLoss(4)(picture), rtol=0.05)


def test_crops_of_any_size_and_bfloat16(files: dict[str, str]) -> None:
    network = Adain().network(settings(files))
    with torch.autocast("cpu", torch.bfloat16):
        terms = Adain().losses(network, batch(29), settings(files))
    total(terms).backward()
    assert all(torch.isfinite(part.grad).all() for part in network.parameters() if part.grad is not None)
    exact = Adain().losses(network, batch(29), settings(files))
    torch.testing.assert_close(total(terms), total(exact), atol=0, rtol=0.05)


def test_invalid_skips_are_errors(files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="skips"):
        settings(files, skips=4)
    with pytest.raises(UsageError, match="need a skip"):
        Adain().network(settings(files, skips=0, blocks=2))


def test_a_photo_that_is_seen_again_is_not_encoded_again_and_gives_the_same(
    files: dict[str, str], photo: Floats, painting: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atelier.methods.feedforward import adain
    from atelier.session.stylizer import Stylizer

    encoded = []
    forward = VGG.forward
    monkeypatch.setattr(
        VGG, "forward", lambda self, image, taps: encoded.append(image.shape) or forward(self, image, taps)
    )
    painter = Stylizer([painting], method="adain", **files)
    whole = painter(photo).pixels
    count = len(encoded)
    half = painter.adjusted(strength=0.5)(photo).pixels
    assert len(encoded) == count
    assert np.array_equal(painter(photo).pixels, whole)
    darker = painter(0.9 * photo).pixels
    assert len(encoded) == count + 1
    adain._LAST.clear()
    assert np.array_equal(painter.adjusted(strength=0.5)(photo).pixels, half)
    assert not np.array_equal(darker, whole)
