"""LoRA files of sd-scripts: names, changes of weights, and what the changed layers compute."""

from __future__ import annotations

import importlib.util
import json
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
    """The 192 layers of the UNet, with their shapes at rank 4."""
    unet = layout.empty("unet", {"cross_attention_dim": 768, "attention_head_dim": 8})
    with torch.device("meta"):
        made = lora.Trained(unet, 4, 1.0).exported()
    official = LAYOUT["official_layout"]
    assert {name: list(one.shape) for name, one in made.items()} == {
        name: one["shape"] for name, one in official.items() if name.startswith("lora_unet_")
    }


def test_the_weights_of_steps_and_the_offset_of_noise() -> None:
    from atelier.losses.diffusion import min_snr_weight
    from atelier.maths import schedules
    from atelier.methods.diffusion.lora import offset

    schedule, index = schedules.scaled_linear(), torch.from_numpy(CASE["snr_t"])
    left = schedule.alphas_cumprod[CASE["snr_t"]]
    np.testing.assert_allclose(left / (1 - left), CASE["snr"], rtol=1e-4)
    for target in ("eps", "v"):
        found = min_snr_weight(schedule, target, index, 5.0).flatten().numpy()
        np.testing.assert_allclose(found, CASE[f"min_snr5_{target}"], rtol=1e-4)
    noise, level = (torch.from_numpy(CASE[f"offset_{name}"]) for name in ("noise_in", "gauss"))
    check("offset_out_0p1", offset(noise, level, 0.1))


def _converted() -> list[str]:
    return [str(name) for name in LAYOUT["diffusers_converted_keys_example"]]
