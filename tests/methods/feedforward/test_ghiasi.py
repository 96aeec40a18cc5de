"""Ghiasi: style vectors are mixed, interpolated, saved and reused, with both predictors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier import InputError, Picture, UsageError, WeightsError, features, stylize
from atelier.core.knobs import parse
from atelier.images import write
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward.ghiasi import Ghiasi, StyleNetwork, save_vector
from atelier.networks.conditional import Arbitrary
from atelier.networks.inception import Trunk
from atelier.store import records

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
CPU = torch.device("cpu")


def lively(network: Arbitrary) -> dict[str, torch.Tensor]:
    """Its state dict, with a style that changes much from picture to picture."""
    with torch.no_grad():
        network.scale.weight.mul_(8)
        network.shift.weight.mul_(8)
    return {name: value.contiguous() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> str:
    from atelier.networks.conditional import load_arbitrary

    path = tmp_path_factory.mktemp("ghiasi") / "slim.safetensors"
    save_file(lively(load_arbitrary(Ghiasi.tiny()["weights"])), path)
    return str(path)


@pytest.fixture(scope="module")
def with_inception(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ghiasi") / "inception.safetensors"
    torch.manual_seed(0)
    save_file(lively(Arbitrary(Trunk(thin=16), vector=8, widths=(8, 8, 16), blocks=1)), path)
    return str(path)


@pytest.fixture
def make(photo: Floats, painting: Floats, slim: str, tiny_encoder: Path) -> Make:
    def call(content: Any = photo, style: Any = painting, **settings: Any) -> Picture:
        few = {"weights": slim, "encoder": str(tiny_encoder), "device": "cpu", "half": False}
        return stylize(content, style, method="ghiasi", **few | settings)

    return call


# several styles


def test_the_style_changes_the_result(make: Make, painting: Floats) -> None:
    assert np.abs(make().pixels - make(style=painting[::2, ::2] ** 3).pixels).mean() > 0.01


def test_two_equal_styles_equal_one(make: Make, painting: Floats) -> None:
    alone = make()
    for shares in ((1, 1), (1, 3), (0.2, 0.7)):
        twice = make(style=[painting, painting], style_weights=shares)
        assert np.abs(alone.pixels - twice.pixels).max() < 1e-5
    assert np.array_equal(make(style=[painting, 1 - painting], style_weights=(1, 0)).pixels, alone.pixels)


def test_styles_are_mixed_as_vectors(make: Make, painting: Floats) -> None:
    first, second = make(), make(style=1 - painting)
    both = make(style=[painting, 1 - painting])
    assert np.abs(both.pixels - (first.pixels + second.pixels) / 2).max() > 1e-3
    assert np.abs(both.pixels - first.pixels).max() > 1e-3


# strength


def test_strength_0_is_the_photo(make: Make, photo: Floats) -> None:
    assert np.array_equal(make(strength=0).pixels, photo)


def test_strength_interpolates_between_photo_and_style(make: Make, photo: Floats) -> None:
    far = [np.abs(make(strength=strength).pixels - photo).mean() for strength in (1e-4, 0.25, 1)]
    assert far[0] < 1e-3
    assert far[0] < far[1] < far[2]


def test_without_restoring_it_leads_to_the_photo_in_its_own_style(make: Make, photo: Floats) -> None:
    own = make(style=photo)
    near = make(strength=1e-4, restore=False)
    assert np.abs(own.pixels - near.pixels).max() < 1e-3
    assert np.abs(own.pixels - photo).mean() > 0.01


def test_a_photo_in_its_own_style_is_the_same_at_any_strength(make: Make, photo: Floats) -> None:
    made = [make(style=photo, strength=strength, restore=False).pixels for strength in (0.3, 1)]
    assert np.abs(made[0] - made[1]).max() < 1e-4


# kept vectors


@pytest.mark.parametrize("shares", [(), (1, 3)])
def test_a_saved_vector_gives_the_same_picture(
    make: Make, painting: Floats, slim: str, tiny_encoder: Path, tmp_path: Path, shares: Any
) -> None:
    styles = [painting, painting[::-1].copy()] if shares else painting
    path = tmp_path / "kept.safetensors"
    save_vector(styles, path, style_weights=shares, size=56, weights=slim, encoder=str(tiny_encoder))
    fresh = make(style=styles, style_weights=shares)
    kept = make(style=1 - painting, style_vector=str(path))
    assert np.array_equal(fresh.pixels, kept.pixels)
    assert kept.recipe is not None
    assert set(kept.recipe["weights"]) == {Path(one).name for one in (slim, tiny_encoder, path)}


def test_a_vector_of_another_network_is_an_error(
    make: Make, painting: Floats, with_inception: str, tmp_path: Path
) -> None:
    path = tmp_path / "kept.safetensors"
    save_vector(painting, path, size=56, weights=with_inception)
    with pytest.raises(WeightsError, match="was made with a different network than"):
        make(style_vector=str(path))


@pytest.mark.parametrize("state", [{"style_vector": torch.ones(1, 3)}, {"other": torch.ones(1, 8)}])
def test_a_file_without_a_vector_is_an_error(make: Make, tmp_path: Path, state: Any) -> None:
    path = tmp_path / "kept.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match="has no style vector of 8 numbers"):
        make(style_vector=str(path))


def test_invalid_style_weights_are_an_error(painting: Floats, slim: str, tmp_path: Path) -> None:
    for shares in ((1, 2), (-1,), (0,)):
        with pytest.raises(UsageError, match="one weight for each of the 1 styles"):
            save_vector(painting, tmp_path / "x.safetensors", style_weights=shares, weights=slim)
    with pytest.raises(InputError):
        save_vector(tmp_path / "gone.png", tmp_path / "x.safetensors", weights=slim)
    assert list(tmp_path.iterdir()) == []


def test_style_vectors_are_computed_once(
    make: Make,
    painting: Floats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slim: str,
    tiny_encoder: Path,
) -> None:
    """A style file keeps the vector; with it the style is not looked at again."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "first"))
    knobs = {"weights": slim, "encoder": str(tiny_encoder), "half": False, "device": "cpu"}
    path = tmp_path / "style.safetensors"
    write(Picture.of(painting), tmp_path / "painting.png")
    atelier.api.save_style(tmp_path / "painting.png", path, method="ghiasi", size=56, **knobs)
    expected = make(style=tmp_path / "painting.png").pixels
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "second"))
    monkeypatch.setattr(
        StyleNetwork, "vector", lambda self, picture, seen=None: pytest.fail("it was looked at again")
    )
    assert np.array_equal(make(style=path).pixels, expected)


# any picture


@pytest.mark.parametrize("predictor", ["slim", "with_inception"])
@pytest.mark.parametrize(
    ("shape", "style"),
    [((17, 400), (30, 30)), ((1, 1), (1, 1)), ((5, 3), (2, 90)), ((40, 41), (1, 1)), ((33, 18), (44, 7))],
)
def test_odd_and_extreme_sizes(
    make: Make, request: pytest.FixtureRequest, predictor: str, shape: tuple[int, int], style: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    content, painting = (rng.random((*size, 3), dtype=np.float32) for size in (shape, style))
    for strength in (1, 0.5):
        made = make(content, painting, weights=request.getfixturevalue(predictor), strength=strength)
        assert made.pixels.shape == content.shape
        assert np.isfinite(made.pixels).all()


def test_a_long_strip(make: Make) -> None:
    content = np.random.default_rng(0).random((64, 4096, 3), dtype=np.float32)
    # The style as large as the content, which is the rule, would take its time.
    made = make(content, size=4096, style_scale=0.02)
    assert made.size == (4096, 64)
    assert made.pixels.std() > 0


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("predictor", ["slim", "with_inception"])
def test_flat_pictures(make: Make, request: pytest.FixtureRequest, predictor: str, half: bool) -> None:
    black, grey, white = (np.full((48, 48, 3), shade, np.float32) for shade in (0, 0.437, 1))
    for content, style in ((black, white), (white, black), (grey, grey), (grey, white)):
        made = make(content, style, weights=request.getfixturevalue(predictor), half=half).pixels
        assert np.isfinite(made).all()
        # Nothing is there to be painted: no pattern may be made of rounding.
        assert np.ptp(made, axis=(0, 1)).max() < 2 / 255


def test_small_styles_are_mirrored_and_not_stretched(
    slim: str, with_inception: str, tiny_encoder: Path
) -> None:
    knobs = parse(Ghiasi.Knobs, {"weights": with_inception})
    painter = StyleNetwork(knobs, CPU, torch.float32)
    torch.manual_seed(0)
    tile = torch.rand(1, 3, 30, 50)
    whole = torch.cat([tile, tile.flip(2)], 2)[:, :, :43]
    with torch.inference_mode():
        assert torch.equal(painter.vector(tile), painter.vector(whole))


# precision and weights


def test_half_precision_is_close(make: Make) -> None:
    exact, half = make(), make(half=True)
    assert np.abs(exact.pixels - half.pixels).mean() < 2 / 255


def test_replaced_weights_are_reloaded(make: Make, slim: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path, state = tmp_path / "mine.safetensors", load_file(slim)
    save_file(state, path)
    first = make(weights=str(path))
    state["scale.bias"] = state["scale.bias"] * 1.5
    save_file(state, path)
    assert not np.array_equal(make(weights=str(path)).pixels, first.pixels)


def test_the_recipe_names_what_was_used(
    make: Make, slim: str, with_inception: str, tiny_encoder: Path
) -> None:
    statistics, inception = make().recipe, make(weights=with_inception).recipe
    assert statistics is not None
    assert inception is not None
    assert set(statistics["weights"]) == {Path(slim).name, tiny_encoder.name}
    assert set(inception["weights"]) == {Path(with_inception).name}


def test_a_mismatched_encoder_is_an_error(make: Make) -> None:
    with pytest.raises(WeightsError, match=r"96 statistics, but encoder\.atelier has 960: use the encoder"):
        make(encoder="encoder.atelier")


def test_weights_of_another_network_are_an_error(make: Make, tiny_encoder: Path) -> None:
    with pytest.raises(WeightsError, match=r"tiny.safetensors: .* are not those of a network with cond"):
        make(weights=str(tiny_encoder))


def test_missing_weights_are_an_error(make: Make) -> None:
    with pytest.raises(WeightsError, match=r"atelier weights pull ghiasi\.published"):
        make(weights="ghiasi.published")


def test_published_records() -> None:
    record = records.record("ghiasi.published")
    assert record.licence.startswith("Apache-2.0")
    assert record.sources[0].endswith("/models/arbitrary_style_transfer.tar.gz")


# training


def batch(count: int = 2, side: int = 32, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    photos, paintings = (torch.rand(count, 3, side, side, generator=generator) for _ in range(2))
    return Batch.pairs(photos, paintings, seed, generator)


@pytest.mark.parametrize("predictor", ["statistics", "inception"])
def test_training_lowers_the_loss(tiny_encoder: Path, with_inception: str, predictor: str) -> None:
    # A whole Inception is large: the one trained on is a thin one, taken over.
    start = with_inception if predictor == "inception" else ""
    training = Ghiasi.Training(encoder=str(tiny_encoder), weights=start, vector=8, widths=(8, 8, 8), blocks=1)
    method = Ghiasi()
    torch.manual_seed(0)
    network = method.network(training).train()
    # Inception halves a picture often, and its batch norm needs more than one position.
    same = batch(side=32 if predictor == "statistics" else 64)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    found = []
    for _ in range(12):
        fresh = Batch.pairs(same.photos, same.paintings, 0, torch.Generator())
        terms = method.losses(network, fresh, training)
        assert terms.keys() == {"content", "style", "smoothness"}
        total = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        found.append(float(total.detach()))
    assert min(found[-3:]) < 0.9 * found[0]


def test_exported_weights_give_the_trained_picture(tiny_encoder: Path, tmp_path: Path) -> None:
    method = Ghiasi()
    training = Ghiasi.Training(encoder=str(tiny_encoder), vector=8, widths=(8, 8, 8), blocks=1)
    torch.manual_seed(0)
    network = method.network(training).train()
    method.losses(network, batch(), training)
    path = tmp_path / "trained.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    one = batch(1)
    job = Job(one.photos, [one.paintings], [1.0], CPU, torch.float32)
    made = method.transfer(job, Ghiasi.Knobs(weights=str(path), encoder=str(tiny_encoder)))
    judge = method._criterion(training, CPU)
    from atelier.methods.feedforward.ghiasi import statistics

    with torch.no_grad():
        expected = network.eval()(one.photos, statistics(judge.see(one.paintings)))
    assert (made - expected).abs().max() < 1e-5


def test_training_continues_from_weights(slim: str, tiny_encoder: Path) -> None:
    training = Ghiasi.Training(encoder=str(tiny_encoder), weights=slim, widths=(4, 4, 4))
    network = Ghiasi().network(training)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == {
        name: tuple(value.shape) for name, value in Ghiasi.tiny()["weights"].items()
    }
    assert all(value.requires_grad for value in network.parameters())


def test_part_of_the_batch_uses_the_photo_as_style(tiny_encoder: Path) -> None:
    method = Ghiasi()
    seen = {}

    class Painted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, photos: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
            seen["style"] = style
            return photos * self.weight

    for share in (0.0, 0.5, 1.0):
        many = batch(8)
        training = Ghiasi.Training(encoder=str(tiny_encoder), identity_share=share)
        again = torch.Generator()
        again.set_state(many.generator.get_state())
        terms = method.losses(Painted(), many, training)
        equal = (seen["style"] == many.photos).flatten(1).all(1)
        expected = torch.rand(8, generator=again) < share
        assert torch.equal(equal, expected)
        if share == 1:
            assert float(terms["style"].detach()) == pytest.approx(0, abs=1e-5)


def test_statistics_need_max_pooling(tiny_encoder: Path) -> None:
    with pytest.raises(UsageError, match="needs predictor = 'inception'"):
        Ghiasi().network(Ghiasi.Training(encoder=str(tiny_encoder), pooling="average"))


def test_tiny_weights_are_deterministic() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = Ghiasi.tiny()["weights"], Ghiasi.tiny()["weights"]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_hidden_borders_hardly_change_the_statistics() -> None:
    from atelier.losses.pastiche import STYLE
    from atelier.methods.feedforward.ghiasi import statistics

    encoder, alpha = features.VGG(features.TINY), torch.zeros(1, 1, 192, 256)
    alpha[..., 64:160, 96:224] = 1
    canvas = torch.rand((1, 3, 192, 256), generator=torch.Generator().manual_seed(0)) * alpha
    alone = statistics(encoder(canvas[..., 64:160, 96:224], STYLE))
    found = encoder(canvas, STYLE)
    apart = (statistics(found, alpha) - alone).abs().max()
    assert apart < (statistics(found) - alone).abs().max() / 4
