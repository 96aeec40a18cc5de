"""DEADiff: the readers' tokens, joint attention and the whole UNet give the published program's numbers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.core.errors import WeightsError  # noqa: E402
from atelier.methods.diffusion import deadiff as method  # noqa: E402
from atelier.pipelines import deadiff as networks  # noqa: E402
from atelier.pipelines import stable_diffusion_layout as layout  # noqa: E402
from atelier.pipelines.deadiff import Deadiff, Joint  # noqa: E402
from atelier.pipelines.stable_diffusion import StableDiffusion  # noqa: E402

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "deadiff" / "layout.json").read_text())
CASE = np.load(HERE / "deadiff" / "case.npz")
SMALL = LAYOUT["fixture_hyperparameters"]
WORDS: Any = dict(zip(networks.KINDS, map(tuple, SMALL["ids"]), strict=True))
UNET = "model.diffusion_model."
#: The arrays that tests have read or checked.
SEEN: set[str] = set()


def array(name: str) -> Tensor:
    SEEN.add(name)
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor, slack: float = 1e-5) -> None:
    """The case's tolerance: 1e-5 of the largest value."""
    SEEN.add(name)
    found = fill.compare(CASE, name, value.detach().numpy())
    assert found["rel"] <= slack, (name, found)


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    return {name: torch.from_numpy(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def pipeline(checkpoint: dict[str, Tensor]) -> StableDiffusion:
    """The UNet of the case without the joint attention's maps."""
    state = layout.unet_names(
        {
            name.removeprefix(UNET): value
            for name, value in checkpoint.items()
            if name.startswith(UNET) and ".i_to_" not in name
        }
    )
    unet = layout.empty("unet", layout.unet_settings(state))
    unet.load_state_dict(state, assign=True)
    nothing = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1,) * 4))
    return StableDiffusion(unet.requires_grad_(False), nothing, None, None, torch.device("cpu"))


@pytest.fixture(scope="module")
def network(checkpoint: dict[str, Tensor], pipeline: StableDiffusion) -> Deadiff:
    return networks.read(checkpoint, pipeline.unet, "the case", words=WORDS, heads=(SMALL["vh"], SMALL["qh"]))


# the readers


def test_what_is_seen_and_the_tokens_of_both_readers(network: Deadiff) -> None:
    assert set(network.visions) == {"style", "content"}  # in the case, unlike the published file, they differ
    vision = network.visions["style"]
    check("vit_out", vision.tower(array("image")).last_hidden_state)
    check("image_embeds", vision(array("image")))
    for kind, reader in network.readers.items():
        assert list(reader.words) == array(f"{kind}_input_ids")[0].tolist()
        seen = network.visions[kind](array("image"))
        check(f"{kind}_qformer_out", reader.read(seen, array(f"{kind}_input_ids"))[0])
        check(f"{kind}_tokens", reader(seen))


def test_words_that_are_padded(network: Deadiff) -> None:
    queries, words = network.readers["style"].read(
        array("qformer_padded_image_embeds"), array("qformer_padded_input_ids"), array("qformer_padded_mask")
    )
    check("qformer_padded_out", queries)
    check("qformer_padded_out_text", words)


# joint attention


def test_joint_attention(network: Deadiff, pipeline: StableDiffusion) -> None:
    (_, attention), *_ = networks.cross_attentions(pipeline.unet)
    features, words, tokens = (array(name) for name in ("joint_x", "text_tokens", "joint_image_tokens"))
    for name, weight, given in (
        ("w1", 1.0, {"style": tokens}),
        ("w06", 0.6, {"style": tokens}),
        ("zero_image", 1.0, {"style": torch.zeros_like(tokens)}),
        ("text_only", 1.0, {}),
    ):
        for sliced in (False, True):
            with Joint(pipeline.unet, network, weight=weight, sliced=sliced) as joint:
                joint.tokens = given
                check(f"joint_out_{name}", attention(features, words))


def test_the_layers_that_see_the_content(pipeline: StableDiffusion) -> None:
    """Their order is that of the case, whose names of diffusers are found at the same places."""
    published = LAYOUT["cross_attention_layers"]
    found = [path for path, _ in networks.cross_attentions(pipeline.unet)]
    assert found == [f"{one['diffusers']}.transformer_blocks.0.attn2" for one in published]
    inside = {one["index"] for one in published if one["receives"].startswith("content")}
    assert set(networks.content_layers(len(found))) == inside


def test_the_unet_in_the_three_modes(network: Deadiff, pipeline: StableDiffusion) -> None:
    latent, times, words = (array(name) for name in ("unet_latent", "unet_t", "text_tokens"))
    style, content = array("style_tokens"), array("content_tokens")
    nothing = network.nothing(2)
    noises = {}
    for name, weight, tokens, prompt in (
        ("style", 1.0, (style, nothing), words),
        ("content", 1.0, (nothing, content), words),
        ("both", 1.0, (style, content), words),
        ("style_w05", 0.5, (style, nothing), words),
        ("uncond", 1.0, (nothing, nothing), array("negative_text_tokens")),
    ):
        with Joint(pipeline.unet, network, weight=weight) as joint:
            joint.tokens = dict(zip(networks.KINDS, tokens, strict=True))
            noises[name] = pipeline.predict(latent, times, prompt)
        check(f"unet_eps_{name}", noises[name])
    check("guided_eps_style_g8", method.guided(noises["uncond"], noises["style"], 8.0), slack=1e-4)


def test_the_unet_is_left_as_it_was(network: Deadiff, pipeline: StableDiffusion) -> None:
    latent, times, words = (array(name) for name in ("unet_latent", "unet_t", "text_tokens"))
    before = pipeline.predict(latent, times, words)
    with Joint(pipeline.unet, network) as joint:
        joint.tokens = {kind: array(f"{kind}_tokens") for kind in networks.KINDS}
        assert not torch.allclose(pipeline.predict(latent, times, words), before, atol=1e-3)
    assert torch.equal(pipeline.predict(latent, times, words), before)


# files


def test_the_published_layout_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor of the published file that is used has its place, in the sizes that shapes tell."""
    monkeypatch.setattr(torch, "equal", lambda *_: True)  # both vision transformers are equal there
    official = {
        name: torch.empty(one["shape"], device="meta") for name, one in LAYOUT["official_layout"].items()
    }
    unused = {name for name, one in LAYOUT["official_layout"].items() if one.get("unused")}
    left_out = {name for name, one in official.items() if not networks.own_names({name: one})}
    assert left_out <= unused
    state = networks.own_names(official)
    sizes = networks.sizes_of(state)
    published = LAYOUT["hyperparameters"]
    assert (sizes.tokens, sizes.inner) == (16, published["projection"]["hidden"])
    assert sizes.vision["num_hidden_layers"] == published["vision"]["layers"]
    assert sizes.vision["num_attention_heads"] == published["vision"]["heads"]
    assert sizes.vision["image_size"] == published["vision"]["input_resolution"]
    qformer = published["qformer"]
    assert sizes.qformer["num_attention_heads"] == qformer["num_attention_heads"]
    assert sizes.qformer["encoder_hidden_size"] == qformer["encoder_width"]
    with torch.device("meta"):
        made = Deadiff(sizes)
    assert {name: one.shape for name, one in made.state_dict().items()} == {
        name: one.shape for name, one in state.items()
    }
    assert [channels for channels, _ in sizes.layers] == [
        one["channels"] for one in LAYOUT["cross_attention_layers"]
    ]
    assert {kind: list(ids) for kind, ids in networks.WORDS.items()} == published["text_ids"]


def test_one_vision_transformer_for_both_where_they_are_equal(
    checkpoint: dict[str, Tensor], pipeline: StableDiffusion
) -> None:
    """As in the published file; and BLIP-Diffusion's file starts both readers, with the maps of words."""
    seen = ("visual_encoder.", "ln_vision.")
    same = checkpoint | {
        name.replace("style_blip", "content_blip"): value
        for name, value in checkpoint.items()
        if name.startswith(tuple(f"style_blip.{one}" for one in seen))
    }
    heads = (SMALL["vh"], SMALL["qh"])
    made = networks.read(same, pipeline.unet, "it", words=WORDS, heads=heads)
    assert set(made.visions) == {"style"}
    again = networks.read(made.state_dict(), pipeline.unet, "it", words=WORDS, heads=heads)
    picture = torch.rand(1, 3, 30, 40)
    for kind in networks.KINDS:
        assert torch.equal(made.tokens(kind, picture), again.tokens(kind, picture))
    blip = {
        name.replace("style_blip", "blip").replace("style_proj", "proj"): value
        for name, value in checkpoint.items()
        if name.startswith("style_")
    }
    first = networks.read(blip, pipeline.unet, "it", words=WORDS, heads=heads)
    assert torch.equal(first.readers["style"].queries, first.readers["content"].queries)
    for (_, attention), maps in zip(networks.cross_attentions(pipeline.unet), first.maps, strict=True):
        assert torch.equal(maps.to_k.weight, attention.to_k.weight)
        assert torch.equal(maps.to_v.weight, attention.to_v.weight)


def test_files_that_are_refused(checkpoint: dict[str, Tensor], pipeline: StableDiffusion) -> None:
    with pytest.raises(WeightsError, match="holds no networks of deadiff"):
        networks.read({"a": torch.zeros(1)}, pipeline.unet, "it")
    some = {name: value for name, value in checkpoint.items() if "input_blocks.1." not in name}
    with pytest.raises(WeightsError, match="another base model: it joins 15 attentions"):
        networks.read(some, pipeline.unet, "it", words=WORDS, heads=(SMALL["vh"], SMALL["qh"]))


def test_every_array_of_the_case_was_used() -> None:
    assert set(CASE.files) <= SEEN
