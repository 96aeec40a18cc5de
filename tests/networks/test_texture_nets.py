"""Texture Networks: any size, another texture for each seed, tiles, diversity, and what does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier.apps import cli
from atelier.core.errors import WeightsError
from atelier.images import Picture, write
from atelier.losses.diversity import diversity
from atelier.networks.texture_nets import Normalisation, Plan, TextureNet, load_texture_net, noise


def network(*, photo: bool = False, norm: Normalisation = "affine") -> TextureNet:
    torch.manual_seed(0)
    return TextureNet(Plan(3, 4, photo, norm)).eval()


@pytest.mark.parametrize("norm", ["affine", "plain", "batch"])
@pytest.mark.parametrize("photo", [False, True])
def test_the_plan_is_read_from_the_tensors(photo: bool, norm: Normalisation) -> None:
    made = network(photo=photo, norm=norm)
    again = load_texture_net(made.state_dict()).eval()
    assert again.plan == made.plan
    canvas = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(again.paint(canvas, 5), made.paint(canvas, 5))


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (16, 16), (17, 30)])
@pytest.mark.parametrize("photo", [False, True])
def test_pictures_of_any_size(size: tuple[int, int], photo: bool) -> None:
    with torch.no_grad():
        made = network(photo=photo).paint(torch.rand(1, 3, *size), 0)
    assert made.shape == (1, 3, *size)
    assert torch.isfinite(made).all()


def test_a_texture_tiles() -> None:
    """Noise that is moved round by a step of the coarsest scale moves the texture, across its border."""
    made = network()
    given = noise(3, (16, 24), 1, torch.Generator().manual_seed(0))
    moved = [one.roll((1 << (2 - scale), 2 << (2 - scale)), (2, 3)) for scale, one in enumerate(given)]
    with torch.no_grad():
        torch.testing.assert_close(made(moved), made(given).roll((4, 8), (2, 3)), atol=1e-5, rtol=0)


def test_seeds_make_other_textures() -> None:
    made, canvas = network(), torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        first, again, other = (made.paint(canvas, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


def test_diversity_is_the_formula() -> None:
    """Three pictures on a line: the nearest others are 0.1, 0.1 and 0.3 away."""
    pictures = torch.tensor([0.0, 0.1, 0.4])[:, None, None, None].expand(-1, 3, 4, 4)
    expected = -(2 * math.log(0.1) + math.log(0.3)) / 3
    assert diversity(pictures).item() == pytest.approx(expected, rel=1e-5)
    assert diversity(pictures[:1]).item() == 0
    assert math.isfinite(diversity(torch.zeros(2, 3, 4, 4)).item())


def test_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match="are not those of a texture network"):
        load_texture_net({"decoder.weight": torch.zeros(3)})
    state = network().state_dict()
    del state["own.1.bias"]
    with pytest.raises(WeightsError, match=r"own\.1\.bias"):
        load_texture_net(state)


def test_the_method_says_how_to_get_a_network() -> None:
    with pytest.raises(atelier.AtelierError, match="atelier train texture-nets --style SAMPLE"):
        atelier.generate("texture_nets")


@pytest.fixture
def trained(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains for three steps on a sample, from the command; gives its exit code for more flags."""
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).random((40, 48, 3), dtype=np.float32)
    write(Picture.of(pixels), Path("sample.png"))
    flags = "--style sample.png --steps 3 --batch 2 --crop 32 --scales 3 --width 4 --no-half --device cpu"

    def run(*more: str) -> int:
        return cli.main(
            ["train", "texture-nets", *flags.split(), "--encoder", str(tiny_encoder), "--out", "run", *more]
        )

    return run


def test_from_a_sample_to_a_texture(trained: Any) -> None:
    """No photo is needed, neither for training nor for painting."""
    assert trained() == 0
    line = "generate texture_nets --weights run/texture_nets.safetensors --size 40 --seed 3 -o out.png"
    assert cli.main(line.split()) == 0
    assert Picture.open("out.png").shape[:2] == (40, 40)


def test_a_crop_that_does_not_fit(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("--crop", "34") != 0
    assert "use a multiple of 4, 8 at least" in capsys.readouterr().err


def test_a_style_network_paints_the_photo(tmp_path: Path) -> None:
    save_file(network(photo=True).state_dict(), tmp_path / "net.safetensors")
    photos = [np.random.default_rng(seed).random((20, 24, 3), dtype=np.float32) for seed in (0, 1)]
    settings = {"method": "texture_nets", "weights": str(tmp_path / "net.safetensors"), "device": "cpu"}
    made = [atelier.stylize(photo, **settings).pixels for photo in photos]
    assert made[0].shape == (20, 24, 3)
    assert not np.allclose(made[0], made[1], atol=1e-3)
