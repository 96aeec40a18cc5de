"""sd-scripts: names of files, changes of weights, what changed layers compute, buckets, captions, hashes."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.pipelines import lora  # noqa: E402
from atelier.pipelines import stable_diffusion_layout as layout  # noqa: E402
from atelier.pipelines.lora_metadata import hashes  # noqa: E402
from atelier.pipelines.lora_training import Trained  # noqa: E402
from atelier.training.buckets import Buckets  # noqa: E402
from atelier.training.captions import Rules  # noqa: E402

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "lora" / "layout.json").read_text())
CASE = np.load(HERE / "lora" / "case.npz")
MODULES: list[dict[str, Any]] = LAYOUT["fixture_modules"]
SHARE = LAYOUT["fixture_hyperparameters"]["multiplier"]


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    return {name: torch.from_numpy(value) for name, value in found.items()}


def check(name: str, value: Tensor) -> None:
    wanted = CASE[name]
    assert value.shape == wanted.shape
    assert np.abs(value.numpy() - wanted).max() <= 2e-6 * np.abs(wanted).max(), name


def place(module: dict[str, Any]) -> lora.Place:
    path = module["module"]
    return ("text", path.removeprefix("text_model.")) if path.startswith("text_model.") else ("unet", path)


def opened() -> lora.Lora:
    return lora.opened(filled("lora"), {}, [place(one) for one in MODULES], "the case")


def test_the_adapters_of_a_file() -> None:
    found = opened()
    assert found.layout == "kohya"
    assert len(found.adapters) == len(MODULES)
    for module in MODULES:
        adapter = found.adapters[place(module)]
        assert adapter.rank == module["rank"]
        assert adapter.alpha / adapter.rank == pytest.approx(module["scale"])


@pytest.mark.parametrize("module", MODULES, ids=lambda one: one["module"])
def test_the_change_of_a_layer(module: dict[str, Any]) -> None:
    adapter, name = opened().adapters[place(module)], module["lora"]
    base = filled("base")
    check(f"{name}__delta", SHARE * adapter.delta())
    (merged,) = lora.merged(
        {"layer.weight": base[f"{module['module']}.weight"]}, {"layer": adapter}, SHARE
    ).values()
    check(f"{name}__merged", merged)
    seen, bias = torch.from_numpy(CASE[f"{name}__x"]), base.get(f"{module['module']}.bias")
    if merged.ndim == 2:
        made = F.linear(seen, merged, bias)
    else:
        stride = 2 if "downsamplers" in module["module"] else 1
        made = F.conv2d(seen, merged, bias, stride=stride, padding=merged.shape[-1] // 2)
    check(f"{name}__y", made)


def test_every_name_of_a_published_file_has_its_layer() -> None:
    """Also in the layouts of diffusers and PEFT, for the layers of the full Stable Diffusion 1.5."""
    unet = {"cross_attention_dim": 768, "attention_head_dim": 8}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    parts = layout.Parts(layout.Part(unet, dict), layout.Part({}, dict), layout.Part(text, dict), Path())
    layers = {(kind, path) for kind in ("unet", "text") for path, _ in lora._layers(parts, kind)}
    table = {row[0]: place({"module": row[2]}) for row in LAYOUT["module_table"]}
    with torch.device("meta"):
        names = LAYOUT["official_layout"] | LAYOUT["official_layout_conv_extra"]
        pieces = {
            name: torch.empty(one["shape"]) for name, one in names.items() if not name.endswith("alpha")
        }
        found = lora.opened(pieces, {}, layers, "the case")
        assert found.adapters.keys() == set(table.values())
        assert {name: lora.kohya(one) for name, one in table.items()} == {name: name for name in table}
        dotted = {f"{name.removesuffix('.weight')}.weight": torch.empty(4, 4) for name in _converted()}
        assert lora.opened(dotted, {}, layers, "the case").adapters.keys() <= layers


def test_training_changes_the_layers_that_a_published_file_has() -> None:
    """The 192 layers of the UNet and the 72 of the text encoder, with their shapes at rank 4."""
    unet = layout.empty("unet", {"cross_attention_dim": 768, "attention_head_dim": 8})
    text = layout.empty("text", {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12})
    with torch.device("meta"):
        made = Trained({"unet": unet, "text": text}, 4, 1.0)
        found = {name: list(one.shape) for name, one in made.lora().state().items()}
    assert found == {name: one["shape"] for name, one in LAYOUT["official_layout"].items()}


def test_the_blocks_of_layers() -> None:
    for name, model, path, _, block in LAYOUT["module_table"]:
        if model != "text_encoder":
            assert lora.block_of(name) == lora.block_of(path) == block, name


def test_the_limit_of_norms() -> None:
    limited = {name: one.limited(1.0) for name, one in opened().adapters.items()}
    for module in MODULES:
        small, _ = limited[place(module)]
        check(f"{module['lora']}__down_max_norm", small.down)
    norms = [norm for _, norm in limited.values()]
    scaled = sum(float(one.delta().norm()) > 1.0 for one in opened().adapters.values())
    np.testing.assert_allclose([scaled, np.mean(norms), max(norms)], CASE["max_norm_stats"], rtol=1e-6)


def test_the_weights_of_steps_and_the_offset_of_noise() -> None:
    from atelier.losses import diffusion
    from atelier.maths import schedules
    from atelier.methods.diffusion.lora import offset

    schedule, index = schedules.scaled_linear(), torch.from_numpy(CASE["snr_t"])
    left = schedule.alphas_cumprod[CASE["snr_t"]]
    found = {"snr": left / (1 - left), "v_like_noise": diffusion.noise_weight(schedule, index)}
    for target in ("eps", "v"):
        found[f"min_snr5_{target}"] = diffusion.min_snr_weight(schedule, target, index, 5.0)
        found[f"debiased_{target}"] = diffusion.debiased_weight(schedule, target, index)
    for name, value in found.items():
        np.testing.assert_allclose(np.ravel(value), CASE[name], rtol=1e-4, err_msg=name)
    noise, level, clean = (
        torch.from_numpy(CASE[f"offset_{name}"]) for name in ("noise_in", "gauss", "latents")
    )
    check("offset_out_0p1", offset(noise, level, 0.1))
    size = clean.mean((2, 3), keepdim=True).abs()
    check("offset_out_adaptive", offset(noise, level, 0.05, 0.2 * size))


def test_the_sizes_of_buckets() -> None:
    for name, wanted in LAYOUT["tables"]["buckets"]["resolutions"].items():
        width, height = map(int, name.split("x"))
        assert [list(one) for one in Buckets((width, height)).sizes] == wanted


def test_every_picture_gets_its_bucket() -> None:
    for row in LAYOUT["tables"]["buckets"]["assign"]:
        upscale, single = not row.get("no_upscale", False), row.get("bucketing") == "off"
        found = Buckets(tuple(row["max"]), upscale=upscale, single=single).place(tuple(row["image"]))
        names = ("bucket", "resized", "centre_crop_left_top")
        assert [list(one) for one in found[:3]] == [row[name] for name in names], row
        assert found.error == pytest.approx(row["ar_error"], abs=1e-8)


#: Our names for the options of captions.
OPTIONS = {
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
    "caption_dropout_rate": "dropped",
    "caption_dropout_every_n_epochs": "dropped_epoch",
    "shuffle_caption": "shuffled",
    "keep_tokens": "kept",
    "keep_tokens_separator": "kept_mark",
    "caption_tag_dropout_rate": "tags_dropped",
    "token_warmup_step": "warmup",
    "secondary_separator": "joint",
    "enable_wildcard": "wildcards",
}


@pytest.mark.parametrize("row", LAYOUT["tables"]["captions"], ids=lambda row: row["case"])
def test_captions_change_from_step_to_step(row: dict[str, Any]) -> None:
    rules = Rules(**{OPTIONS[name]: value for name, value in row["options"].items()})
    found = rules.drawn(row["caption"], random.Random(row["python_random_seed"]), epoch=2, step=40)
    assert found == row["result"]


def test_the_hashes_of_a_file() -> None:
    known = LAYOUT["hashes"]
    found = hashes(filled("lora"), known["metadata"])
    assert found == {name: known[name] for name in ("sshs_model_hash", "sshs_legacy_hash")}


def test_every_array_is_checked() -> None:
    """All arrays have a name that a test above asks for."""
    layers = {
        f"{one['lora']}__{what}" for one in MODULES for what in ("x", "y", "delta", "merged", "down_max_norm")
    }
    steps = {"snr_t", "snr", "v_like_noise", "max_norm_stats"}
    steps |= {f"{name}_{target}" for name in ("min_snr5", "debiased") for target in ("eps", "v")}
    steps |= {f"offset_{name}" for name in ("noise_in", "latents", "gauss", "out_0p1", "out_adaptive")}
    assert set(CASE.files) == layers | steps


def _converted() -> list[str]:
    return [str(name) for name in LAYOUT["diffusers_converted_keys_example"]]
