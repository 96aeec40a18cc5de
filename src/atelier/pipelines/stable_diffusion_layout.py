"""The files of Stable Diffusion 1.x: a folder of diffusers, or a single file in the layout of its authors.

Both become the settings and tensors of three networks, under the names that diffusers and transformers use.
A folder may also hold a model of the 2.x series, whose networks differ in their settings alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atelier.core.errors import WeightsError, first_line
from atelier.features.clip_layout import layout_of, read_json
from atelier.maths.diffusion import Target
from atelier.store import checkpoints, weights

State = dict[str, Tensor]

#: What every refusal ends with.
REMEDY = "use Stable Diffusion 1.x, such as stable_diffusion.v1_5"
#: The factor of the latents, where the settings do not say it.
SCALING = 0.18215
#: The token that fills up prompts in the 1.x series.
PAD = "<|endoftext|>"
#: Attention heads at every level, and the groups of group norm; shapes do not show them.
_HEADS, _GROUPS = 8, 32
_STEMS = {"unet": "diffusion_pytorch_model", "text": "model"}
_TARGETS: Mapping[str, Target] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}


class Part(NamedTuple):
    """One network: its settings, and what reads its tensors."""

    settings: dict[str, Any]
    read: Callable[[], State]


@dataclass(frozen=True)
class Parts:
    """The three networks. `vocabulary` is the folder in which the tokens of words are looked for."""

    unet: Part
    vae: Part
    text: Part
    vocabulary: Path
    target: Target = "eps"
    pad: str = PAD
    #: Whether only the settings are left.
    empty: bool = False

    def settled(self) -> Parts:
        """The settings without the tensors, which would otherwise stay in memory."""
        unet, vae, text = (Part(part.settings, dict) for part in (self.unet, self.vae, self.text))
        return replace(self, unet=unet, vae=vae, text=text, empty=True)


def find(name: str | Path) -> Parts:
    """The parts of a pipeline: of the store by name, or of the user's own folder or file.

    Raises WeightsError if they are missing or incomplete, or are another kind of model.
    """
    path = Path(name).expanduser() if weights.is_path(name) else weights.locate(str(name))
    try:
        return of_folder(path) if path.is_dir() else of_file(path)
    except WeightsError as error:
        text = str(error)
        raise WeightsError(text if text.startswith(str(path)) else f"{path}: {text}") from error


# networks and folders


def empty(kind: str, settings: Mapping[str, Any]) -> Any:
    """A network on the meta device, without weights: "unet", "vae" or "text". Raises WeightsError."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    own = {name: value for name, value in settings.items() if not name.startswith("_")}
    try:
        with torch.device("meta"):
            if kind == "text":
                network: Any = CLIPTextModel(CLIPTextConfig(**_plain(own)))
            else:
                network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[kind].from_config(own)
        return network.eval()
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"the settings of its {kind} are not supported ({first_line(error)}): {REMEDY}"
        ) from error


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a text encoder without those of its file."""
    return {
        name: value
        for name, value in settings.items()
        if name not in ("architectures", "torch_dtype", "dtype")
    }


def of_folder(folder: Path) -> Parts:
    """The parts of a folder in diffusers' layout. Raises WeightsError."""
    index = read_json(folder / "model_index.json")
    if not index:
        raise WeightsError(f"{folder} is no pipeline: it has no model_index.json; {REMEDY}")
    unet = read_json(folder / "unet" / "config.json")
    _check_kind(str(index.get("_class_name", "a model of unknown kind")), index, unet)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    _check_schedule(scheduler)
    named = str(scheduler.get("prediction_type", "epsilon"))
    if named not in _TARGETS:
        raise WeightsError(f"its network predicts '{named}', which is not supported; {REMEDY}")
    parts = {name: folder / name for name in ("unet", "vae", "text_encoder")}
    absent = [name for name, path in parts.items() if not read_json(path / "config.json")]
    if absent:
        raise WeightsError(f"{folder} has no {absent[0]}/config.json: use the whole folder of the pipeline")
    return Parts(
        Part(unet, lambda: tensors_in(parts["unet"], _STEMS["unet"])),
        Part(read_json(parts["vae"] / "config.json"), lambda: _vae_tensors(parts["vae"])),
        Part(read_json(parts["text_encoder"] / "config.json"), lambda: _text_tensors(parts["text_encoder"])),
        folder / "tokenizer",
        _TARGETS[named],
        _pad(folder / "tokenizer"),
    )


def _pad(folder: Path) -> str:
    """The token that fills up prompts."""
    found = read_json(folder / "tokenizer_config.json").get("pad_token") or PAD
    return str(found["content"] if isinstance(found, dict) else found)


def _check_kind(kind: str, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Raise WeightsError for pipelines of another kind."""
    if "text_encoder_2" in index or unet.get("addition_embed_type") == "text_time":
        raise WeightsError(f"this is {kind}, a model of the SDXL series: {REMEDY}")
    if absent := [name for name in ("unet", "vae", "text_encoder") if name not in index]:
        raise WeightsError(f"this is {kind}, which has no {absent[0]}: {REMEDY}")
    _check_channels(int(unet.get("in_channels", 4)))


def _check_channels(channels: int) -> None:
    if channels != 4:
        raise WeightsError(
            f"its UNet takes {channels} channels, as for inpainting or editing, instead of 4: {REMEDY}"
        )


def _check_schedule(scheduler: Mapping[str, Any]) -> None:
    """Raise WeightsError for another noise schedule than that of Stable Diffusion 1.x and 2.x."""
    for name, usual in _SCHEDULE.items():
        if abs(float(scheduler.get(name, usual)) - usual) > 1e-9:
            raise WeightsError(
                f"its noise schedule has {name} {scheduler[name]} instead of {usual}: {REMEDY}"
            )


def tensors_in(folder: Path, stem: str) -> State:
    """The tensors of a component: the plain file, else a variant of half precision."""
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{stem}.bin"):
        if (folder / name).is_file():
            return checkpoints.read_checkpoint(folder / name)
    raise WeightsError(f"{folder} has no {stem}.safetensors: use the whole folder of the pipeline")


#: Names that diffusers gave the attention of the VAE before 2023; published files still have them.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _vae_tensors(folder: Path) -> State:
    old = re.compile(rf"(.*\.attentions\.0\.)({'|'.join(_OLD_ATTENTION)})(\..*)")
    found = tensors_in(folder, "diffusion_pytorch_model")
    return {old.sub(lambda m: m[1] + _OLD_ATTENTION[m[2]] + m[3], name): one for name, one in found.items()}


def _text_tensors(folder: Path) -> State:
    return text_names(tensors_in(folder, _STEMS["text"]))


def text_names(state: Mapping[str, Tensor]) -> State:
    """The tensors of CLIP's text tower, without the `text_model.` of older versions of transformers."""
    return {
        name.removeprefix("text_model."): value
        for name, value in state.items()
        if not name.endswith("position_ids")
    }


# single files

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def of_file(path: Path) -> Parts:
    """The parts of a single file, .ckpt or .safetensors, in its authors' layout. Raises WeightsError."""
    state = weights.load(path)
    check_file(state)
    unet = unet_names(_below(state, _UNET))
    vae = vae_names(_below(state, _VAE))
    text = text_names(_below(state, _TEXT))
    return Parts(
        Part(unet_settings(unet), lambda: unet),
        Part(vae_settings(vae), lambda: vae),
        Part(text_settings(text), lambda: text),
        path.parent,
    )


def place_in_folder(folder: Path, kind: str) -> tuple[Path, str]:
    """The folder of a network in a pipeline, and the stem of its file; `kind` is "unet" or "text"."""
    return folder / {"unet": "unet", "text": "text_encoder"}[kind], _STEMS[kind]


def names_in_file(state: Iterable[str], kind: str) -> dict[str, str]:
    """The names of a single file's tensors, by those of diffusers; `kind` is "unet" or "text"."""
    start = {"unet": _UNET, "text": _TEXT}[kind]
    names: Any = {name.removeprefix(start): name for name in state if name.startswith(start)}
    found: Any = unet_names(names) if kind == "unet" else text_names(names)
    return dict(found)


def check_file(state: Iterable[str]) -> None:
    """Raise WeightsError for the names of a file that is no whole Stable Diffusion 1.x."""
    names = list(state)

    def some(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    if some("conditioner.embedders.") or some(f"{_UNET}label_emb."):
        raise WeightsError(f"this is a model of the SDXL series: {REMEDY}")
    if some("lora_unet_") or any(".lora_" in name for name in names):
        raise WeightsError(f"this is a LoRA and no whole model: {REMEDY}")
    if some("cond_stage_model.model."):
        raise WeightsError(
            f"this is a single file of the 2.x series: use its folder in diffusers' layout, or {REMEDY}"
        )
    kinds = {"UNet": f"{_UNET}input_blocks.0.", "VAE": f"{_VAE}decoder.", "text encoder": _TEXT}
    absent = [kind for kind, start in kinds.items() if not some(start)]
    if len(absent) == len(kinds):
        raise WeightsError(f"these {len(names)} tensors (first: {names[0]}) are another network: {REMEDY}")
    if absent:
        raise WeightsError(f"the file has no {absent[0]}: use the whole model, or {REMEDY}")


def _below(state: Mapping[str, Tensor], start: str) -> State:
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


_UNET_TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_UNET_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def unet_names(state: Mapping[str, Tensor]) -> State:
    """The tensors of the authors' UNet under diffusers' names; `model.diffusion_model.` is removed before.

    >>> import torch
    >>> names = "input_blocks.3.0.op.bias", "input_blocks.5.1.norm.bias"
    >>> list(unet_names(dict.fromkeys(names, torch.zeros(1))))
    ['down_blocks.0.downsamplers.0.conv.bias', 'down_blocks.1.attentions.1.norm.bias']
    """
    downward = (re.fullmatch(r"input_blocks\.(\d+)\.0\.op\.bias", name) for name in state)
    # The first block is the first convolution, and the last one of a level makes the next one smaller.
    blocks = min((int(found[1]) for found in downward if found), default=3)
    return {_unet_name(name, blocks): value for name, value in state.items()}


def _unet_name(name: str, blocks: int) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _UNET_TOP:
        return f"{_UNET_TOP[stem]}.{kind}"
    middle = re.fullmatch(r"middle_block\.(\d)\.(.+)", stem)
    if middle:
        part = "attentions.0" if middle[1] == "1" else f"resnets.{int(middle[1]) // 2}"
        return f"mid_block.{part}.{_residual(middle[2])}.{kind}"
    found = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", stem)
    if not found:
        return name
    way, number, place, rest = found[1], int(found[2]), int(found[3]), found[4]
    level, index = divmod(number - (way == "input"), blocks)
    start = f"{'down' if way == 'input' else 'up'}_blocks.{level}"
    if rest in ("op", "conv"):
        return f"{start}.{'downsamplers' if rest == 'op' else 'upsamplers'}.0.conv.{kind}"
    return f"{start}.{('resnets', 'attentions')[place]}.{index}.{_residual(rest)}.{kind}"


def _residual(rest: str) -> str:
    return _UNET_RESIDUAL.get(rest, rest)


_VAE_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}


def vae_names(state: Mapping[str, Tensor]) -> State:
    """The tensors of the authors' VAE under diffusers' names; `first_stage_model.` is removed before."""
    levels = 1 + max((int(found[1]) for name in state if (found := _UP.match(name))), default=3)
    return dict(_vae_tensor(name, value, levels) for name, value in state.items())


_UP = re.compile(r"decoder\.up\.(\d+)\.")


def _vae_tensor(name: str, value: Tensor, levels: int) -> tuple[str, Tensor]:
    name = re.sub(r"coder\.norm_out\.", "coder.conv_norm_out.", name)
    name = name.replace(".nin_shortcut.", ".conv_shortcut.")
    name = re.sub(r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
    name = re.sub(r"\.down\.(\d)\.block\.", r".down_blocks.\1.resnets.", name)
    name = re.sub(r"\.down\.(\d)\.downsample\.", r".down_blocks.\1.downsamplers.0.", name)
    name = re.sub(r"\.up\.(\d)\.block\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.resnets.", name)
    name = re.sub(
        r"\.up\.(\d)\.upsample\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.upsamplers.0.", name
    )
    attention = re.fullmatch(r"(.*)\.mid\.attn_1\.(\w+)\.(\w+)", name)
    if attention:
        name = f"{attention[1]}.mid_block.attentions.0.{_VAE_ATTENTION[attention[2]]}.{attention[3]}"
        # The authors have convolutions of 1 x 1, and diffusers linear layers.
        value = value.flatten(1) if value.ndim == 4 else value
    return name, value


# the settings that follow from shapes


def unet_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a UNet of the 1.x series. Raises WeightsError for one that takes other channels."""
    _check_channels(state["conv_in.weight"].shape[1])
    levels = _count(state, "down_blocks")
    with_attention = [f"down_blocks.{level}.attentions.0.norm.weight" in state for level in range(levels)]
    contexts = [value.shape[1] for name, value in state.items() if name.endswith("attn2.to_k.weight")]
    return {
        "block_out_channels": _channels(state, "down_blocks", levels),
        "layers_per_block": _count(state, "down_blocks.0.resnets"),
        "cross_attention_dim": contexts[0],
        "attention_head_dim": _HEADS,
        "norm_num_groups": _GROUPS,
        "down_block_types": [f"{'CrossAttn' * one}DownBlock2D" for one in with_attention],
        "up_block_types": [f"{'CrossAttn' * one}UpBlock2D" for one in reversed(with_attention)],
    }


def vae_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a VAE of the 1.x series."""
    levels = _count(state, "encoder.down_blocks")
    return {
        "block_out_channels": _channels(state, "encoder.down_blocks", levels),
        "layers_per_block": _count(state, "encoder.down_blocks.0.resnets"),
        "latent_channels": state["post_quant_conv.weight"].shape[0],
        "norm_num_groups": _GROUPS,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": SCALING,
    }


def text_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of the text tower of OpenAI's CLIP."""
    vocabulary = state["embeddings.token_embedding.weight"].shape[0]
    layout = layout_of({f"text_model.{name}": value for name, value in state.items()}, "text")
    return layout.settings("quick_gelu") | {
        "vocab_size": vocabulary,
        "max_position_embeddings": state["embeddings.position_embedding.weight"].shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _count(state: Iterable[str], start: str) -> int:
    found = (re.match(rf"{re.escape(start)}\.(\d+)\.", name) for name in state)
    return len({one[1] for one in found if one})


def _channels(state: Mapping[str, Tensor], start: str, levels: int) -> list[int]:
    return [state[f"{start}.{level}.resnets.0.conv1.weight"].shape[0] for level in range(levels)]
