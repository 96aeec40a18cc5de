"""LoRA: files of every layout, training, merging, extracting, and files that are refused."""

from __future__ import annotations

import hashlib
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
from atelier.maths import samplers

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.pipelines import (  # noqa: E402
    lora,
    lora_changes,
    lora_training,
    stable_diffusion,
    stable_diffusion_layout,
    training_memory,
)
from atelier.store import checkpoints  # noqa: E402

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


@pytest.fixture
def folder(tmp_path: Path, photo: Floats, painting: Floats) -> Path:
    """A training set: three pictures that are seen twice, and one without a caption."""
    home = tmp_path / "pictures"
    for index, one in enumerate((painting, photo, painting[::-1], photo[:, ::-1])):
        place = home / ("2_red paint" if index < 3 else "1_blue")
        place.mkdir(parents=True, exist_ok=True)
        write(Picture.of(np.ascontiguousarray(one)), place / f"{index}.png")
        if index < 3:
            (place / f"{index}.txt").write_text(f"red, paint {index}")
    return home


def train(folder: Path, pipeline: Path, out: Path, *more: str) -> Path:
    line = f"train lora --pictures {folder} --pipeline {pipeline} --rank 2 --alpha 1 --trigger art --crop 32"
    assert main([*line.split(), "--out", str(out), "--device", "cpu", "--no-half", *more]) == 0
    return out / "lora.safetensors"


@pytest.mark.slow
def test_a_resumed_run_gives_the_file_of_a_whole_one(
    tiny_pipeline: Path, tmp_path: Path, folder: Path
) -> None:
    """To the bit, and without the cache of latents too."""
    more = ("--save-every", "2", "--steps")
    whole = train(folder, tiny_pipeline, tmp_path / "whole", *more, "4")
    train(folder, tiny_pipeline, tmp_path / "parts", *more, "2")
    parts = train(folder, tiny_pipeline, tmp_path / "parts", *more, "4", "--no-cache-latents")
    states = [load_file(one) for one in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_trained_file_tells_of_its_data_and_gives_the_same_pictures_in_diffusers(
    tiny_pipeline: Path, tmp_path: Path, folder: Path
) -> None:
    rates = ("--learning-rate", "0.05", "--text-learning-rate", "0.05", "--steps", "3", "--samples", "art")
    file = train(folder, tiny_pipeline, tmp_path / "run", *rates)
    assert (tmp_path / "run" / "sheet-0000003.jpg").is_file()
    _check_metadata(file)
    state = load_file(file)
    for start in ("lora_unet_", "lora_te_text_model_encoder_layers_0_"):
        ups = [one for name, one in state.items() if name.startswith(start) and "lora_up" in name]
        assert min(float(one.abs().max()) for one in ups) > 0
    settings: dict[str, Any] = {"pipeline": str(tiny_pipeline), "weights": str(file), "text": "art"}
    settings |= {"steps": 4, "guidance": 3.0, "seed": 5, "size": 64, "device": "cpu", "half": False}
    made = atelier.generate("lora", **settings).pixels
    plain, changed = _by_diffusers(tiny_pipeline, file)
    assert np.abs(changed - plain).max() > 0.01
    np.testing.assert_allclose(made, changed, atol=1e-4)


def _check_metadata(file: Path) -> None:
    told = checkpoints.read_metadata(file)
    assert json.loads(told["ss_dataset_dirs"]) == {
        "1_blue": {"n_repeats": 1, "img_count": 1},
        "2_red paint": {"n_repeats": 2, "img_count": 3},
    }
    assert json.loads(told["ss_tag_frequency"])["2_red paint"]["red"] == 3
    assert json.loads(told["ss_tag_frequency"])["1_blue"] == {"art": 1, "blue": 1}
    wanted = {"ss_num_train_images": "7", "ss_steps": "3", "ss_network_dim": "2", "ss_v2": "False"}
    assert {name: told[name] for name in wanted} == wanted
    known = {name: value for name, value in told.items() if name.startswith("ss_")}
    body = checkpoints.tensor_bytes(load_file(file), known)[1]
    assert file.read_bytes().endswith(body)
    assert told["sshs_model_hash"] == hashlib.sha256(body).hexdigest()


def _by_diffusers(folder: Path, file: Path) -> tuple[Floats, Floats]:
    """The picture of diffusers without and with the file."""
    pytest.importorskip("peft")
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts = stable_diffusion_layout.find(folder)
    ours = stable_diffusion.load(parts, torch.device("cpu"), torch.float32)
    ours.tokens.model_max_length = 77
    schedule = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    theirs = StableDiffusionPipeline(
        ours.vae, ours.text, ours.tokens, ours.unet, schedule, None, None, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "height": 64, "width": 64}
    options |= {"latents": samplers.seeded(5)(torch.zeros(1, 4, 8, 8)), "output_type": "np"}
    plain = theirs("art", **options).images[0]
    theirs.load_lora_weights(file)
    return plain, theirs("art", **options).images[0]


def test_several_files_add_up(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Two files with their multipliers are one file with the sum; a receipt names both."""
    names = [str(tmp_path / f"{one}.safetensors") for one in ("a", "b")]
    for name in names:
        save_file(kohya(), name)
    settings: dict[str, Any] = {"pipeline": str(tiny_pipeline), "steps": 2, "guidance": 1.0}
    settings |= {"text": "art", "size": 64, "device": "cpu", "weights": names[0], "receipt": "paths"}
    both = atelier.generate("lora", more=(names[1],), more_multipliers=(0.5,), multiplier=0.25, **settings)
    one = atelier.generate("lora", multiplier=0.75, **settings)
    np.testing.assert_allclose(both.pixels, one.pixels, atol=1e-5)
    write(both, tmp_path / "both.png")
    again = atelier.replay(tmp_path / "both.png")
    assert np.abs(again.pixels - both.pixels).max() < 1 / 255
    with pytest.raises(UsageError, match="1 files and 2 multipliers"):
        atelier.generate("lora", more=(names[1],), more_multipliers=(0.5, 1.0), **settings)


def test_write_read_write_gives_the_same_bytes(tiny_pipeline: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / f"{one}.safetensors" for one in ("first", "second"))
    found = lora.opened(kohya(1.5), {}, list(PAIRS), "here")
    facts = {f"ss_{name}": name for name in ("z", "b", "y", "a")}
    lora_changes.write(found, facts, first)
    again = lora.read(first, stable_diffusion_layout.find(tiny_pipeline))
    kept = {name: value for name, value in again.metadata.items() if name.startswith("ss_")}
    lora_changes.write(again, kept, second)
    assert first.read_bytes() == second.read_bytes()
    assert kept == facts
    assert load_file(first).keys() == kohya().keys()  # safetensors reads it


def test_merging_and_extracting_undo_each_other(tiny_pipeline: Path, tmp_path: Path) -> None:
    """The merged folder is the changed pipeline, and its difference from the base is the LoRA again."""
    file, merged, back = (tmp_path / one for one in ("a.safetensors", "merged", "back.safetensors"))
    save_file(kohya(), file)
    assert main(["lora", "merge", str(tiny_pipeline), "--lora", f"{file}=0.5", "-o", str(merged)]) == 0
    parts, after = (stable_diffusion_layout.find(one) for one in (tiny_pipeline, merged))
    wanted = lora.read(file, parts).changed(parts, 0.5)
    for kind in ("unet", "text", "vae"):
        one, other = (getattr(all_of, kind).read() for all_of in (wanted, after))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert main(["lora", "extract", str(merged), str(tiny_pipeline), "--rank", "2", "-o", str(back)]) == 0
    found, known = lora.read(back, parts), lora.read(file, parts)
    assert found.adapters.keys() == known.adapters.keys()
    for place, one in found.adapters.items():
        torch.testing.assert_close(one.delta(), 0.5 * known.adapters[place].delta(), atol=1e-4, rtol=2e-3)


def test_the_memory_plan_of_training(tiny_pipeline: Path) -> None:
    """Checkpointing saves memory, and two pictures take twice that of one."""
    parts = stable_diffusion_layout.find(tiny_pipeline)

    def step(side: int, batch: int, *, checkpointing: bool) -> int:
        run = training_memory.Run((side, side), batch, 4, True, checkpointing, False, 10)
        return training_memory.step_bytes(parts, run, torch.float32)

    saved, whole = (step(128, 2, checkpointing=one) for one in (True, False))
    assert saved < 0.7 * whole
    assert 1.8 < whole / step(128, 1, checkpointing=False) < 2.2
    run = training_memory.Run((128, 128), 2, 4, True, True, False, 10)
    plan = training_memory.plan(parts, run, torch.device("cpu"), torch.float32)
    counts = [
        sum(one.numel() for one in part.read().values()) for part in (parts.unet, parts.vae, parts.text)
    ]
    assert plan.networks == pytest.approx(4 * sum(counts), rel=0.01)
    assert plan.seconds > 0


def test_adapters_in_training_compute_what_the_merged_file_does(tiny_pipeline: Path, tmp_path: Path) -> None:
    parts = stable_diffusion_layout.find(tiny_pipeline)
    plain = stable_diffusion.load(parts, torch.device("cpu"), torch.float32)
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    networks: Any = {"unet": plain.unet, "text": plain.text}
    trained = lora_training.Trained(networks, 2, 3.0)

    def predicted(pipeline: stable_diffusion.StableDiffusion) -> Tensor:
        return pipeline.predict(latents, 300, pipeline.words(["art"]))

    with torch.no_grad():
        # Captions in training may be too long.
        assert torch.equal(plain.words(["art " * 90], cut=True), plain.words(["art " * 75]))
        before = predicted(plain)
        handles = trained.attach(networks)
        assert torch.equal(predicted(plain), before)  # untrained, it changes nothing
        for weight in trained.parameters():
            weight.add_(0.05)
        live = predicted(plain)
        for handle in handles:
            handle.remove()
        assert torch.equal(predicted(plain), before)
        lora_changes.write(trained.lora(), {}, tmp_path / "a.safetensors")
        file = tmp_path / "a.safetensors"
        started = lora_training.Trained(networks, 2, 3.0)
        started.load(load_file(file))
        assert all(
            torch.equal(one.half(), other.half())
            for one, other in zip(started.parameters(), trained.parameters(), strict=True)
        )
        limited = lora_training.Trained(networks, 2, 3.0, most=0.5)
        limited.load_state_dict(trained.state_dict())
        written = limited.lora()
        limited.limit()
        for place, one in written.adapters.items():
            assert float(one.delta().norm()) <= 0.5001
            torch.testing.assert_close(limited.lora().adapters[place].delta(), one.delta())
        with pytest.raises(RuntimeError, match="other layers, ranks or alpha"):
            lora_training.Trained(networks, 2, 1.0).load(load_file(file))
        merged = lora.read(file, parts).changed(parts, 1.0)
        again = predicted(stable_diffusion.load(merged, torch.device("cpu"), torch.float32))
    assert not torch.allclose(live, before, atol=1e-2)
    torch.testing.assert_close(again, live, atol=2e-3, rtol=1e-3)  # the file is in half precision


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
