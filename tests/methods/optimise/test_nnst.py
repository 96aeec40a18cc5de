"""NNST with tiny networks: matching, tiles, controls, initial pictures, unusual sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier import features
from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError
from atelier.core.progress import Event
from atelier.images.resize import resize
from atelier.methods.base import Job
from atelier.methods.optimise import nnst, nnst_match
from atelier.methods.optimise.nnst import NNST
from atelier.methods.optimise.nnst_match import Matcher, MatchObjective
from atelier.methods.registry import knobs_for

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("nnst") / "tiny.safetensors"
    save_file(dict(NNST.tiny()["decoder"]), path)
    return {
        "decoder": str(path),
        "encoder": str(tiny_encoder),
        "device": "cpu",
        "half": False,
        "iterations": 3,
        "coarse_iterations": 2,
    }


def waves(height: int, width: int, seed: int = 0) -> Floats:
    """A picture with shapes of many sizes."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    layers = [
        np.sin(x / random.uniform(2, 40) + y / random.uniform(2, 40) + random.uniform(0, 6)) for _ in range(6)
    ]
    picture = np.stack([layers[i] + layers[i + 3] for i in range(3)], 2)
    return ((picture + 2) / 4).astype(np.float32)


def tensor(picture: Floats) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def paint(content: Floats, style: Any, settings: dict[str, Any], **more: Any) -> Floats:
    return atelier.stylize(content, style, method="nnst", **settings | more).pixels


def canvas(content: Floats, styles: list[Floats], settings: dict[str, Any], **job: Any) -> MatchObjective:
    """The objective for pictures at their own size."""
    named = {name: settings[name] for name in ("encoder", "half", "decoder")} | job.pop("knobs", {})
    made = Job(
        content=tensor(content),
        styles=[tensor(style) for style in styles],
        style_weights=job.pop("style_weights", [1 / len(styles)] * len(styles)),
        device=torch.device("cpu"),
        dtype=torch.float32,
        **job,
    )
    columns = features.Hypercolumns(features.load(named["encoder"], padding="replicate"))
    return MatchObjective(Matcher(made, knob_rules.parse(NNST.Knobs, named), columns), made.content)


def test_the_picture_approaches_its_matches(settings: dict[str, Any]) -> None:
    """With one search the objective is fixed: it falls in each third, and much in all."""
    events: list[Event] = []
    paint(waves(60, 80), waves(70, 50, 1), settings, iterations=30, rematch=100, progress=events.append)
    values = [event.losses["match"] for event in events if event.losses]
    assert len(values) == 30
    thirds = [np.mean(values[start : start + 10]) for start in (0, 10, 20)]
    assert thirds[0] > thirds[1] > thirds[2]
    assert values[-1] < 0.8 * values[0]


def test_a_picture_in_its_own_style_has_zero_match_loss(settings: dict[str, Any]) -> None:
    content = waves(64, 96)
    objective = canvas(content, [content], settings, knobs={"dims": 1000})
    assert objective.choose(tensor(content)).flatten().tolist() == list(range(16 * 24))
    assert float(objective(tensor(content))["match"]) < 1e-5
    assert float(objective(tensor(waves(64, 96, 3)))["match"]) > 0.1


def test_matches_are_the_nearest_candidates(settings: dict[str, Any]) -> None:
    """By the formula, in all directions of the features, from wide hypercolumns."""
    content, style, painted = waves(40, 52), waves(44, 36, 1), waves(40, 52, 2)
    objective = canvas(
        content, [style], settings, knobs={"dims": 1000, "turned": "no", "keep": 0.25, "light": 0}
    )
    columns, gain = objective.matcher.columns, objective.matcher.gain[:, None, None]
    queries, mixed, keys = (columns(tensor(one))[0] * gain for one in (content, painted, style))
    queries = (0.25 * queries + 0.75 * mixed).flatten(1).T
    keys = keys.flatten(1).T
    table = torch.cosine_similarity((queries - queries.mean(0))[:, None], (keys - keys.mean(0))[None], dim=2)
    best = table.amax(1)
    chosen = objective.choose(tensor(painted)).flatten()
    assert torch.allclose(table[torch.arange(len(best)), chosen], best, atol=1e-4)


def test_targets_hold_a_share_of_the_photos_own_features(settings: dict[str, Any]) -> None:
    """A share of 1 is AdaIN: the photo's features with the style's mean and deviation, by the formula."""
    content, style = waves(64, 96), waves(48, 80, 1)
    whole, half, none = (
        canvas(content, [style], settings, knobs={"content_share": share, "content_layers": "all"})
        for share in (1.0, 0.5, 0.0)
    )
    for objective in (whole, half, none):
        objective.choose(tensor(content))
    columns, gain = whole.matcher.columns, whole.matcher.gain[:, None, None]
    own, other = ((columns(tensor(one))[0] * gain).flatten(1).T for one in (content, style))
    own = (own - own.mean(0)) / own.std(0, correction=0).clamp(min=1e-3) * other.std(0, correction=0)
    likeness = torch.cosine_similarity(whole.table, own)
    assert likeness.min() > 0.999
    assert none.table is none.side.directions
    matched = none.table[none.chosen.flatten()]
    wanted = torch.nn.functional.normalize(matched + whole.table)
    assert torch.allclose(half.table, wanted, atol=1e-3)


def test_deep_layers_hold_most_of_the_photo(settings: dict[str, Any]) -> None:
    """By the square of the stage: none at the first, then a ninth, four ninths, and all at the last."""
    content, style = waves(64, 96), waves(48, 80, 1)
    deep, whole, none = (
        canvas(content, [style], settings, knobs={"content_share": share, "content_layers": layers})
        for share, layers in ((0.9, "deep"), (1.0, "all"), (0.0, "all"))
    )
    for objective in (deep, whole, none):
        objective.choose(tensor(content))
    columns, chosen = deep.matcher.columns, none.side.directions[none.chosen.flatten()]
    stages = torch.tensor([int(tap[4]) for tap in columns.taps])
    shares = torch.repeat_interleave(
        torch.tensor([0, 0.1, 0.4, 0.9])[stages - 1], torch.tensor(columns.widths)
    )
    wanted = torch.nn.functional.normalize(chosen + shares * (whole.table - chosen))
    assert torch.allclose(deep.table, wanted, atol=1e-5)


def test_hidden_pixels_do_not_count_for_the_photos_moments(settings: dict[str, Any]) -> None:
    content, seen = waves(64, 96), torch.ones(1, 1, 64, 96)
    seen[..., 48:] = 0
    objective = canvas(content, [waves(48, 80, 1)], settings, content_seen=seen)
    rows = objective._rows(tensor(content), objective.tiles[0]) * objective.matcher.gain
    shown = rows.view(16, 24, -1)[:, :12].flatten(0, 1)
    assert objective.moments is not None
    assert torch.allclose(objective.moments[0], shown.mean(0), atol=1e-5)


def test_lightness_weight_preserves_light_and_dark(settings: dict[str, Any]) -> None:
    content, style, likeness = waves(64, 80), waves(80, 60, 1), []
    for light in (0.0, 0.1, 10.0):
        objective = canvas(content, [style], settings, knobs={"light": light})
        chosen = objective.side.candidates.keys[objective.choose(tensor(content)), -1]
        shades = torch.stack([chosen.flatten(), nnst_match.lightness(tensor(content)).flatten()])
        likeness.append(float(torch.corrcoef(shades)[0, 1]))
    assert likeness[0] < likeness[1] < likeness[2]
    assert likeness[2] > 0.95


def test_lightness_by_hand() -> None:
    picture = torch.zeros(1, 3, 5, 8)
    picture[..., 4:] = 1.0
    assert nnst_match.lightness(picture).tolist() == [[-1, 1], [-1, 1]]
    assert not nnst_match.lightness(torch.full((1, 3, 5, 8), 0.3)).any()


@pytest.mark.parametrize("full", [True, False], ids=["searched in full", "searched near the coarser choice"])
def test_tiles_match_the_whole_picture(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    content, style, painted = waves(150, 130), waves(100, 120, 1), tensor(waves(150, 130, 2))
    if not full:
        monkeypatch.setattr(nnst_match, "FULL_SEARCH", 1 << 19)
    found = []
    for core in (1024, 64):
        monkeypatch.setattr(nnst_match, "TILE", core)
        objective = canvas(content, [style], settings)
        picture = painted.clone().requires_grad_()
        value = objective(picture)["match"]
        (slope,) = torch.autograd.grad(value, picture)
        found.append((objective.chosen, value.detach(), slope))
        assert len(objective.tiles) == (1 if core == 1024 else 9)
    (one, first, whole), (other, second, tiled) = found
    assert (one == other).float().mean() > 0.999
    assert torch.allclose(first, second, rtol=1e-3)
    assert (whole - tiled).abs().mean() < 0.02 * whole.abs().mean()


def test_coherent_search_is_nearly_exact(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    content, style = waves(96, 128), waves(90, 100, 1)
    values = []
    for limit in (1 << 31, 1 << 17):
        monkeypatch.setattr(nnst_match, "FULL_SEARCH", limit)
        objective = canvas(content, [style], settings, knobs={"keep": 1.0})
        values.append(float(objective(tensor(content))["match"].detach()))
    # Of no likeness at all the distance is 1.
    assert values[0] <= values[1] < values[0] + 0.15 * (1 - values[0])


@pytest.mark.parametrize("shape", [(17, 200), (1, 1), (5, 3), (63, 65)])
@pytest.mark.parametrize("start", ["nnst_d", "content"])
def test_any_shape_and_a_style_of_one_pixel(
    settings: dict[str, Any], shape: tuple[int, int], start: str
) -> None:
    for style in (np.full((1, 1, 3), 0.3, np.float32), waves(40, 50)):
        picture = paint(waves(*shape), style, settings, size=max(shape), start=start)
        assert picture.shape == (*shape, 3)
        assert np.isfinite(picture).all()


def test_flat_pictures(settings: dict[str, Any]) -> None:
    flat = np.full((40, 50, 3), 0.5, np.float32)
    for content, style in ((flat, waves(40, 50)), (waves(40, 50), flat), (flat, flat)):
        for more in ({}, {"start": "content"}, {"contrast": 1.0, "hues": "photo"}):
            assert np.isfinite(paint(content, style, settings, **more)).all()


# controls


def test_at_strength_0_the_photo_has_zero_match_loss(settings: dict[str, Any]) -> None:
    content, style = waves(64, 64), waves(64, 80, 1)
    distances = {}
    for strength in (1e-6, 0.5, 1.0):
        objective = canvas(content, [style], settings, strength=strength)
        distances[strength] = float(objective(tensor(content))["match"])
    assert distances[1e-6] < 1e-5
    assert distances[1e-6] < distances[0.5] < distances[1.0]


def test_regions_match_only_their_own_style(settings: dict[str, Any]) -> None:
    content = waves(64, 96)
    regions = torch.zeros(2, 1, 64, 96)
    regions[0, :, :, :40], regions[1, :, :, 40:] = 1, 1
    objective = canvas(content, [waves(48, 48, 1), waves(48, 60, 2)], settings, regions=regions)
    chosen = objective.choose(tensor(content))
    groups = objective.side.candidates.group_of()[chosen]
    assert (groups[:, :10] == 0).all()
    assert (groups[:, 10:] == 1).all()


def test_each_style_gets_its_share_of_the_canvas(settings: dict[str, Any]) -> None:
    content, styles = waves(96, 128), [waves(96, 96, 1), waves(96, 96, 2)]
    objective = canvas(content, styles, settings, style_weights=[0.75, 0.25])
    groups = objective.side.candidates.group_of()[objective.choose(tensor(content))]
    assert 0.1 < float((groups == 1).float().mean()) < 0.4


def test_photo_hues_are_kept_on_request(settings: dict[str, Any]) -> None:
    content = waves(48, 64)
    content = 0.5 + 0.2 * (content - content.mean(2, keepdims=True))
    style = waves(60, 60, 1)
    from atelier.colour.oklab import rgb_to_oklab

    wanted = rgb_to_oklab(tensor(content))[0, 1:].flatten()
    likeness = {}
    for hues in ("painted", "photo"):
        found = rgb_to_oklab(tensor(paint(content, style, settings, hues=hues)))[0, 1:].flatten()
        likeness[hues] = float(torch.corrcoef(torch.stack([wanted, found]))[0, 1])
    assert likeness["photo"] > max(0.5, likeness["painted"] + 0.1)


def test_the_finished_picture_has_the_styles_colours(settings: dict[str, Any]) -> None:
    style = 0.35 + 0.3 * waves(48, 64, 1)
    lent, own = (
        paint(waves(48, 64), style, settings, colours=colours, bands=False) for colours in (True, False)
    )
    for moment in (np.mean, np.std):
        far, near = (np.abs(moment(one, (0, 1)) - moment(style, (0, 1))).max() for one in (own, lent))
        assert near < 0.5 * far


def test_contrast_adds_a_term(settings: dict[str, Any]) -> None:
    events: list[Event] = []
    paint(waves(40, 40), waves(40, 40, 1), settings, contrast=2.0, progress=events.append)
    assert {name for event in events for name in event.losses} == {"match", "contrast"}


# starts


def test_the_initial_picture_comes_from_nnst_d(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, style, begun = waves(60, 80), waves(50, 50, 1), []
    call = MatchObjective.__call__

    def noted(self: MatchObjective, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        begun.append(picture.detach().clone())
        return call(self, picture)

    monkeypatch.setattr(MatchObjective, "__call__", noted)
    common = {name: settings[name] for name in ("encoder", "device", "half")}
    first = atelier.stylize(content, style, method="nnst_d", weights=settings["decoder"], **common)
    paint(content, style, settings)
    assert len(begun) == settings["iterations"]
    assert torch.allclose(begun[0], tensor(first.pixels), atol=1e-5)
    begun.clear()
    paint(content, style, settings, refined_from=40, coarse_iterations=3)
    assert [tuple(one.shape[-2:]) for one in begun] == [(30, 40)] * 3 + [(60, 80)] * settings["iterations"]
    assert torch.allclose(begun[0], resize(tensor(first.pixels), (30, 40)), atol=1e-5)


def test_a_larger_size_starts_with_the_fine_detail_of_the_first_picture(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One evaluation moves nothing, so all the detail together is the first picture again."""
    content, style = waves(64, 96), waves(50, 50, 1)
    begun: list[torch.Tensor] = []
    call = MatchObjective.__call__

    def noted(self: MatchObjective, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        begun.append(picture.detach().clone())
        return call(self, picture)

    monkeypatch.setattr(MatchObjective, "__call__", noted)
    common = {name: settings[name] for name in ("encoder", "device", "half")}
    first = atelier.stylize(content, style, method="nnst_d", weights=settings["decoder"], **common)
    far = []
    for fine, photo in ((1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (1.0, 1.0)):
        begun.clear()
        steps = {"refined_from": 48, "coarse_iterations": 1, "iterations": 1}
        paint(content, style, settings, fine=fine, photo_detail=photo, **steps)
        assert begun[1].shape == (1, 3, 64, 96)
        far.append(float((begun[1] - tensor(first.pixels)).abs().mean()))
    whole, half, none, photos = far
    assert whole < 1e-5
    assert half == pytest.approx(none / 2, rel=0.01)
    assert photos > 1e-3


def test_large_shapes_are_in_part_those_of_the_first_picture() -> None:
    """A third of a slow change arrives, and nothing of one from pixel to pixel."""
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(130.0), indexing="ij")
    slow, fast = 0.2 * torch.sin(x / 20 + y / 30)[None, None], 0.1 * (-1) ** (x + y)[None, None]
    picture = torch.full((1, 3, 90, 130), 0.5)
    found = nnst._with_shapes(picture, picture + slow + fast, 1 / 3) - picture
    assert (found - slow / 3)[..., 8:-8, 8:-8].abs().max() < 0.003
    assert (found - slow / 3).abs().max() < 0.03


def test_a_receipt_from_before_its_knobs_runs_as_it_did(settings: dict[str, Any]) -> None:
    content = waves(64, 96)
    knobs = {name: value for name, value in NNST.before.items() if "band" not in name}
    objective = canvas(content, [waves(48, 80, 1)], settings, knobs=knobs)
    objective.choose(tensor(content))
    assert objective.table is objective.side.directions
    older = knob_rules.parse(NNST.Knobs, dict(NNST.before))
    assert older.files() == ("encoder.atelier", "nnst_d.atelier")
    newer = knob_rules.parse(NNST.Knobs, {})
    assert newer.files() == ("encoder.atelier", "nnst_d.atelier", "adain.atelier")


def test_starting_from_the_photo_goes_coarse_to_fine(settings: dict[str, Any]) -> None:
    stages: list[str] = []
    paint(
        waves(96, 128),
        waves(64, 64),
        settings,
        start="content",
        coarsest=32,
        progress=lambda event: stages.append(event.stage),
    )
    assert list(dict.fromkeys(stages)) == ["32 x 24", "64 x 48", "128 x 96"]


def test_strokes_stop_growing_at_stroke_size(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No larger style is even made: one of 512 px is enough for a picture of 8192."""
    sides: list[tuple[int, int]] = []
    side = Matcher.side

    def noted(self: Matcher, long_side: int) -> Any:
        found = side(self, long_side)
        sides.append((max(self.job.styles[0].shape), 4 * max(found.candidates.grids[0])))
        return found

    monkeypatch.setattr(Matcher, "side", noted)
    content, style = waves(100, 128), waves(100, 128, 1)
    for stroke_size, wanted in (
        (64, [(64, 32), (64, 64), (64, 64)]),
        (1000, [(128, 32), (128, 64), (128, 128)]),
    ):
        sides.clear()
        paint(content, style, settings, stroke_size=stroke_size, refined_from=32, iterations=1)
        assert sides == wanted


def test_the_published_code_gets_styles_at_full_size() -> None:
    knobs = knobs_for(NNST, "published", {"stroke_size": 64})
    assert NNST().style_side(knob_rules.parse(NNST.Knobs, knobs), 128) == 128


# as published


def published(settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    mine = {name: settings[name] for name in ("encoder", "device", "iterations", "coarse_iterations")}
    return knobs_for(NNST, "published", mine | more)


@pytest.mark.slow
def test_published_quality_runs_at_small_sizes(settings: dict[str, Any]) -> None:
    events: list[Event] = []
    content, style = waves(70, 90), waves(66, 80, 1)
    picture = paint(content, style, published(settings), progress=events.append)
    assert [event.done for event in events] == list(range(1, 16))
    assert np.isfinite(picture).all()
    assert np.abs(picture - content).max() > 0.01
    weak = paint(content, style, published(settings), strength=0.25)
    assert np.allclose(weak - content, 0.25 * (picture - content), atol=1e-5)


def test_published_quality_takes_one_style(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="one style"):
        paint(waves(40, 40), [waves(40, 40, 1), waves(40, 40, 2)], published(settings))


def test_the_recipe_names_what_was_used(settings: dict[str, Any]) -> None:
    for chosen, count in ((settings, 2), (settings | {"start": "content"}, 1), (published(settings), 1)):
        knobs = {name: value for name, value in chosen.items() if name in NNST.Knobs.model_fields}
        assert len(NNST().weights(NNST.Knobs(**knobs))) == count
