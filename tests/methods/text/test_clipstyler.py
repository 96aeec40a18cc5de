"""Styles in words by a tiny CLIP: `clipstyler`, its fast variant and `gatys`, from Python and the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import atelier
from atelier.apps import cli
from atelier.core.progress import Event
from atelier.images import Picture, write
from atelier.methods import guided
from atelier.methods.text import clipstyler

pytest.importorskip("transformers")
pytestmark = pytest.mark.xdist_group("transformers")

Floats = npt.NDArray[np.float32]


@pytest.fixture
def small(tiny_clip: Path, tiny_encoder: Path) -> dict[str, Any]:
    """Settings of `clipstyler` with which it takes a moment."""
    files = {"clip": str(tiny_clip), "encoder": str(tiny_encoder)}
    return {**files, "method": "clipstyler", "iterations": 3, "patches": 4, "device": "cpu"}


@pytest.fixture
def gatys(tiny_clip: Path, tiny_encoder: Path) -> dict[str, Any]:
    files = {"clip": str(tiny_clip), "encoder": str(tiny_encoder), "smallest": 64}
    return {**files, "method": "gatys", "iterations": 4, "device": "cpu", "half": False}


class Colours:
    """A tower that sees mean colours, and knows one word."""

    side = 16

    def image(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))

    def text(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([torch.tensor([1.0, 0, 0] if "red" in one else [1.0, 1, 1]) for one in prompts])


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "tower_of", lambda *_: Colours())


def redness(pixels: Floats) -> float:
    """How much red there is beyond the other colours."""
    red, green, blue = pixels.mean((0, 1))
    return float(red - (green + blue) / 2)


def made(photo: Floats, small: dict[str, Any], **more: Any) -> Floats:
    return atelier.stylize(photo, **small | more).pixels


def last_losses(photo: Floats, small: dict[str, Any], **more: Any) -> dict[str, float]:
    events: list[Event] = []
    made(photo, small | {"progress": events.append} | more)
    return dict(events[-1].losses)


# clipstyler


def test_words_are_followed(photo: Floats, small: dict[str, Any], colours: None) -> None:
    """A photo led towards red gets redder with training, beyond what the network's first picture is."""
    settings = {"iterations": 60, "learning_rate": 5e-3, "threshold": 0, "content_weight": 0}
    plain = {"contrast": 1, "stretch": False}
    first, last = (
        made(photo, small | settings | plain | {"iterations": count}, text="red") for count in (1, 60)
    )
    assert redness(last) > redness(first) + 0.1


def test_texts_have_weights(photo: Floats, small: dict[str, Any]) -> None:
    red, blue = (made(photo, small, text=text) for text in ("red", "blue"))
    assert not np.array_equal(red, blue)
    one = made(photo, small, text=["red", "blue"], style_weights=(1, 0))
    assert np.array_equal(one, red)
    both = made(photo, small, text=["red", "blue"], style_weights=(3, 1))
    styled = atelier.stylize(photo, [atelier.TextStyle("red", 3), atelier.TextStyle("blue", 1)], **small)
    assert np.array_equal(styled.pixels, both)
    assert not np.array_equal(both, red)
    assert styled.recipe is not None
    assert styled.recipe["texts"] == [{"text": "red", "weight": 0.75}, {"text": "blue", "weight": 0.25}]


def test_words_and_a_painting_lead_together(photo: Floats, painting: Floats, small: dict[str, Any]) -> None:
    words, picture = made(photo, small, text="red"), made(photo, small, style=painting)
    both = made(photo, small, text="red", style=painting)
    assert not np.array_equal(words, picture)
    assert not np.array_equal(both, words)
    assert not np.array_equal(both, picture)
    for weights, expected in (((1, 0), picture), ((0, 1), words)):
        assert np.array_equal(made(photo, small, text="red", style=painting, style_weights=weights), expected)


def test_a_photo_as_its_own_style_has_no_direction(photo: Floats, small: dict[str, Any]) -> None:
    losses = last_losses(photo, small, style=photo, direction_weight=1)
    assert losses["direction"] == pytest.approx(1, abs=1e-4)


def test_regions_take_words_and_paintings(photo: Floats, painting: Floats, small: dict[str, Any]) -> None:
    left = np.zeros(photo.shape[:2], np.float32)
    left[:, :28] = 1
    settings = small | {"regions": [left, 1 - left], "feather": 0}
    both = made(photo, settings, style=painting, text="red")
    # Each style has its own network, as alone.
    assert np.array_equal(both[:, :28], made(photo, small, style=painting)[:, :28])
    assert np.array_equal(both[:, 28:], made(photo, small, text="red")[:, 28:])
    with pytest.raises(atelier.UsageError, match="2 regions were given for 1 styles"):
        made(photo, settings, text="red")


def test_batches_change_memory_and_not_the_picture(photo: Floats, small: dict[str, Any]) -> None:
    one, many = (made(photo, small, text="red", batch=batch) for batch in (1, 64))
    assert np.abs(one - many).max() < 2e-3


def test_a_stop_returns_the_picture_so_far(photo: Floats, small: dict[str, Any]) -> None:
    previews: list[Tensor] = []

    def listen(event: Event) -> bool:
        assert event.preview is not None
        previews.append(event.preview())
        return event.done < 2

    stopped = atelier.stylize(photo, text="red", progress=listen, **small)
    assert len(previews) == 2
    np.testing.assert_allclose(stopped.pixels, Picture.from_tensor(previews[-1]).pixels, atol=1e-6)
    assert np.array_equal(stopped.pixels, made(photo, small, text="red", iterations=2))
    assert stopped.recipe is not None
    assert stopped.recipe["stopped_after"] == 2


@pytest.mark.parametrize("what", ["loss", "slope"])
def test_losses_that_are_not_finite_end_with_the_picture_before(
    photo: Floats, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    expected = made(photo, small, text="red", iterations=2)
    events: list[Event] = []
    terms = clipstyler.Objective.terms

    def broken(self: clipstyler.Objective, picture: Tensor, patches: Any) -> dict[str, Tensor]:
        found = terms(self, picture, patches)
        if len(events) == 2:
            # The root of 0 has an infinite slope.
            bad = found["patches"] * torch.nan if what == "loss" else (picture * 0).sum().sqrt()
            return found | {"patches": bad}
        return found

    monkeypatch.setattr(clipstyler.Objective, "terms", broken)
    result = made(photo, small, text="red", iterations=5, progress=events.append)
    assert len(events) == 2
    assert np.array_equal(result, expected)


def test_a_loss_that_is_never_finite_is_named(
    photo: Floats, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = clipstyler.Objective.terms

    def broken(*given: Any) -> dict[str, Tensor]:
        return (found := terms(*given)) | {"direction": found["direction"] * torch.nan}

    monkeypatch.setattr(clipstyler.Objective, "terms", broken)
    with pytest.raises(atelier.AtelierError, match="loss of the direction is not finite from the start"):
        made(photo, small, text="red")


def test_the_finish_is_contrast_and_range(photo: Floats, small: dict[str, Any]) -> None:
    stretched = made(photo, small, text="red")
    assert stretched.min() == 0
    assert stretched.max() == pytest.approx(1, abs=1e-3)
    plain = made(photo, small, text="red", contrast=1, stretch=False)
    assert 0 < plain.min() < plain.max() < 1
    assert stretched.std() > 1.4 * plain.std()


def test_the_caller_s_inference_mode_does_not_matter(photo: Floats, small: dict[str, Any]) -> None:
    expected = made(photo, small, text="red")
    with torch.inference_mode():
        assert np.array_equal(made(photo, small, text="red"), expected)


# gatys


def test_words_are_a_term_of_gatys(photo: Floats, painting: Floats, gatys: dict[str, Any]) -> None:
    assert last_losses(photo, gatys, style=painting).keys() == {"style", "content", "smoothness"}
    losses = last_losses(photo, gatys, style=painting, text="red")
    assert losses.keys() == {"style", "content", "text", "smoothness"}
    twice = last_losses(photo, gatys, style=painting, text="red", text_weight=2, iterations=1)
    once = last_losses(photo, gatys, style=painting, text="red", iterations=1)
    assert twice["text"] == pytest.approx(2 * once["text"])
    # Half of the weight is the words', and half of it the painting's.
    alone = last_losses(photo, gatys, text="red", iterations=1)
    assert once["text"] == pytest.approx(alone["text"] / 2)
    assert alone["style"] == 0


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_gatys_follows_words(photo: Floats, gatys: dict[str, Any], colours: None, optimiser: str) -> None:
    result = made(photo, gatys, text="red", iterations=15, optimiser=optimiser, text_weight=10)
    assert redness(result) > redness(photo) + 0.02


def test_gatys_with_l_bfgs_sees_the_same_patches(photo: Floats, gatys: dict[str, Any]) -> None:
    settings = gatys | {"text": "red", "iterations": 1}
    fixed = [last_losses(photo, settings, optimiser="lbfgs", seed=4)["text"] for _ in range(2)]
    assert fixed[0] == fixed[1] == pytest.approx(last_losses(photo, settings, seed=4)["text"])


# the fast variant


@pytest.fixture
def trained(
    photo: Floats, painting: Floats, tiny_clip: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: Any
) -> Path:
    """A folder where `clipstyler_fast` was trained for two texts for three steps, from the command."""
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    for index, one in enumerate((photo, painting, photo[::-1])):
        (tmp_path / "photos").mkdir(exist_ok=True)
        write(Picture.of(np.ascontiguousarray(one)), tmp_path / "photos" / f"{index}.png")
    flags = "--steps 3 --batch 2 --crop 32 --views 2 --held-back 1 --no-half --device cpu --threads 1 --start"
    words = ["--text", "red paint", "--text", "art", "--text-weights", "3", "--text-weights", "1"]
    files = ["--clip-model", str(tiny_clip), "--encoder", str(tiny_encoder), "--pictures", "photos"]
    assert cli.main(["train", "clipstyler-fast", *flags.split(), "", *words, *files]) == 0
    return tmp_path


def test_a_decoder_learns_words_and_paints(trained: Path, photo: Floats, tiny_encoder: Path) -> None:
    weights = "runs/clipstyler_fast/clipstyler_fast.safetensors"
    settings = {"method": "clipstyler_fast", "encoder": str(tiny_encoder), "device": "cpu"}
    result = atelier.stylize(photo, weights=weights, **settings)
    assert result.size == (56, 40)
    lines = (trained / "runs/clipstyler_fast/log.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert {"patches", "direction", "content", "smoothness", "judged_loss"} <= last.keys()


def test_the_fast_variant_asks_for_its_decoder(photo: Floats) -> None:
    with pytest.raises(atelier.UsageError, match="train one with `atelier train clipstyler-fast"):
        atelier.stylize(photo, method="clipstyler_fast", device="cpu")
    with pytest.raises(
        atelier.UsageError, match="clipstyler_fast does not take a style in words: it takes no"
    ):
        atelier.stylize(photo, text="red", method="clipstyler_fast", device="cpu")


# what goes wrong, and the command


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "clipstyler", "clip": "clip_vit_b32.openai"}, r"weights pull clip_vit_b32\.openai"),
        ({"method": "gatys", "clip": ""}, "predicts the statistics of another encoder"),
        ({"text": "x " * 90}, "CLIP reads 75: shorten it"),
        ({"text": None}, "clipstyler needs a style: give --style PAINTING or --text WORDS"),
        ({"content_layers": ("relu9_1",)}, "has no tap 'relu9_1'"),
        ({"start": "style", "method": "gatys", "patches": None}, "'style' needs a style picture"),
    ],
)
def test_one_sentence(photo: Floats, small: dict[str, Any], settings: dict[str, Any], sentence: str) -> None:
    given = {"text": "red"} | small | settings
    if given["method"] == "gatys":
        del given["patches"]
    with pytest.raises(atelier.AtelierError, match=sentence):
        atelier.stylize(photo, **given)


def test_the_command_paints_words_and_replays(
    photo: Floats, painting: Floats, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Picture.of(photo), tmp_path / "photo.png")
    write(Picture.of(painting), tmp_path / "painting.png")
    flags = "--method clipstyler --iterations 2 --patches 4 --device cpu"
    files = ["--clip", small["clip"], "--encoder", small["encoder"]]
    words = ["--style", "painting.png", "--text", "a red photo", "--text", "art"]
    shares = [word for share in "211" for word in ("--style-weights", share)]
    assert cli.main(["stylize", "photo.png", *flags.split(), *files, *words, *shares, "-o", "out.png"]) == 0
    assert cli.main(["stylize", "photo.png", "--text", "red", "--method", "clipstyler"]) == 4
    shown = Picture.open("out.png").pixels
    given = {name: small[name] for name in ("clip", "encoder")}
    again = atelier.replay("out.png", files=given)
    assert np.abs(again.pixels - shown).max() <= 0.5 / 255 + 1e-6
    assert again.recipe is not None
    assert [one["weight"] for one in again.recipe["texts"]] == [0.25, 0.25]
