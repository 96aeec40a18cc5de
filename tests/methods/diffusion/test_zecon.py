"""ZeCon as a method: styles, words, stops, and terms that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier import features
from atelier.core.errors import UsageError, WeightsError
from atelier.core.progress import Event
from atelier.losses import diffusion_guidance
from atelier.losses.diffusion_guidance import Guidance, Place
from atelier.losses.patch_contrast import patch_contrast, random_places
from atelier.maths import schedules
from atelier.maths.diffusion import Prediction
from atelier.methods.diffusion import zecon
from atelier.methods.diffusion.ddpm import Ddpm


@pytest.fixture
def settings(tmp_path: Path, tiny_encoder: Path) -> dict[str, Any]:
    save_file(Ddpm.tiny()["weights"], tmp_path / "ddpm.safetensors")
    return {
        "method": "zecon",
        "weights": str(tmp_path / "ddpm.safetensors"),
        "encoder": str(tiny_encoder),
        "steps": 6,
        "skip": 3,
        "views": 3,
        "batch": 2,
        "view_side": 32,
        "half": False,
    }


@pytest.fixture
def painting() -> np.ndarray:
    return np.random.default_rng(5).random((24, 40, 3), dtype=np.float32)


def test_a_small_step_along_the_pull_lowers_the_loss(tiny_encoder: Path) -> None:
    """By as much as the length of the pull promises, to first order."""
    encoder = features.load(str(tiny_encoder), padding="replicate")
    style, picture = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32) * 2 - 1
    loss = zecon.gram_loss(encoder, style, relative=True)
    schedule = schedules.respaced(schedules.linear(), "20")
    terms = {"gram": (1.0, diffusion_guidance.whole_loss(loss))}
    guidance = Guidance(schedule, picture, terms, torch.zeros_like)

    def pulled(noisy: torch.Tensor) -> torch.Tensor:
        noisy = noisy.clone().requires_grad_()
        return guidance(noisy, Prediction(noisy, noisy, noisy, noisy), 10)

    pull = pulled(picture)
    before = guidance.values["gram"]
    length = float(pull.square().sum())
    step = 1e-3 * before / length
    pulled(picture + step * pull)
    assert guidance.values["gram"] == pytest.approx(before - step * length, abs=0.2 * step * length)


def test_losses_and_stages_are_reported(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray
) -> None:
    events: list[Event] = []
    atelier.stylize(photo, painting, progress=events.append, **settings)
    assert [event.stage for event in events] == ["inverting"] * 3 + ["guiding"] * 3
    assert [event.done for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[-1].losses.keys() == {"similarity", "gram", "contrast", "pixels", "features", "range"}
    preview = events[-1].preview
    assert preview is not None
    assert preview().shape == (1, 3, *photo.shape[:2])


@pytest.mark.parametrize("colours", [True, False])
def test_the_picture_has_the_style_s_colours(
    settings: dict[str, Any], photo: np.ndarray, colours: bool
) -> None:
    dull = np.random.default_rng(5).uniform(0.45, 0.55, (*photo.shape[:2], 3)).astype(np.float32)
    made = atelier.stylize(photo, dull, colours=colours, **settings).pixels
    near = [
        np.allclose(found, wanted, atol=5e-3)
        for found, wanted in ((made.mean((0, 1)), dull.mean((0, 1))), (made.std((0, 1)), dull.std((0, 1))))
    ]
    assert near == [colours, colours]


@pytest.mark.parametrize(("forward", "backward"), [("ddpm", "ddpm"), ("ddim", "ddim"), ("ddpm", "ddim")])
def test_every_way_to_noise_and_back(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray, forward: str, backward: str
) -> None:
    made = atelier.stylize(photo, painting, forward=forward, backward=backward, **settings)
    other = atelier.stylize(photo, painting, **settings)
    assert np.isfinite(made.pixels).all()
    assert not np.array_equal(made.pixels, other.pixels)


@pytest.mark.parametrize("after", [2, 4])
def test_a_stop_returns_the_best_picture_so_far(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray, after: int
) -> None:
    """While inverting that is the photo; while guiding, the clean picture of the last step."""
    seen: list[torch.Tensor] = []

    def listener(event: Event) -> bool:
        assert event.preview is not None
        seen.append(event.preview())
        return event.done < after

    made = atelier.stylize(photo, painting, progress=listener, **settings)
    assert len(seen) == after
    assert np.allclose(made.pixels, seen[-1][0].permute(1, 2, 0).numpy(), atol=1e-6)
    assert np.array_equal(made.pixels, photo) == (after == 2)


def test_a_term_that_is_not_finite_stops_with_the_last_good_picture(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    calls = iter(range(100))
    usual = zecon.gram_loss

    def broken(*given: Any, **more: Any) -> Any:
        loss = usual(*given, **more)
        return lambda picture: loss(picture) * (float("nan") if next(calls) == 1 else 1)

    monkeypatch.setattr(zecon, "gram_loss", broken)
    made = atelier.stylize(photo, painting, progress=events.append, **settings)
    assert events[-1].stage == "stopped: the term 'gram' is not finite"
    good = events[-2].preview
    assert good is not None
    assert np.allclose(made.pixels, good()[0].permute(1, 2, 0).numpy(), atol=1e-6)
    assert made.recipe is not None
    assert made.recipe["stopped_after"] == 4


def test_the_batch_of_views_changes_memory_and_not_the_pull() -> None:
    """Parts of a term are differentiated one by one; their sum is the whole."""
    picture = torch.rand(1, 3, 8, 8)

    def term(parts: int) -> diffusion_guidance.Term:
        def found(place: Place) -> Any:
            for part in place.picture.flatten(2).chunk(parts, dim=2):
                yield part.square().sum()

        return found

    schedule = schedules.respaced(schedules.linear(), "20")
    pulls = []
    for parts in (1, 4):
        guidance = Guidance(schedule, picture, {"one": (2.0, term(parts))}, torch.zeros_like)
        noisy = picture.clone().requires_grad_()
        prediction = Prediction(noisy, noisy, noisy, 0.5 * noisy)
        pulls.append(guidance(noisy, prediction, 10))
    assert torch.allclose(pulls[0], pulls[1], atol=1e-6)
    assert pulls[0].abs().sum() > 0


def test_words_need_clip(settings: dict[str, Any], photo: np.ndarray) -> None:
    with pytest.raises(UsageError, match="zecon reads words with CLIP: give --clip"):
        atelier.stylize(photo, text="a painting", **settings)


def test_clip_that_is_missing_names_its_command(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray
) -> None:
    with pytest.raises(WeightsError, match=r"atelier weights pull clip_vit_b16\.openai"):
        atelier.stylize(photo, painting, clip="clip_vit_b16.openai", **settings)


def test_wrong_steps_and_blocks_are_refused(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray
) -> None:
    with pytest.raises(UsageError, match="skip = 6 leaves none of the 6 steps"):
        atelier.stylize(photo, painting, **settings | {"skip": 6})
    with pytest.raises(UsageError, match="this network has the input blocks 0 to 1"):
        atelier.stylize(photo, painting, contrast_blocks=(5,), **settings)


@pytest.mark.xdist_group("transformers")
def test_words_guide_with_clip(
    settings: dict[str, Any], photo: np.ndarray, painting: np.ndarray, tiny_clip: Path
) -> None:
    events: list[Event] = []
    both = settings | {"clip": str(tiny_clip), "text_whole": 10.0, "text_direction": 10.0}
    made = atelier.stylize(photo, painting, text=["red", "blue"], progress=events.append, **both)
    assert np.isfinite(made.pixels).all()
    names = {"text", "text patches", "direction", "patch direction"}
    assert {f"{name} {number}" for name in names for number in (1, 2)} < events[-1].losses.keys()
    other = atelier.stylize(photo, painting, text=["red", "green"], **both)
    assert not np.array_equal(made.pixels, other.pixels)


def test_patch_contrast_prefers_the_own_place() -> None:
    torch.manual_seed(0)
    keys = torch.randn(1, 16, 4, 4)
    places = random_places(16, 8, torch.Generator().manual_seed(0))
    assert len(set(places.tolist())) == 8
    same = patch_contrast(keys + 0.1 * torch.randn_like(keys), keys, places)
    moved = patch_contrast(keys.roll(1, -1), keys, places)
    assert same.shape == (8,)
    assert same.max() < moved.min()
