"""LoRA files of Stable Diffusion 1.x: read in every common layout, and merged into a pipeline's weights.

A LoRA (Hu et al. 2021, arXiv:2106.09685) changes a layer's weight by alpha / rank times the product of two
thin matrices. The layouts of kohya's sd-scripts, of diffusers and of PEFT name the layers differently; here a
layer is the path of its module. Layers of other kinds (LoHa, LoKr, DoRA) are refused, because dropping them
silently would give another picture.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.pipelines.stable_diffusion_layout import Part, Parts, State, empty
from atelier.store import weights

Kind = Literal["unet", "text"]
Layout = Literal["kohya", "diffusers", "PEFT"]
#: A layer: the network that it is in, and the path of its module.
Place = tuple[Kind, str]


class Adapter(NamedTuple):
    """What a LoRA adds to one layer: `down` (rank, in, ...) and `up` (out, rank, ...) times alpha / rank."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of rows between the two matrices."""
        return int(self.down.shape[0])

    def delta(self) -> Tensor:
        """The change of the weight (out, in, ...), in float32.

        >>> one = Adapter(torch.ones(2, 3), torch.ones(4, 2), alpha=1.0)
        >>> one.delta().shape, float(one.delta()[0, 0])
        (torch.Size([4, 3]), 1.0)
        """
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.alpha / self.rank * product.view(self.up.shape[0], *self.down.shape[1:])

    def limited(self, most: float) -> tuple[Adapter, float]:
        """The adapter with a change whose norm is at most `most`, and that norm (scale_weight_norms).

        >>> one = Adapter(torch.ones(2, 3), torch.ones(4, 2), alpha=1.0)
        >>> small, norm = one.limited(1.0)
        >>> round(norm, 3), round(float(small.delta().norm()), 3)
        (1.0, 1.0)
        """
        # Tiny changes count as half the limit, as in sd-scripts.
        norm = max(float(self.delta().norm()), most / 2)
        ratio = min(norm, most) / norm
        return Adapter(self.down * math.sqrt(ratio), self.up * math.sqrt(ratio), self.alpha), norm * ratio


@dataclass(frozen=True)
class Lora:
    """A LoRA file: its adapters by layer, its layout, and the metadata of its training."""

    adapters: Mapping[Place, Adapter]
    layout: Layout
    metadata: Mapping[str, str]

    def changed(self, parts: Parts, share: float) -> Parts:
        """The parts of a pipeline with this LoRA merged into their weights, `share` times."""
        unet, text = (self._merged(getattr(parts, kind), kind, share) for kind in ("unet", "text"))
        return replace(parts, unet=unet, text=text)

    def state(self) -> State:
        """The tensors of a file of kohya's layout; alpha is always said."""
        made: State = {}
        for place, one in self.adapters.items():
            name = kohya(place)
            made |= {f"{name}.lora_down.weight": one.down, f"{name}.lora_up.weight": one.up}
            made[f"{name}.alpha"] = torch.tensor(one.alpha, dtype=one.down.dtype)
        return made

    def _merged(self, part: Part, kind: str, share: float) -> Part:
        mine = {path: one for (where, path), one in self.adapters.items() if where == kind}
        return part._replace(read=lambda: merged(part.read(), mine, share)) if mine else part


def merged(state: Mapping[str, Tensor], adapters: Mapping[str, Adapter], share: float) -> State:
    """The tensors of a network with adapters merged into them, computed in float32 and cast back."""
    made = dict(state)
    for path, adapter in adapters.items():
        weight = state[f"{path}.weight"]
        change = share * adapter.delta().view(weight.shape)
        made[f"{path}.weight"] = (weight.float() + change).to(weight.dtype)
    return made


# reading


def read(name: str | Path, parts: Parts) -> Lora:
    """The LoRA in a file, for the layers of a pipeline.

    Raises WeightsError for files that are no LoRA, of an unsupported kind, or made for another model.
    """
    state = weights.load(name)
    known = layers(parts)
    found = opened(state, weights.metadata(name), known, str(name))
    for place, adapter in found.adapters.items():
        _check_shape(place, adapter, known[place], str(name))
    return found


def opened(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], layers: Iterable[Place], name: str
) -> Lora:
    """The LoRA in these tensors, for networks with these layers. Raises WeightsError."""
    _check_kind(state, name)
    known = list(layers)
    layout = layout_of(state)
    names = {kohya(place): place for place in known} if layout == "kohya" else dict(_dotted(known))
    pieces: dict[Place, dict[str, Tensor]] = {}
    strange = []
    for key, value in state.items():
        layer, role = _split(key)
        if layer in names:
            pieces.setdefault(names[layer], {})[role] = value
        elif role:
            strange.append(layer)
    if strange:
        raise WeightsError(
            f"{name} changes {len(set(strange))} layers that this pipeline does not have ({strange[0]}): it "
            "was made for another base model; use a LoRA for Stable Diffusion 1.x"
        )
    alphas = _alphas(metadata)
    return Lora(
        {place: _adapter(place, one, alphas, name) for place, one in pieces.items()}, layout, metadata
    )


def layout_of(state: Iterable[str]) -> Layout:
    """The layout of a LoRA's names."""
    names = list(state)
    if any(re.match(r"lora_(unet|te\d?)_", name) for name in names):
        return "kohya"
    return "PEFT" if any(".lora_A." in name for name in names) else "diffusers"


def _check_kind(state: Mapping[str, Tensor], name: str) -> None:
    refused = {"LoHa": ".hada_w", "LoKr": ".lokr_w", "DoRA": "dora_scale", "DoRA ": "lora_magnitude_vector"}
    for kind, mark in refused.items():
        if any(mark in key for key in state):
            raise WeightsError(f"{name} is a {kind.strip()}, which is not supported: use a plain LoRA")
    if any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in state):
        raise WeightsError(f"{name} is a LoRA for SDXL: use one for Stable Diffusion 1.x")
    if not any(_split(key)[1] for key in state):
        raise WeightsError(f"{name} is no LoRA: none of its {len(state)} tensors is a pair of a layer's")


_ROLES = (
    (r"(.+)\.lora_down\.weight", "down"),
    (r"(.+)\.lora_up\.weight", "up"),
    (r"(.+)\.lora_A(?:\.\w+)?\.weight", "down"),
    (r"(.+)\.lora_B(?:\.\w+)?\.weight", "up"),
    (r"(.+)\.lora(?:_linear_layer)?\.down\.weight", "down"),
    (r"(.+)\.lora(?:_linear_layer)?\.up\.weight", "up"),
    (r"(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.down\.weight", "down"),
    (r"(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.up\.weight", "up"),
    (r"(.+)\.alpha", "alpha"),
)


def _split(key: str) -> tuple[str, str]:
    """The layer of a tensor and its role there: down, up or alpha; an empty role for other tensors.

    >>> _split("unet.mid_block.attentions.0.proj_in.lora_A.weight")
    ('unet.mid_block.attentions.0.proj_in', 'down')
    """
    for pattern, role in _ROLES:
        if found := re.fullmatch(pattern, key):
            layer = ".".join(found.groups()).removeprefix("base_model.model.")
            return re.sub(r"\.to_out$", ".to_out.0", layer), role
    return key, ""


def kohya(place: Place) -> str:
    """The name of a layer in kohya's files; string rules do not lead back from it."""
    kind, path = place
    start = "lora_unet_" if kind == "unet" else "lora_te_text_model_"
    return start + path.replace(".", "_")


def _dotted(layers: Iterable[Place]) -> Iterable[tuple[str, Place]]:
    """The names that diffusers and PEFT give layers."""
    for place in layers:
        kind, path = place
        if kind == "unet":
            yield path, place
            yield f"unet.{path}", place
        else:
            yield f"text_encoder.{path}", place
            yield f"text_encoder.text_model.{path}", place


def _alphas(metadata: Mapping[str, str]) -> Mapping[str, float]:
    """The alpha of each network that diffusers stores in the metadata."""
    try:
        found = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        names = {"unet": "unet.lora_alpha", "text": "text_encoder.lora_alpha"}
        return {kind: float(found[name]) for kind, name in names.items() if name in found}
    except (ValueError, TypeError):
        return {}


def _adapter(place: Place, pieces: Mapping[str, Tensor], alphas: Mapping[str, float], name: str) -> Adapter:
    if not {"down", "up"} <= pieces.keys():
        raise WeightsError(f"{name} has only half of the layer {place[1]}: download it again")
    rank = pieces["down"].shape[0]
    alpha = float(pieces["alpha"]) if "alpha" in pieces else alphas.get(place[0], float(rank))
    return Adapter(pieces["down"], pieces["up"], alpha or float(rank))


def _check_shape(place: Place, adapter: Adapter, shape: torch.Size, name: str) -> None:
    outer, inner = adapter.up.shape[0], math.prod(adapter.down.shape[1:])
    if (outer, inner) != (shape[0], math.prod(shape[1:])) or adapter.up.shape[1] != adapter.rank:
        raise WeightsError(
            f"{name} was made for another base model: its layer {place[1]} is {outer} x {inner}, and the "
            f"pipeline's is {shape[0]} x {math.prod(shape[1:])}"
        )


def layers(parts: Parts) -> dict[Place, torch.Size]:
    """The layers of a pipeline that a LoRA can change, with the shapes of their weights."""
    kinds: tuple[Kind, ...] = ("unet", "text")
    return {(kind, path): shape for kind in kinds for path, shape in _layers(parts, kind)}


def _layers(parts: Parts, kind: Kind) -> Iterable[tuple[str, torch.Size]]:
    """The layers of a network that a LoRA can change, with the shapes of their weights."""
    network = empty(kind, getattr(parts, kind).settings)
    for path, module in network.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            yield path, module.weight.shape


# inspecting


def inspect(name: str | Path) -> dict[str, Any]:
    """What a LoRA file says of itself: layout, layers, ranks, base model, words. Raises WeightsError."""
    state, metadata = weights.load(name), weights.metadata(name)
    _check_kind(state, str(name))
    roles = {key: _split(key) for key in state}
    ranks = Counter(int(state[key].shape[0]) for key, (_, role) in roles.items() if role == "down")
    alphas = sorted({float(state[key]) for key, (_, role) in roles.items() if role == "alpha"})
    layers = {layer for layer, role in roles.values() if role == "down"}
    text = sum(layer.startswith(("lora_te", "text_encoder")) for layer in layers)
    pieces: dict[str, dict[str, Tensor]] = {}
    for key, (layer, role) in roles.items():
        pieces.setdefault(layer, {})[role] = state[key]
    return {
        "layout": layout_of(state),
        "layers": {"unet": len(layers) - text, "text encoder": text},
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "alphas": alphas,
        "strength": _strengths(pieces),
        "base model": metadata.get("ss_base_model_version")
        or metadata.get("modelspec.architecture")
        or "not said",
        "trigger": metadata.get("modelspec.trigger_phrase", ""),
        "tags": dict(_tags(metadata).most_common(20)),
    }


def block_of(layer: str) -> int | None:
    """The number of the UNet's block that a layer is in, 0..24 with the middle at 12; None for other layers.

    >>> block_of("down_blocks.1.attentions.0.proj_in"), block_of("lora_unet_mid_block_resnets_0_conv1")
    (4, 12)
    """
    if re.search(r"(^|[._])mid_block[._]", layer):
        return 12
    parts = r"(down|up)_blocks[._](\d)[._](resnets|attentions|downsamplers|upsamplers)[._](\d)"
    found = re.search(parts, layer)
    if not found:
        return None
    # Samplers close their level of three blocks.
    place = 2 if found[3].endswith("samplers") else int(found[4])
    return 3 * int(found[2]) + place + (1 if found[1] == "down" else 13)


def _strengths(pieces: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """The norm of the changes in each block of the UNet, and in the text encoder."""
    squares: dict[str, float] = {}
    for layer, one in pieces.items():
        if not {"down", "up"} <= one.keys():
            continue
        block = block_of(layer)
        text = layer.startswith(("lora_te", "text_encoder"))
        name = "text" if text else "other" if block is None else _block_name(block)
        down, up = (one[role].double().flatten(1) for role in ("down", "up"))
        rank = down.shape[0]
        scale = float(one.get("alpha", torch.tensor(rank))) / rank
        # The norm of a product of thin matrices follows from their small Gram matrices.
        square = scale**2 * float(((up.T @ up) * (down @ down.T)).sum())
        squares[name] = squares.get(name, 0.0) + square
    return {name: round(math.sqrt(value), 3) for name, value in sorted(squares.items())}


def _block_name(block: int) -> str:
    return "middle" if block == 12 else f"in {block:02}" if block < 12 else f"out {block - 13:02}"


def _tags(metadata: Mapping[str, str]) -> Counter[str]:
    """The tags of the captions of the training, with their numbers."""
    found: Counter[str] = Counter()
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        for tags in folders.values():
            found.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError):
        return Counter()
    return found
