"""LoRA: every layout of files changes the same layers, and other files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import atelier
from atelier.apps.cli.root import main
from atelier.core.errors import UsageError, WeightsError
from atelier.images import Picture, write

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.pipelines import lora, stable_diffusion, stable_diffusion_layout  # noqa: E402

Floats = npt.NDArray[np.float32]
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
WORDS = "encoder.layers.0.self_attn.q_proj"
PAIRS = {
    place: (torch.full((2, width), 0.02), torch.linspace(-1, 1, 2 * width).view(width, 2))
    for place, width in ((("unet", QUERY), 32), (("unet", OUT), 32), (("text", WORDS), 64))
}


def kohya(alpha: float = 1.0) -> dict[str, Tensor]:
    state = {}
    for (kind, path), (down, up) in PAIRS.items():
        start = "lora_unet_" if kind == "unet" else "lora_te_text_model_"
        name = start + path.replace(".", "_")
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        state[f"{name}.alpha"] = torch.tensor(alpha)
    return state


def dotted(
    down: str, up: str, text: str = "text_encoder.text_model.", unet: str = "unet."
) -> dict[str, Tensor]:
    state = {}
    for (kind, path), pair in PAIRS.items():
        name = (unet if kind == "unet" else text) + path
        state |= {f"{name}.{role}.weight": one for role, one in zip((down, up), pair, strict=True)}
    return state


def old() -> dict[str, Tensor]:
    """The names of diffusers in 2023."""
    state = dotted("lora_linear_layer.down", "lora_linear_layer.up")
    start = f"unet.{QUERY.removesuffix('.to_q')}"
    for part in ("to_q", "to_out.0"):
        for role in ("down", "up"):
            value = state.pop(f"{start}.{part}.lora_linear_layer.{role}.weight")
            state[f"{start}.processor.{part.removesuffix('.0')}_lora.{role}.weight"] = value
    return state


@pytest.mark.parametrize(
    ("state", "layout"),
    [
        (kohya(2.0), "kohya"),
        (dotted("lora_A", "lora_B"), "PEFT"),
        (dotted("lora_A.default", "lora_B.default", "text_encoder."), "PEFT"),
        (dotted("lora.down", "lora.up"), "diffusers"),
        (old(), "diffusers"),
    ],
)
def test_every_layout_changes_the_same_weights(
    state: dict[str, Tensor], layout: str, tiny_pipeline: Path, tmp_path: Path
) -> None:
    file = tmp_path / "style.safetensors"
    save_file({name: one.contiguous() for name, one in state.items()}, file)
    parts = stable_diffusion_layout.find(tiny_pipeline)
    found = lora.read(str(file), parts)
    assert found.layout == layout
    changed = found.changed(parts, 0.5)
    for kind in ("unet", "text"):
        before, after = getattr(parts, kind).read(), getattr(changed, kind).read()
        apart = {name for name in before if not torch.equal(before[name], after[name])}
        assert apart == {f"{path}.weight" for where, path in PAIRS if where == kind}
    down, up = PAIRS["unet", QUERY]
    change = changed.unet.read()[f"{QUERY}.weight"] - parts.unet.read()[f"{QUERY}.weight"]
    torch.testing.assert_close(change, 0.5 * up @ down)


def test_alpha_in_the_metadata_of_diffusers(tiny_pipeline: Path, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1, "unet.r": 2})}
    save_file(dotted("lora_A", "lora_B"), file, metadata=metadata)
    found = lora.read(str(file), stable_diffusion_layout.find(tiny_pipeline))
    assert (found.adapters["unet", QUERY].alpha, found.adapters["text", WORDS].alpha) == (1, 2)


def test_a_merged_lora_computes_what_a_live_one_does(tiny_pipeline: Path, tmp_path: Path) -> None:
    """The layer's output plus the adapter's, with alpha over rank, is that of the merged layer."""
    file = tmp_path / "style.safetensors"
    save_file(kohya(1.0), file)
    parts = stable_diffusion_layout.find(tiny_pipeline)
    plain, changed = (
        stable_diffusion.load(one, torch.device("cpu"), torch.float32)
        for one in (parts, lora.read(str(file), parts).changed(parts, 0.8))
    )
    for path in (QUERY, OUT):
        down, up = PAIRS["unet", path]
        layer = plain.unet.get_submodule(path)
        layer.register_forward_hook(
            lambda _, seen, made, a=down, b=up: made + 0.8 * 0.5 * seen[0] @ a.T @ b.T
        )
    down, up = PAIRS["text", WORDS]
    plain.text.get_submodule(WORDS).register_forward_hook(
        lambda _, seen, made: made + 0.8 * 0.5 * seen[0] @ down.T @ up.T
    )
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = [one.predict(latents, 300, one.words(["art"])) for one in (plain, changed)]
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=1e-5)


def test_pictures_from_words_and_from_a_photo(tiny_pipeline: Path, tmp_path: Path, photo: Floats) -> None:
    file = tmp_path / "style.safetensors"
    save_file(kohya(), file)
    settings: dict[str, Any] = {"pipeline": str(tiny_pipeline), "weights": str(file), "steps": 4}
    words = [
        atelier.generate("lora", text="red paint", size=64, device="cpu", **settings, multiplier=share).pixels
        for share in (0.0, 1.0)
    ]
    assert not np.array_equal(*words)
    settings |= {"method": "lora", "device": "cpu"}
    led, away = (atelier.stylize(photo, text="art", **settings, negative=one).pixels for one in ("", "blue"))
    assert led.shape == photo.shape
    assert not np.array_equal(led, away)


@pytest.mark.slow
def test_the_way_from_a_folder_to_a_file(
    tiny_pipeline: Path, tmp_path: Path, photo: Floats, painting: Floats
) -> None:
    """A resumed run gives the file of a whole one; the file has kohya's layout and changes pictures."""
    home = tmp_path / "pictures"
    home.mkdir()
    for index, one in enumerate((painting, photo)):
        write(Picture.of(one), home / f"{index}.png")
        (home / f"{index}.txt").write_text("red paint")
    line = f"train lora --pictures {home} --pipeline {tiny_pipeline} --rank 2 --alpha 1 --trigger art"
    for out, steps in (("whole", 2), ("parts", 1), ("parts", 2)):
        more = ["--out", str(tmp_path / out), "--steps", str(steps), "--crop", "32", "--save-every", "1"]
        assert main([*line.split(), *more, "--device", "cpu", "--no-half"]) == 0
    whole, parts = (load_file(tmp_path / out / "lora.safetensors") for out in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert lora.inspect(tmp_path / "whole" / "lora.safetensors")["ranks"] == {"2": len(whole) // 3}
    assert any(float(one.abs().max()) > 0 for name, one in whole.items() if "lora_up" in name)
    settings = {"pipeline": str(tiny_pipeline), "steps": 4, "device": "cpu", "text": "art", "size": 64}
    file = str(tmp_path / "whole" / "lora.safetensors")
    plain, changed = (
        atelier.generate("lora", weights=file, multiplier=share, **settings).pixels for share in (0, 4)
    )
    assert not np.array_equal(plain, changed)


def test_adapters_in_training_compute_what_the_merged_file_does(tiny_pipeline: Path, tmp_path: Path) -> None:
    parts = stable_diffusion_layout.find(tiny_pipeline)
    plain = stable_diffusion.load(parts, torch.device("cpu"), torch.float32)
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    words = plain.words([""])
    torch.manual_seed(0)
    trained = lora.Trained(plain.unet, 2, 3.0)
    with torch.no_grad():
        before = plain.predict(latents, 300, words)
        handles = trained.attach(plain.unet)
        assert torch.equal(plain.predict(latents, 300, words), before)  # untrained, it changes nothing
        for weight in trained.parameters():
            weight.add_(0.05)
        live = plain.predict(latents, 300, words)
        for handle in handles:
            handle.remove()
        assert torch.equal(plain.predict(latents, 300, words), before)
        save_file(
            {name: one.contiguous() for name, one in trained.exported().items()}, tmp_path / "a.safetensors"
        )
        merged = lora.read(tmp_path / "a.safetensors", parts).changed(parts, 1.0)
        again = stable_diffusion.load(merged, torch.device("cpu"), torch.float32).predict(latents, 300, words)
    assert not torch.allclose(live, before, atol=1e-3)
    torch.testing.assert_close(again, live, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda it: it | {"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "is a LoHa, which is not supported"),
        (lambda it: it | {"lora_unet_x.dora_scale": torch.ones(2)}, "is a DoRA, which is not supported"),
        (lambda it: it | {"lora_te2_x.lora_up.weight": torch.ones(2, 2)}, "LoRA for SDXL"),
        (
            lambda it: it | {"lora_unet_x.lora_up.weight": torch.ones(2, 2)},
            "1 layers that this pipeline does not",
        ),
        (
            lambda it: {name: one[:, :16] if "down.w" in name else one for name, one in it.items()},
            "base model: its",
        ),
        (lambda it: dict(list(it.items())[:1]), "only half of the layer"),
        (lambda it: {"features.weight": torch.ones(2)}, "is no LoRA"),
    ],
)
def test_files_that_are_refused(change: Any, sentence: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file({name: one.contiguous() for name, one in change(kohya()).items()}, file)
    with pytest.raises(WeightsError, match=sentence):
        lora.read(str(file), stable_diffusion_layout.find(tiny_pipeline))


def test_without_a_file_it_says_what_it_needs(photo: Floats) -> None:
    with pytest.raises(UsageError, match="lora needs a LoRA file"):
        atelier.stylize(photo, method="lora", text="art")


def test_inspect_says_what_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "style.safetensors"
    tags = {"10_cat": {"cat": 7, "red": 3}, "5_dog": {"red": 2}}
    metadata = {"ss_base_model_version": "sd_v1", "ss_tag_frequency": json.dumps(tags)}
    save_file(kohya(2.0), file, metadata=metadata)
    assert main(["lora", "inspect", str(file)]) == 0
    said = capsys.readouterr().out
    for line in (
        "layout        kohya",
        "unet: 2, text encoder: 1",
        "ranks         2: 3",
        "sd_v1",
        "cat: 7, red: 5",
    ):
        assert line in said
    assert main(["lora", "inspect", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alphas"] == [2.0]
    assert load_file(file).keys() == kohya().keys()  # looking changes nothing
