"""Stable Diffusion: both layouts of files give the same networks, wrong files one sentence; memory plans."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.core import memory as available
from atelier.core.errors import OutputError, ResourceError, UsageError, WeightsError

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.pipelines import lora, lora_changes, memory, stable_diffusion  # noqa: E402
from atelier.pipelines import stable_diffusion_layout as layout  # noqa: E402
from atelier.pipelines import stable_diffusion_memory as plans  # noqa: E402

CPU = torch.device("cpu")
#: The settings of Stable Diffusion 1.5 that differ from the defaults of diffusers.
UNET = {"cross_attention_dim": 768, "attention_head_dim": 8}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
FULL = layout.Parts(
    layout.Part(UNET, dict), layout.Part(VAE, dict), layout.Part(TEXT, dict), Path(), empty=True
)


@pytest.fixture(scope="module")
def loaded(tiny_pipeline: Path) -> stable_diffusion.StableDiffusion:
    return stable_diffusion.load(layout.find(tiny_pipeline), CPU, torch.float32)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn((1, 4, 5, 7), generator=torch.Generator().manual_seed(0))


# reading


def test_a_folder_gives_what_diffusers_reads_from_it(
    tiny_pipeline: Path, loaded: stable_diffusion.StableDiffusion, latents: Tensor
) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    unet = UNet2DConditionModel.from_pretrained(tiny_pipeline / "unet")
    vae = AutoencoderKL.from_pretrained(tiny_pipeline / "vae")
    tokens = CLIPTokenizer.from_pretrained(tiny_pipeline / "tokenizer")
    text = CLIPTextModel.from_pretrained(tiny_pipeline / "text_encoder")
    pictures = torch.rand((2, 3, 40, 56), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        read = tokens(["red paint", ""], padding="max_length", max_length=77, return_tensors="pt")
        words = text(read["input_ids"]).last_hidden_state
        torch.testing.assert_close(loaded.words(["red paint", ""]), words)
        expected = unet(latents, 500, words[:1]).sample
        torch.testing.assert_close(loaded.predict(latents, 500, words[:1]), expected)
        encoded = vae.encode(2 * pictures - 1).latent_dist.mode() * 0.18215
        torch.testing.assert_close(loaded.encode(pictures), encoded)
        decoded = (vae.decode(latents / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(loaded.decode(latents), decoded)


def test_a_draw_from_the_posterior_is_seeded(loaded: stable_diffusion.StableDiffusion) -> None:
    picture = torch.full((1, 3, 16, 16), 0.3)
    first, again = (loaded.encode(picture, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, loaded.encode(picture))


def authors_unet(name: str, blocks: int = 2) -> str:
    """The authors' name of a tensor that diffusers calls `name`, spelled out block by block."""
    for ours, theirs in {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }.items():
        if name.startswith(f"{ours}."):
            name = theirs + name.removeprefix(ours)
    for level in range(2):
        for index in range(blocks):
            down, up = 1 + blocks * level + index, blocks * level + index
            attended = level > 0
            name = name.replace(f"down_blocks.{level}.resnets.{index}.", f"input_blocks.{down}.0.")
            name = name.replace(f"down_blocks.{level}.attentions.{index}.", f"input_blocks.{down}.1.")
            name = name.replace(f"up_blocks.{level}.resnets.{index}.", f"output_blocks.{up}.0.")
            name = name.replace(f"up_blocks.{level}.attentions.{index}.", f"output_blocks.{up}.1.")
            last = f"output_blocks.{blocks * level + blocks - 1}.{1 + attended}.conv."
            name = name.replace(f"up_blocks.{level}.upsamplers.0.conv.", last)
        name = name.replace(
            f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{blocks * (level + 1)}.0.op."
        )
    if ".transformer_blocks" not in name:
        for ours, theirs in (
            (".norm1.", ".in_layers.0."),
            (".conv1.", ".in_layers.2."),
            (".time_emb_proj.", ".emb_layers.1."),
            (".norm2.", ".out_layers.0."),
            (".conv2.", ".out_layers.3."),
            (".conv_shortcut.", ".skip_connection."),
        ):
            name = name.replace(ours, theirs)
    return f"model.diffusion_model.{name}"


def authors_vae(name: str) -> str:
    for ours, theirs in (
        (".mid_block.resnets.0.", ".mid.block_1."),
        (".mid_block.resnets.1.", ".mid.block_2."),
        (".mid_block.attentions.0.group_norm.", ".mid.attn_1.norm."),
        (".mid_block.attentions.0.to_out.0.", ".mid.attn_1.proj_out."),
        (".mid_block.attentions.0.to_", ".mid.attn_1."),
        (".conv_norm_out.", ".norm_out."),
        (".conv_shortcut.", ".nin_shortcut."),
    ):
        name = name.replace(ours, theirs)
    for level in range(4):
        name = name.replace(f".down_blocks.{level}.resnets.", f".down.{level}.block.")
        name = name.replace(f".down_blocks.{level}.downsamplers.0.", f".down.{level}.downsample.")
        name = name.replace(f".up_blocks.{level}.resnets.", f".up.{3 - level}.block.")
        name = name.replace(f".up_blocks.{level}.upsamplers.0.", f".up.{3 - level}.upsample.")
    return f"first_stage_model.{name}"


@pytest.fixture(scope="module")
def single_file(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as one file with the authors' names."""
    unet = load_file(tiny_pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(tiny_pipeline / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(tiny_pipeline / "text_encoder" / "model.safetensors")
    start = "cond_stage_model.transformer.text_model."
    state = {authors_unet(name): value for name, value in unet.items()}
    for name, value in vae.items():
        square = "attn_1" in authors_vae(name) and value.ndim == 2
        state[authors_vae(name)] = value[..., None, None] if square else value
    state |= {start + name.removeprefix("text_model."): value for name, value in text.items()}
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["alphas_cumprod"] = torch.ones(1000)
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_pipeline / "tokenizer" / name, path.parent / name)
    return path


def test_a_single_file_gives_the_same(
    single_file: Path, loaded: stable_diffusion.StableDiffusion, latents: Tensor
) -> None:
    other = stable_diffusion.load(layout.find(single_file), CPU, torch.float32)
    for kind in ("unet", "vae", "text"):
        mine, theirs = (getattr(one, kind).state_dict() for one in (other, loaded))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    words = loaded.words(["blue art"])
    assert torch.equal(other.words(["blue art"]), words)
    # The kernels may sum in another order where the tensors lie at other addresses.
    torch.testing.assert_close(
        other.predict(latents, 3, words), loaded.predict(latents, 3, words), atol=1e-5, rtol=1e-5
    )


def test_a_lora_merged_into_a_single_file_keeps_its_names(single_file: Path, tmp_path: Path) -> None:
    """The file is the changed pipeline, with the names and other tensors that it had."""
    places = ("unet", "up_blocks.1.attentions.0.proj_in"), ("text", "encoder.layers.0.self_attn.q_proj")
    shapes = {place: lora.layers(layout.find(single_file))[place] for place in places}
    adapters = {
        place: lora.Adapter(torch.ones(1, *shape[1:]), torch.ones(shape[0], 1, *shape[2:]), 1.0)
        for place, shape in shapes.items()
    }
    lora_changes.write(lora.Lora(adapters, "kohya", {}), {}, tmp_path / "a.safetensors")
    lora_changes.merge(str(single_file), [(str(tmp_path / "a.safetensors"), 0.5)], tmp_path / "b.safetensors")
    before, after = load_file(single_file), load_file(tmp_path / "b.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 2
    for name in changed:
        torch.testing.assert_close(after[name] - before[name], torch.full_like(before[name], 0.5))
    with pytest.raises(OutputError, match="exists"):
        lora_changes.merge(str(single_file), [("a", 1.0)], tmp_path / "b.safetensors")


def test_the_authors_names_of_the_vae_are_those_that_diffusers_converts(single_file: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    state = load_file(single_file)
    start = "first_stage_model."
    mine = layout.vae_names(
        {name.removeprefix(start): one for name, one in state.items() if name.startswith(start)}
    )
    theirs = convert_ldm_vae_checkpoint(state, layout.vae_settings(mine))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_old_names_of_attention_in_the_vae(tiny_pipeline: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_pipeline, tmp_path / "old")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, old in renamed.items():
        state = {name.replace(f".{new}.", f".{old}."): value for name, value in state.items()}
    save_file(state, file)
    read = layout.find(folder).vae.read()
    assert read.keys() == load_file(tiny_pipeline / "vae" / "diffusion_pytorch_model.safetensors").keys()


# refusals


def changed(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda it: changed(it, "model_index.json", text_encoder_2=["a", "b"]), "SDXL"),
        (lambda it: changed(it, "unet/config.json", addition_embed_type="text_time"), "SDXL"),
        (lambda it: changed(it, "unet/config.json", in_channels=9), "9 channels, as for inpainting"),
        (lambda it: changed(it, "unet/config.json", block_out_channels=[32, 96]), "differ in shape"),
        (lambda it: changed(it, "scheduler/scheduler_config.json", beta_end=0.02), "beta_end 0.02 instead"),
        (lambda it: changed(it, "scheduler/scheduler_config.json", prediction_type="flow"), "'flow'"),
        (lambda it: (it / "unet/diffusion_pytorch_model.safetensors").unlink(), "has no diffusion_pytorch"),
        (lambda it: (it / "vae/config.json").unlink(), "no vae/config.json"),
        (lambda it: (it / "model_index.json").unlink(), "has no model_index.json"),
        (lambda it: (it / "model_index.json").write_text("{"), "not JSON"),
    ],
)
def test_folders_that_are_refused(
    change: Callable[[Path], Any], sentence: str, tiny_pipeline: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_pipeline, tmp_path / "other")
    change(folder)
    with pytest.raises(WeightsError, match=sentence) as caught:
        stable_diffusion.load(layout.find(folder), CPU, torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["conditioner.embedders.0.transformer.x", "model.diffusion_model.input_blocks.0.0.weight"], "SDXL"),
        (["cond_stage_model.model.x", "model.diffusion_model.input_blocks.0.0.weight"], "2.x series"),
        (["lora_unet_down_blocks_0.lora_up.weight"], "a LoRA and no whole model"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "no VAE"),
        (["features.0.weight"], "another network"),
    ],
)
def test_files_that_are_refused(names: list[str], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(4, 4) for name in names}, path)
    with pytest.raises(WeightsError, match=sentence):
        layout.find(path)


def test_absent_weights_are_named_with_the_command_that_fetches_them() -> None:
    with pytest.raises(WeightsError, match=r"weights pull stable_diffusion\.v1_5"):
        layout.find("stable_diffusion.v1_5")


def test_words_that_are_too_long_or_cannot_be_read(
    single_file: Path, loaded: stable_diffusion.StableDiffusion, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="75 are read"):
        loaded.words(["photo " * 80])
    alone = replace(loaded, tokens=None)
    assert torch.equal(alone.words([""]), loaded.words([""]))
    with pytest.raises(WeightsError, match="no vocabulary"):
        alone.words(["photo"])


# memory


def test_peak_counts_what_exists_at_once() -> None:
    """Of four additions in a row, two results exist at once; of their sum only it is left."""

    def chain() -> Tensor:
        one = torch.zeros(256)
        for _ in range(4):
            one = one + 1
        return one

    assert memory.peak(chain) == 2 * 1024
    weight = torch.ones(256, device="meta", requires_grad=True)
    kept = memory.peak(lambda: torch.autograd.backward((weight.exp().exp().exp()).sum()))
    assert kept >= 3 * 1024  # what gradients need is kept


def test_attention_counts_its_weights_only_where_kernels_are_not_fused() -> None:
    def attend() -> Tensor:
        query = torch.empty(1, 2, 64, 8)
        return torch.nn.functional.scaled_dot_product_attention(query, query, query)

    assert memory.peak(attend, fused=False) - memory.peak(attend) == 4 * (2 * 64 * 64 - 2 * 64)


def test_the_networks_of_the_full_size_have_their_published_number_of_weights() -> None:
    """860 million in the UNet, 84 in the VAE, 123 in the text encoder (Stable Diffusion 1.5)."""
    counts = plans.weights_of(FULL)
    assert counts == (859_520_964, 83_653_863, 123_060_480)


class Machine:
    """A machine whose free memory can be set, and the plans of the tiny pipeline on it."""

    def __init__(self, parts: layout.Parts, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts, self.free = parts, 1 << 40
        monkeypatch.setattr(available, "available", lambda device: self.free)

    def plan(self, free: int | None = None, device: str = "cpu", **options: Any) -> plans.MemoryPlan:
        self.free = 1 << 40 if free is None else free
        return plans.plan(self.parts, (640, 512), torch.device(device), torch.float32, **options)


@pytest.fixture
def machine(tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(layout.find(tiny_pipeline), monkeypatch)


def test_a_plan_gives_up_features_first_and_then_whole_pictures(machine: Machine) -> None:
    kept = (3 << 30, 0)
    rich = machine.plan(kept=kept)
    poor = machine.plan(rich.total - 1, kept=kept)
    poorest = machine.plan(poor.total - 1, kept=kept)
    assert (rich.kept, rich.tiles) == (3 << 30, False)
    assert (poor.kept, poor.tiles) == (0, False)
    assert (poorest.kept, poorest.tiles) == (0, True)
    assert rich.total - poor.total == 3 << 30
    with pytest.raises(ResourceError, match=r"512 x 640 pixels needs at least .* GiB are available"):
        machine.plan(poorest.total - 1, kept=kept)
    assert "the VAE in tiles" in str(poorest)
    assert "\n" not in str(poorest)


def test_networks_that_are_loaded_already_need_no_room(machine: Machine) -> None:
    least = machine.plan(savings=plans.Savings(tiles="on"))
    with pytest.raises(ResourceError):
        machine.plan(least.total - 1)
    assert machine.plan(least.total - 1, loaded=True).available == least.total - 1 + least.networks


def test_on_a_gpu_networks_wait_in_main_memory_at_last(machine: Machine) -> None:
    tiled = machine.plan(device="cuda", savings=plans.Savings(tiles="on", offload="off"))
    last = machine.plan(tiled.total - 1, device="cuda")
    assert (last.tiles, last.offload) == (True, True)
    assert last.networks == max(4 * count for count in plans.weights_of(machine.parts))
    with pytest.raises(ResourceError):
        machine.plan(tiled.total - 1, device="cuda", savings=plans.Savings(offload="off"))


def test_saving_memory_changes_nothing_but_tiles(
    tiny_pipeline: Path, loaded: stable_diffusion.StableDiffusion, latents: Tensor
) -> None:
    words = loaded.words([""])
    parts = layout.find(tiny_pipeline)
    sliced = stable_diffusion.load(parts, CPU, torch.float32, offload=True, slices=True)
    plan = plans.MemoryPlan(CPU, torch.float32, 0, 0, 0, False, True, True, 0)
    sliced = replace(sliced, plan=plan)
    torch.testing.assert_close(sliced.predict(latents, 7, words), loaded.predict(latents, 7, words))
    tiled = replace(loaded, plan=replace(plan, tiles=True))
    picture = torch.rand((1, 3, 528, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert tiled.encode(picture).shape == loaded.encode(picture).shape
        assert not torch.equal(tiled.encode(picture), loaded.encode(picture))
    assert not loaded.vae.use_tiling
