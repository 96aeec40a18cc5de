"""Styles in words, in the methods that match statistics: mixing, errors, receipts, defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import atelier
from atelier.core.errors import UsageError
from atelier.features.words import load
from atelier.images import Picture, write
from atelier.methods.base import Context, Styles
from atelier.methods.feedforward.adain import Adain
from atelier.methods.prepared import style_job
from atelier.store import weights

Floats = npt.NDArray[np.float32]

METHODS = ("adain", "gatys", "colour")
FEW: dict[str, dict[str, Any]] = {"gatys": {"iterations": 3, "coarse_iterations": 2, "smallest": 32}}


def made(photo: Floats, style: Any = None, *, method: str, text: Any = None, **settings: Any) -> Picture:
    options = {"device": "cpu", **FEW.get(method, {}), **settings}
    return atelier.stylize(photo, style, text=text, method=method, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_text_takes_a_style_pictures_place(photo: Floats, method: str) -> None:
    one, other = (made(photo, text=text, method=method).pixels for text in ("impressionism", "ink wash"))
    assert one.shape == photo.shape
    assert np.isfinite(one).all()
    assert np.abs(one - photo).mean() > 0.01
    assert np.abs(one - other).mean() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_strength_0_is_the_photo(photo: Floats, method: str) -> None:
    still = made(photo, text="cubism", method=method, strength=0)
    assert np.array_equal(still.pixels, photo)
    assert still.recipe is not None
    assert not still.recipe["weights"]
    assert still.recipe["reading"] == ""


@pytest.mark.parametrize("method", METHODS)
def test_weights_choose_among_pictures_and_texts(photo: Floats, painting: Floats, method: str) -> None:
    picture = made(photo, painting, method=method).pixels
    words = made(photo, text="ukiyo-e", method=method).pixels
    for weights_, alone in (((1, 0, 0), picture), ((0, 1, 0), words)):
        mixed = made(photo, painting, text=["ukiyo-e", "dark"], method=method, style_weights=weights_).pixels
        assert np.abs(mixed - alone).max() < 1e-4


def test_statistics_mix_linearly(painting: Floats) -> None:
    """AdaIN's target for several styles is the weighted sum of their targets."""
    context = Context(torch.device("cpu"), torch.float32, size=256)
    picture, knobs = Picture.of(painting).resized(256).tensor(), Adain.Knobs()

    def target(**styles: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return dict(Adain.seen(style_job(Styles(**styles), context), knobs).style)

    alone = target(pictures=[picture], weights=[1.0], seen=[None])
    one, other = (target(texts=[text], text_weights=[1.0]) for text in ("monet", "dark"))
    mixed = target(
        pictures=[picture], weights=[0.5], seen=[None], texts=["monet", "dark"], text_weights=[0.2, 0.3]
    )
    for tap, found in mixed.items():
        for part in (0, 1):
            expected = 0.5 * alone[tap][part] + 0.2 * one[tap][part] + 0.3 * other[tap][part]
            torch.testing.assert_close(found[part], expected)


def test_the_prediction_is_what_adain_matches() -> None:
    context = Context(torch.device("cpu"), torch.float32, size=256)
    job = style_job(Styles(texts=["monet"], text_weights=[1.0], scale=2.0), context)
    found = Adain.seen(job, Adain.Knobs()).style["relu4_1"]
    for one, expected in zip(
        found, load().predict("monet").gaussian("relu4_1", 512).deviations(), strict=True
    ):
        torch.testing.assert_close(one, expected)


def test_colours_are_those_of_the_words(photo: Floats) -> None:
    dark, light = (made(photo, text=text, method="colour").pixels.mean() for text in ("dark", "light"))
    assert dark < light - 0.2
    warm, cold = (
        made(photo, text=text, method="adain").pixels.mean((0, 1))
        for text in ("realism, warm", "realism, cold")
    )
    assert warm[0] - warm[2] > cold[0] - cold[2] + 0.05


def test_gatys_draws_nearer_to_the_predicted_statistics(photo: Floats) -> None:
    losses = []
    made(
        photo,
        text="pointillism",
        method="gatys",
        iterations=20,
        smallest=999,
        progress=lambda event: losses.append(event.losses["style"]),
    )
    assert min(losses[-3:]) < 0.6 * losses[0]


def test_regions_take_pictures_first_and_texts_then(photo: Floats, painting: Floats) -> None:
    left = np.zeros(photo.shape[:2], np.float32)
    left[:, :28] = 1
    options: dict[str, Any] = {"method": "adain", "feather": 0}
    both = made(photo, painting, text="dark", regions=[left, 1 - left], **options).pixels
    picture, words = made(photo, painting, **options).pixels, made(photo, text="dark", **options).pixels
    np.testing.assert_allclose(both[:, :28], picture[:, :28], atol=1e-5)
    np.testing.assert_allclose(both[:, 28:], words[:, 28:], atol=1e-5)
    with pytest.raises(UsageError, match="1 regions were given for 2 styles"):
        made(photo, painting, text="dark", regions=[left], **options)


# the receipt


@pytest.mark.parametrize("method", METHODS)
def test_the_receipt_says_what_read_the_words(photo: Floats, tmp_path: Path, method: str) -> None:
    result = made(photo, text=["a cubist painting, warm"], method=method)
    assert result.recipe is not None
    assert result.recipe["texts"] == [{"text": "a cubist painting, warm", "weight": 1.0}]
    assert result.recipe["weights"]["words.atelier"] == weights.fingerprint("words.atelier")
    assert result.recipe["reading"] == (
        "words were read by the closed vocabulary of words.atelier, not by CLIP: "
        "'a cubist painting, warm' as cubism, warm"
    )
    write(result, tmp_path / "out.png")
    again = atelier.replay(tmp_path / "out.png", content=photo)
    assert np.array_equal(again.pixels, result.pixels)
    assert again.recipe == result.recipe


def test_pictures_need_no_words(photo: Floats, painting: Floats) -> None:
    result = made(photo, painting, method="adain")
    assert result.recipe is not None
    assert "words.atelier" not in result.recipe["weights"]
    assert result.recipe["reading"] == ""


def test_another_model_is_named_in_the_receipt(photo: Floats, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(weights.locate("words.atelier").read_bytes())
    result = made(photo, text="cubism", method="colour", words=str(own))
    assert result.recipe is not None
    assert set(result.recipe["weights"]) == {"own.safetensors"}


# errors


@pytest.mark.parametrize("method", METHODS)
def test_unknown_words_fail_before_the_work(photo: Floats, method: str) -> None:
    events: list[Any] = []
    with pytest.raises(UsageError, match=r"the word 'cubsm' is not known .* did you mean 'cubism'\?"):
        made(photo, text="cubsm", method=method, progress=events.append)
    assert not events


def test_words_belong_to_their_encoder(photo: Floats, tiny_encoder: Path) -> None:
    with pytest.raises(UsageError, match="predicts the statistics of another encoder"):
        made(photo, text="cubism", method="gatys", encoder=str(tiny_encoder))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "adain", "recolour": True}, "recolour changes style pictures"),
        ({"method": "gatys", "start": "style"}, "start = 'style' needs a style picture"),
        ({"method": "gatys", "style_layers": ("conv1_1",)}, "no statistics at the layer 'conv1_1'"),
        ({"method": "nnst_d"}, "nnst_d does not take a style in words"),
    ],
)
def test_what_words_cannot_do_is_one_sentence(photo: Floats, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        made(photo, text="cubism", **settings)


# defaults


def test_words_choose_a_method_that_takes_them(painting: Floats) -> None:
    chosen = {
        quality: atelier.Stylizer(text="cubism", quality=quality, device="cpu").setup.kind.name
        for quality in ("draft", "good", "best")
    }
    assert chosen == {"draft": "adain", "good": "gatys", "best": "gatys"}
    both = atelier.Stylizer([painting, atelier.TextStyle("cubism")], device="cpu")
    assert both.setup.kind.name == "gatys"
    assert atelier.Stylizer(painting, device="cpu").setup.kind.name == "nnst_d"
