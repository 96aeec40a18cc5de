"""What every test has: a home of its own, small pictures, and a tiny encoder."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).parents[1]
Floats = npt.NDArray[np.float32]

# Before numba is imported: compiled kernels stay from one run of the tests to the next, outside any home.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadgroup` by files: tests of files that name the same `xdist_group` run in one process.

    xdist 3.8 adds the group to each test's id, which pytest 9.2 no longer lets it change.
    """
    from xdist.scheduler import LoadGroupScheduling

    @functools.cache
    def group(file: str) -> str:
        found = re.search(r'xdist_group\("(.+?)"\)', (config.rootpath / file).read_text())
        return found[1] if found else ""

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid.split("::")[0]) or nodeid

    return ByFile(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights cache is a temporary folder, so that no test sees or changes the user's."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.delenv("ATELIER_METHODS", raising=False)


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """A test that leaves files in the repository or where it was started fails."""
    places = {ROOT, Path.cwd()}
    before = {place: _visible(place) for place in places}
    yield
    for place in places:
        assert not (left := _visible(place) - before[place]), f"left behind in {place}: {sorted(left)}"


def _visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small VGG-like encoder with random weights."""
    from safetensors.torch import save_file

    from atelier.features.vgg import TINY, VGG

    path = tmp_path_factory.mktemp("encoder") / "tiny.safetensors"
    save_file({name: value.contiguous() for name, value in VGG(TINY, seed=3).state_dict().items()}, path)
    return path


#: Words that the tiny CLIP reads as one token each; it spells the rest.
WORDS = ("photo", "art", "red", "blue", "paint")


def vocabulary() -> tuple[list[str], list[str]]:
    """The tokens of CLIP's kind for letters and `WORDS`, and the merges that make them."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-()"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            tokens.append(pieces[0] + pieces[1])
            pieces[:2] = [tokens[-1]]
    return [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"], list(dict.fromkeys(merges))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny CLIP with random weights and a small vocabulary."""
    from safetensors.torch import save_file

    from atelier.features.clip_layout import tiny

    folder = tmp_path_factory.mktemp("clip")
    tokens, merges = vocabulary()
    save_file(tiny(3, words=len(tokens)), folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return folder


@pytest.fixture
def photo() -> Floats:
    """A landscape of soft shades and one hard shape, (40, 56, 3) in 0..1."""
    y, x = np.mgrid[0:40, 0:56].astype(np.float32)
    shades = np.stack([x / 56, 1 - y / 40, 0.5 + 0.3 * np.sin(x / 9)], axis=2)
    shades[12:28, 20:36] = (0.85, 0.3, 0.15)
    return shades.astype(np.float32)


@pytest.fixture
def painting() -> Floats:
    """Crossing strokes in three colours with grain, (48, 36, 3) in 0..1."""
    y, x = np.mgrid[0:48, 0:36].astype(np.float32)
    strokes = np.stack([np.sin(x + y / 2), np.sin(x / 2 - y), np.cos(x / 3 + y / 4)], axis=2)
    grain = np.random.default_rng(5).normal(0, 0.1, strokes.shape)
    return (0.5 + 0.4 * strokes + grain).clip(0, 1).astype(np.float32)


def pipeline_networks(seed: int = 0, *, vocabulary: int = 0) -> dict[str, Any]:
    """The three networks of a Stable Diffusion 1.x with few channels and levels, and random weights.

    The UNet has four decoder blocks; the last two have attention.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    words = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            "unet": UNet2DConditionModel(
                block_out_channels=(32, 64),
                layers_per_block=1,
                cross_attention_dim=64,
                attention_head_dim=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            ).eval(),
            "vae": AutoencoderKL(
                block_out_channels=(32,) * 4,
                layers_per_block=1,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ).eval(),
            "text_encoder": CLIPTextModel(words).eval(),
        }


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Stable Diffusion 1.x, complete with its tokenizer, as diffusers writes it."""
    folder = tmp_path_factory.mktemp("pipeline")
    tokens, merges = vocabulary()
    for name, network in pipeline_networks(vocabulary=len(tokens)).items():
        network.save_pretrained(folder / name)
    for name in ("tokenizer", "scheduler"):
        (folder / name).mkdir()
    words = folder / "tokenizer"
    (words / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    steps = {"beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(steps))
    index = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    index |= {"tokenizer": "CLIPTokenizer", "scheduler": "DDIMScheduler"}
    classes = {name: ["diffusers", kind] for name, kind in index.items()}
    index_of = {"_class_name": "StableDiffusionPipeline", **classes}
    (folder / "model_index.json").write_text(json.dumps(index_of))
    return folder
