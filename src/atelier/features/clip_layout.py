"""The files of CLIP: names of tensors, the sizes that follow from them, and the settings beside them.

Three layouts are read: that of transformers, that of OpenAI's files, and OpenCLIP's, which has OpenAI's
names. Only vision transformers are supported, not ResNets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from atelier.core.errors import WeightsError

Triple = tuple[float, float, float]
Activation = Literal["quick_gelu", "gelu"]

#: The mean and deviation of the pictures that OpenAI trained on.
MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
STD: Triple = (0.26862954, 0.26130258, 0.27577711)

_TOP = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
#: Not weights: facts on the network, and a mask and positions that are computed.
_FACTS = re.compile(r"input_resolution|context_length|vocab_size|attn_mask|.*\.position_ids")
#: Widths of vision transformers whose heads do not have 64 channels, and their number of heads.
_HEADS = {1280: 16, 1408: 16, 1664: 16}


@dataclass(frozen=True)
class Layout:
    """The sizes of one tower: width, layers, heads, and the width of the layers between."""

    width: int
    layers: int
    heads: int
    inner: int

    def settings(self, activation: Activation) -> dict[str, Any]:
        """The settings of transformers for a tower of this layout."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.inner,
            "hidden_act": activation,
        }


@dataclass(frozen=True)
class Beside:
    """What the settings beside a weights file say; None where they are silent."""

    activation: Activation | None = None
    mean: Triple = MEAN
    std: Triple = STD


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under transformers' names, in float32, whichever layout they have.

    Raises WeightsError for tensors of another network.
    """
    if "visual.conv1.weight" in state or "visual.layer1.0.conv1.weight" in state:
        state = _translated(state)
    plain = {name: value.float() for name, value in state.items() if not _FACTS.fullmatch(name)}
    if "vision_model.embeddings.patch_embedding.weight" not in plain or "text_projection.weight" not in plain:
        first = ", ".join(list(state)[:3])
        raise WeightsError(
            f"these {len(state)} tensors (first: {first}) are not those of a CLIP with vision transformer; "
            "use a ViT of OpenAI, OpenCLIP or transformers, with both towers"
        )
    return plain


def _translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names as transformers has them; queries, keys and values get a tensor each."""
    if "visual.layer1.0.conv1.weight" in state:
        raise WeightsError(
            "this CLIP sees with a ResNet, which is not supported: use a ViT, such as ViT-B/32"
        )
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if _FACTS.fullmatch(name):
            continue
        if name in ("visual.proj", "text_projection"):
            value = value.T.contiguous()
        found |= dict(renamed(name, value))
    return found


def renamed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor of OpenAI's under transformers' name; queries, keys and values get one each."""
    layer = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(\w+)", name)
    if layer is None:
        yield _TOP.get(name, name), value
        return
    seeing, number, part, kind = layer.groups()
    start = f"{'vision' if seeing else 'text'}_model.encoder.layers.{number}"
    if part == "attn":
        end = kind.removeprefix("in_proj_")
        for which, piece in zip("qkv", value.chunk(3), strict=True):
            yield f"{start}.self_attn.{which}_proj.{end}", piece.contiguous()
        return
    yield f"{start}.{_LAYER.get(part, part)}.{kind}", value


def tiny(seed: int = 0, *, words: int = 64) -> dict[str, Tensor]:
    """A CLIP of one layer in each tower with random weights, for tests: 32-pixel pictures, `words` tokens."""
    generator = torch.Generator().manual_seed(seed)
    width, inner, shared = 64, 128, 32
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual_projection.weight": (shared, width),
        "text_projection.weight": (shared, width),
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (17, width),
        "text_model.embeddings.token_embedding.weight": (words, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
    }
    layers = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width, width)}
    layers |= {"self_attn.v_proj": (width, width), "self_attn.out_proj": (width, width)}
    layers |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"]
    for start in ("vision_model.encoder.layers.0", "text_model.encoder.layers.0"):
        norms += [f"{start}.layer_norm1", f"{start}.layer_norm2"]
        for name, shape in layers.items():
            shapes |= {f"{start}.{name}.weight": shape, f"{start}.{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    state = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    for name in norms:
        state[f"{name}.weight"] += 1
    return state


def layout_of(state: Mapping[str, Tensor], tower: Literal["vision", "text"]) -> Layout:
    """The sizes of a tower, from the shapes of its tensors."""
    layers = {
        int(found[1])
        for name in state
        if (found := re.match(rf"{tower}_model\.encoder\.layers\.(\d+)\.", name)) is not None
    }
    inner, width = state[f"{tower}_model.encoder.layers.0.mlp.fc1.weight"].shape
    heads = _HEADS.get(width, width // 64) if tower == "vision" else width // 64
    return Layout(width, len(layers), max(1, heads), inner)


def beside(folder: Path) -> Beside:
    """The settings in a folder of weights: those of OpenCLIP, else those of transformers."""
    opened = read_json(folder / "open_clip_config.json")
    if opened:
        quick = bool(opened.get("model_cfg", {}).get("quick_gelu", False))
        seen = opened.get("preprocess_cfg", {})
        return Beside("quick_gelu" if quick else "gelu", *_pair(seen.get("mean"), seen.get("std")))
    settings, seen = read_json(folder / "config.json"), read_json(folder / "preprocessor_config.json")
    named = settings.get("vision_config", {}).get("hidden_act")
    mean, std = _pair(seen.get("image_mean"), seen.get("image_std"))
    return Beside(named if named in ("quick_gelu", "gelu") else None, mean, std)


def _pair(mean: Any, std: Any) -> tuple[Triple, Triple]:
    if mean is None or std is None:
        return MEAN, STD
    (a, b, c), (d, e, f) = map(float, mean), map(float, std)
    return (a, b, c), (d, e, f)


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a JSON file; empty if there is none. Raises WeightsError if it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except OSError:
        return {}
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}): download it again") from error
    return found if isinstance(found, dict) else {}
