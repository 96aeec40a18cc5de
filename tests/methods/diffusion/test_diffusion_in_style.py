"""Diffusion in Style: from a folder of pictures to a style, and from words and photos to pictures in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

import atelier
from atelier.apps.cli.root import main
from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.images import Picture, write
from atelier.methods.diffusion.diffusion_in_style import DiffusionInStyle, StyleNoise
from atelier.pipelines import stable_diffusion, stable_diffusion_layout

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

Floats = npt.NDArray[np.float32]


@pytest.fixture
def folder(tmp_path: Path, photo: Floats, painting: Floats) -> Path:
    """Three captioned pictures."""
    home = tmp_path / "pictures"
    home.mkdir()
    for index, one in enumerate((painting, painting[::-1], photo)):
        write(Picture.of(np.ascontiguousarray(one)), home / f"{index}.png")
        (home / f"{index}.txt").write_text("red paint")
    return home


def train(folder: Path, pipeline: Path, out: Path, *more: str) -> int:
    line = (
        f"train diffusion-in-style --pictures {folder} --pipeline {pipeline} --out {out} --batch 2 --crop 32"
    )
    return main([*line.split(), "--no-half", "--device", "cpu", "--save-every", "1", *more])


@pytest.mark.slow
def test_the_way_from_a_folder_to_pictures(
    folder: Path, tiny_pipeline: Path, tmp_path: Path, photo: Floats, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is stopped and resumed gives the file of a whole one; it keeps the noise of the folder."""
    for out, steps in (("whole", 2), ("parts", 1), ("parts", 2)):
        assert train(folder, tiny_pipeline, tmp_path / out, "--steps", str(steps)) == 0
    whole, parts = (
        load_file(tmp_path / out / "diffusion_in_style.safetensors") for out in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    unet = load_file(tiny_pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    moved = [
        float((whole[f"unet.{name}"].float() - one.half().float()).abs().max()) for name, one in unet.items()
    ]
    assert max(moved) > 0
    loaded = stable_diffusion.load(
        stable_diffusion_layout.find(tiny_pipeline), torch.device("cpu"), torch.float32
    )
    assert whole["mu"].shape == (4, 4, 4)
    squares = [Picture.open(path) for path in sorted(folder.glob("*.png"))]
    crops = [
        one.pixels[(h := (one.shape[0] - m) // 2) : h + m, (w := (one.shape[1] - m) // 2) : w + m]
        for one in squares
        for m in [min(one.shape)]
    ]
    small = [Picture(np.ascontiguousarray(one)).resized((32, 32)).tensor() for one in crops]
    with torch.no_grad():
        noise = StyleNoise.of(torch.cat([loaded.encode(one) for one in small]))
    torch.testing.assert_close(whole["mu"].float(), noise.mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(whole["sigma"].float(), noise.deviation, atol=2e-3, rtol=0)

    file = str(tmp_path / "whole" / "diffusion_in_style.safetensors")
    settings: dict[str, Any] = {"weights": file, "pipeline": str(tiny_pipeline), "device": "cpu", "steps": 4}
    words = [
        atelier.generate("diffusion_in_style", text=text, size=64, **settings).pixels
        for text in ("red paint", "red paint", "blue art")
    ]
    assert np.array_equal(words[0], words[1])
    assert not np.array_equal(words[0], words[2])
    settings["method"] = "diffusion_in_style"
    little, much = (
        np.abs(atelier.stylize(photo, text="art", **settings, noise=noise).pixels - photo).mean()
        for noise in (0.3, 1.0)
    )
    assert 0 < little != much
    for sampler in ("plms", "ancestral"):
        made = atelier.stylize(photo, **settings, sampler=sampler, guidance=1)
        assert np.isfinite(made.pixels).all()


def test_the_noise_has_the_statistics_that_were_given() -> None:
    """Over many draws, element by element; and at another size, where it stays a constant."""
    mean, deviation = torch.full((4, 6, 6), 0.5), torch.full((4, 6, 6), 2.0)
    style = StyleNoise(mean, deviation)
    drawn = style.drawn(torch.randn((4000, 4, 6, 6), generator=torch.Generator().manual_seed(0)))
    assert (drawn.mean(0) - mean).abs().max() < 0.15
    assert (drawn.std(0) - deviation).abs().max() < 0.15
    larger = style.at((9, 12))
    assert larger.mean.shape == (4, 9, 12)
    torch.testing.assert_close(larger.deviation, torch.full((4, 9, 12), 2.0))


def test_its_patent_is_named_where_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "diffusion_in_style"]) == 0
    assert "patent" in capsys.readouterr().out
    assert "PATENT" in (__import__(DiffusionInStyle.__module__, fromlist=["_"]).__doc__ or "")


def test_what_cannot_be_done_is_one_sentence(
    folder: Path, tiny_pipeline: Path, tmp_path: Path, photo: Floats, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="train diffusion-in-style"):
        atelier.stylize(photo, method="diffusion_in_style", text="art")
    other = tmp_path / "other.safetensors"
    save_file({"mu": torch.zeros(4, 2, 2)}, other)
    settings: dict[str, Any] = {"method": "diffusion_in_style", "pipeline": str(tiny_pipeline)}
    with pytest.raises(WeightsError, match="holds no style"):
        atelier.stylize(photo, **settings, weights=str(other))
    save_file({"mu": torch.zeros(4, 2, 2), "sigma": torch.ones(4, 2, 2), "unet.x": torch.ones(1)}, other)
    with pytest.raises(WeightsError, match="do not fit the unet"):
        atelier.stylize(photo, **settings, weights=str(other))
    with pytest.raises(TrainingError, match="at least 2 pictures, and 1 was given"):
        StyleNoise.of(torch.zeros(1, 4, 2, 2))
    (folder / "1.txt").unlink()
    assert train(folder, tiny_pipeline, tmp_path / "run") != 0
    said = capsys.readouterr().err
    assert "1.txt" in said
    assert "Traceback" not in said
