"""NNST-D: tiles are the whole, styles get their share, controls and odd sizes, all with a tiny network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier import maths
from atelier.colour.bands import split_bands
from atelier.core.errors import WeightsError
from atelier.methods.base import Job
from atelier.methods.feedforward import nnst_d, nnst_d_level, nnst_d_style
from atelier.methods.feedforward.adain import Adain
from atelier.methods.feedforward.nnst_d import NNSTD
from atelier.methods.feedforward.nnst_d_detail import Detail

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("nnst_d")
    files = {name: str(folder / f"{name}.safetensors") for name in NNSTD.tiny()}
    for name, state in NNSTD.tiny().items():
        save_file(dict(state), files[name])
    return {**files, "encoder": str(tiny_encoder), "device": "cpu", "half": False}


def waves(height: int, width: int, seed: int = 0) -> Floats:
    """A picture with shapes of many sizes."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    layers = [
        np.sin(x / random.uniform(2, 40) + y / random.uniform(2, 40) + random.uniform(0, 6)) for _ in range(6)
    ]
    picture = np.stack([layers[i] + layers[i + 3] for i in range(3)], 2)
    return ((picture + 2) / 4).astype(np.float32)


def paint(content: Floats, style: Any, settings: dict[str, Any], **more: Any) -> Floats:
    return atelier.stylize(content, style, method="nnst_d", **settings | more).pixels


@pytest.mark.parametrize("full", [True, False], ids=["searched in full", "searched near the coarser choice"])
def test_tiles_are_the_whole(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    content, style = waves(300, 230), waves(200, 220, 1)
    monkeypatch.setattr(nnst_d_level, "_FULL_SEARCH", 1 << 25 if full else 0)
    whole = paint(content, style, settings)
    monkeypatch.setattr(nnst_d_level, "TILE", 64)
    monkeypatch.setattr(nnst_d_level, "_KEPT_CELLS", 0 if full else 1 << 19)  # seen twice, or kept
    seen: list[int] = []
    look = nnst_d_level.Level.look

    def counted(self: Any, *given: Any) -> Any:
        seen.append(1)
        return look(self, *given)

    monkeypatch.setattr(nnst_d_level.Level, "look", counted)
    tiled = paint(content, style, settings)
    assert len(seen) > (40 if full else 20)
    assert whole.std() > 0.05
    apart = np.abs(tiled - whole).max(2)
    assert np.abs(apart).max() <= 1 / 255


@pytest.mark.parametrize("shape", [(17, 400), (4096, 64), (1, 1), (5, 3), (63, 65)])
def test_any_shape_and_a_style_of_one_pixel(settings: dict[str, Any], shape: tuple[int, int]) -> None:
    for style in (np.full((1, 1, 3), 0.3, np.float32), waves(40, 50)):
        picture = paint(waves(*shape), style, settings, size=max(shape))
        assert picture.shape == (*shape, 3)
        assert np.isfinite(picture).all()


def test_flat_pictures(settings: dict[str, Any]) -> None:
    flat = np.full((40, 50, 3), 0.5, np.float32)
    for content, style in ((flat, waves(40, 50)), (waves(40, 50), flat), (flat, flat)):
        assert np.isfinite(paint(content, style, settings)).all()


def test_strength_falls_to_the_photo(settings: dict[str, Any]) -> None:
    content, style = waves(64, 64), waves(64, 80, 1)
    near, half, full = (paint(content, style, settings, strength=s) for s in (1e-4, 0.5, 1))
    assert np.abs(near - content).max() < 1e-3
    assert np.abs(near - content).mean() < np.abs(half - content).mean() < np.abs(full - content).mean()


def test_a_picture_in_its_own_style_chooses_itself(settings: dict[str, Any]) -> None:
    content = torch.from_numpy(waves(64, 96)).permute(2, 0, 1)[None]
    job = Job(
        content=content,
        styles=[content],
        style_weights=[1.0],
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    knobs = NNSTD.Knobs(
        weights=settings["weights"], encoder=settings["encoder"], turned="mirrored", dims=1000
    )
    painter = nnst_d._networks(knobs.encoder, knobs.weights, job, half=False)
    style = nnst_d.Styles(painter, job, knobs).at(96)
    with torch.inference_mode():
        _, chosen = nnst_d_level.Level(painter, content, style).paint(content, None)
    assert chosen.index.flatten().tolist() == list(range(16 * 24))


def test_each_style_gets_its_share_of_the_canvas(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, styles = waves(96, 128), [waves(96, 96, 1), waves(96, 96, 2)]
    shares: list[float] = []
    paint_level = nnst_d_level.Level.paint

    def noted(self: Any, *given: Any) -> Any:
        picture, chosen = paint_level(self, *given)
        groups = self.style.candidates.group_of()
        shares.append(float((groups[chosen.index] == 1).float().mean()))
        return picture, chosen

    monkeypatch.setattr(nnst_d_level.Level, "paint", noted)
    paint(content, styles, settings, style_weights=(0.75, 0.25))
    assert shares[0] == pytest.approx(0.25, abs=0.03)
    assert all(0.05 < share < 0.5 for share in shares)


def test_connected_pieces_are_copied_more_the_more_they_count(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share of cells whose right neighbour shows what lies right of it in the style."""
    content, style = waves(96, 128), waves(96, 96, 1)
    shares: list[float] = []
    paint_level = nnst_d_level.Level.paint

    def noted(self: Any, *given: Any) -> Any:
        picture, chosen = paint_level(self, *given)
        shares.append(float((chosen.index[:, 1:] == chosen.index[:, :-1] + 1).float().mean()))
        return picture, chosen

    monkeypatch.setattr(nnst_d_level.Level, "paint", noted)
    last = []
    for coherence in (0.0, 0.05, 0.2, 1.0):
        paint(content, style, settings, coherence=coherence)
        last.append(shares[-1])
    assert last == sorted(last)
    assert last[0] < 0.6 * last[3]


def test_fine_detail_is_the_photos_where_all_of_it_is_asked_for(settings: dict[str, Any]) -> None:
    """Bands below about four pixels are replaced; what is coarser stays."""
    content, style = waves(96, 128), waves(96, 96, 1)
    plain = {"colours": False, "bands": False, "detail": 0.0}
    none = paint(content, style, settings, **plain, photo_detail=0.0)
    half = paint(content, style, settings, **plain, photo_detail=0.5)
    whole = paint(content, style, settings, **plain, photo_detail=1.0)
    pyramids = [split_bands(torch.from_numpy(one).permute(2, 0, 1)[None]) for one in (content, none)]
    merged = maths.merge([*pyramids[0][:3], *pyramids[1][3:]])[0].permute(1, 2, 0)[:96, :128]
    np.testing.assert_allclose(whole, merged.clip(0, 1), atol=1e-5)
    inside = (whole > 0) & (whole < 1) & (none > 0) & (none < 1)
    np.testing.assert_allclose(half[inside], ((none + whole) / 2)[inside], atol=1e-5)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_the_detail_comes_from_the_picture_of_adain(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, strength: float
) -> None:
    """Its decoder reads features that are there already, tile by tile, with the moments of the whole."""
    content, style = (
        torch.from_numpy(one).permute(2, 0, 1)[None] for one in (waves(160, 128), waves(96, 96, 1))
    )
    cpu = torch.device("cpu")
    job = Job(
        content=content,
        styles=[style],
        style_weights=[1.0],
        device=cpu,
        dtype=torch.float32,
        strength=strength,
    )
    knobs = NNSTD.Knobs(**{name: settings[name] for name in ("encoder", "weights", "detail_weights", "half")})
    fast = Adain.Knobs(encoder=knobs.encoder, weights=knobs.detail_weights, half=False)
    monkeypatch.setattr(nnst_d_level, "TILE", 64)
    with torch.inference_mode():
        wanted = Adain().decoded(job, fast)
        networks = nnst_d._networks(knobs.encoder, knobs.weights, job, half=False)
        level = nnst_d_level.Level(networks, content, nnst_d.Styles(networks, job, knobs).at(160))
        level.detail = Detail.of(job, [style], knobs)
        assert level.detail is not None
        views = nnst_d_level.Views(level, content)
        moments = views.moments()
        for position, tile in enumerate(level.tiles):
            window = content[(..., *tile.outer)]
            found = level.completed(views[position], window).taps
            made = level.detail._decoded(window, found, moments.taps, strength)
            torch.testing.assert_close(
                made[(..., *tile.inner)], wanted[(..., *tile.core)], atol=2e-3, rtol=1e-3
            )


def test_a_decoder_of_another_encoder_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"trained for this encoder.*or set 'detail' to 0"):
        paint(waves(40, 40), waves(40, 40), settings, detail_weights="adain.atelier")


def test_another_encoder_has_no_decoder_of_detail_unless_it_is_given(settings: dict[str, Any]) -> None:
    del (chosen := dict(settings))["detail_weights"]
    content, style = waves(40, 40), waves(40, 40, 1)
    none, without, given = (
        paint(content, style, chosen, detail=0),
        paint(content, style, chosen),
        paint(content, style, settings),
    )
    assert np.array_equal(none, without)
    assert not np.array_equal(without, given)


def test_strokes_stop_growing_where_told(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    projected = nnst_d_style.maths.projected

    def noted(maps: Any, groups: Any, directions: Any, **options: Any) -> Any:
        sides.append(4 * max(maps[0].shape[1:]))
        return projected(maps, groups, directions, **options)

    monkeypatch.setattr(nnst_d_style.maths, "projected", noted)
    monkeypatch.setattr(nnst_d_style.cache, "LIMIT", 0)
    paint(waves(200, 256), waves(200, 256, 1), settings, stroke_size=128)
    assert sides == [64, 128]
    sides.clear()
    paint(waves(200, 256), waves(200, 256, 1), settings, stroke_size=1000)
    assert sides == [64, 128, 256]


def test_other_weights_are_refused(settings: dict[str, Any], tiny_encoder: Path) -> None:
    with pytest.raises(WeightsError, match="not those of a hypercolumn decoder"):
        paint(waves(32, 32), waves(32, 32), settings | {"weights": str(tiny_encoder)})
