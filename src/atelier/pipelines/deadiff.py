"""DEADiff's networks (Qi et al. 2024): two readers of a reference picture, and joint attention in the UNet.

A vision transformer sees the reference. Two Q-Formers, told "style" and "content", turn what it saw into a
few tokens each. In every cross-attention of the UNet these stand beside the tokens of the words: tokens of
content in the coarse layers in the middle, tokens of style in all others. Absent tokens are zeros, which stay
in the attention and dilute it, as they do in the training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.features import clip, clip_layout
from atelier.pipelines.self_attention import Features, attend, heads_of
from atelier.store.checkpoints import check_state

Kind = Literal["style", "content"]
KINDS: tuple[Kind, ...] = ("style", "content")
#: What the readers are told, in the numbers of BERT's vocabulary: the word between start and end.
WORDS: Mapping[Kind, tuple[int, ...]] = {"style": (101, 2806, 102), "content": (101, 4180, 102)}
_EPSILON = 1e-12
State = Mapping[str, Tensor]


class Reader(nn.Module):
    """A Q-Former that turns what a vision transformer saw into tokens for the UNet."""

    def __init__(self, settings: Mapping[str, Any], count: int, inner: int, words: tuple[int, ...]) -> None:
        from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

        super().__init__()
        self.words = words
        self.queries = nn.Parameter(torch.empty(1, count, settings["hidden_size"]))
        self.qformer = InstructBlipQFormerModel(InstructBlipQFormerConfig(**settings))
        self.project = _Projection(settings["hidden_size"], inner)

    def forward(self, seen: Tensor) -> Tensor:
        """The tokens (B, N, D) of what was seen, (B, T, W)."""
        numbers = torch.tensor([self.words], device=seen.device).expand(len(seen), -1)
        made: Tensor = self.project(self.read(seen, numbers)[0])
        return made

    def read(self, seen: Tensor, words: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The states of the queries (B, N, D), and of words (B, L); the mask (B, L) is 0 for padding."""
        mask = torch.ones_like(words) if mask is None else mask
        queries = self.queries.expand(len(seen), -1, -1)
        found = self.qformer(
            input_ids=words,
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], 1),
            query_embeds=queries,
            encoder_hidden_states=seen,
        ).last_hidden_state
        return found[:, : queries.shape[1]], found[:, queries.shape[1] :]


class _Projection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.dense1, self.dense2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.dense1(self.norm(tokens))
        made: Tensor = tokens + self.dense2(inner * torch.sigmoid(1.702 * inner))
        return made


class Vision(nn.Module):
    """CLIP's vision transformer without its last block, and a norm of its own; frozen."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        super().__init__()
        self.tower = CLIPVisionModel(CLIPVisionConfig(**settings))
        self.tower.add_module("post_layernorm", nn.Identity())  # it has no part in what is read
        self.norm = nn.LayerNorm(settings["hidden_size"], eps=1e-5)

    def forward(self, pictures: Tensor) -> Tensor:
        """What is seen, (B, T, W), in pictures that are normalised already."""
        made: Tensor = self.norm(self.tower(pictures).last_hidden_state)
        return made

    def see(self, pictures: Tensor) -> Tensor:
        """What is seen in pictures (B, 3, H, W) in 0..1; their aspect ratio is not kept."""
        side: Any = self.tower.config.image_size
        small = F.interpolate(pictures.float(), (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        made: Tensor = self(clip.normalised(small).to(self.norm.weight.dtype))
        return made


class Sizes(NamedTuple):
    """What the tensors say of the networks: settings of both transformers, tokens, inner width, layers."""

    vision: dict[str, Any]
    qformer: dict[str, Any]
    tokens: int
    inner: int
    #: The channels of each cross-attention, and the width of its tokens.
    layers: tuple[tuple[int, int], ...]
    shared: bool


class Deadiff(nn.Module):
    """Both readers, what they see with, and the maps of their tokens in each cross-attention.

    Where both readers see with the same weights, as in the published file, these are held once.
    """

    def __init__(self, sizes: Sizes, words: Mapping[Kind, tuple[int, ...]] = WORDS) -> None:
        super().__init__()
        kinds: tuple[Kind, ...] = ("style",) if sizes.shared else KINDS
        self.visions = nn.ModuleDict({kind: Vision(sizes.vision) for kind in kinds})
        self.readers = nn.ModuleDict(
            {kind: Reader(sizes.qformer, sizes.tokens, sizes.inner, words[kind]) for kind in KINDS}
        )
        self.maps = nn.ModuleList(_Maps(channels, width) for channels, width in sizes.layers)

    def tokens(self, kind: Kind, pictures: Tensor) -> Tensor:
        """The tokens (B, N, D) of one kind for pictures (B, 3, H, W) in 0..1."""
        vision: Any = self.visions[kind if kind in self.visions else "style"]
        made: Tensor = self.readers[kind](vision.see(pictures))
        return made

    def nothing(self, count: int) -> Tensor:
        """The tokens that say nothing."""
        reader: Any = self.readers["style"]
        made: Tensor = reader.queries.new_zeros((count, *reader.queries.shape[1:]))
        return made

    def learnt(self) -> Iterator[nn.Parameter]:
        """The weights that training changes: all but those of the vision transformers."""
        yield from self.readers.parameters()
        yield from self.maps.parameters()


class _Maps(nn.Module):
    """The keys and values of a reference's tokens in one attention."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.to_k, self.to_v = (nn.Linear(width, channels, bias=False) for _ in range(2))


# in the UNet


class Joint:
    """Joint attention to words and a reference in a UNet, inside a `with` block or until `close`.

    `tokens` (B, N, D) of both kinds are those of the next pass; without any, attention sees words alone.
    `weight` scales their keys and values.
    """

    def __init__(self, unet: Any, network: Deadiff, *, weight: float = 1.0, sliced: bool = False) -> None:
        self.network, self.weight, self.sliced = network, weight, sliced
        self.tokens: Mapping[Kind, Tensor] = {}
        self._attentions = [attention for _, attention in cross_attentions(unet)]
        self._before = [attention.processor for attention in self._attentions]
        inside = content_layers(len(self._attentions))
        for index, attention in enumerate(self._attentions):
            attention.processor = _Processor(self, index, "content" if index in inside else "style")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the UNet as it was."""
        for attention, before in zip(self._attentions, self._before, strict=True):
            attention.processor = before


class _Processor:
    """The processor of one attention, in diffusers' interface."""

    def __init__(self, joint: Joint, index: int, kind: Kind) -> None:
        self.joint, self.kind = joint, kind
        self.maps: Any = joint.network.maps[index]

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **options: Any
    ) -> Tensor:
        words, joint = encoder_hidden_states, self.joint
        key, value = attn.to_k(words), attn.to_v(words)
        if joint.tokens:
            tokens, maps = joint.tokens[self.kind].to(words), self.maps
            key = torch.cat([key, joint.weight * maps.to_k(tokens)], 1)
            value = torch.cat([value, joint.weight * maps.to_v(tokens)], 1)
        features = Features(*(heads_of(one, attn.heads) for one in (attn.to_q(hidden_states), key, value)))
        made: Tensor = attn.to_out[0](attend(features, sliced=joint.sliced).transpose(1, 2).flatten(2))
        return made


def cross_attentions(unet: Any) -> Iterator[tuple[str, Any]]:
    """The cross-attentions of a UNet from its input to its output, with their paths."""
    blocks = [(f"down_blocks.{index}", block) for index, block in enumerate(unet.down_blocks)]
    blocks.append(("mid_block", unet.mid_block))
    blocks += [(f"up_blocks.{index}", block) for index, block in enumerate(unet.up_blocks)]
    for path, block in blocks:
        for number, transformer in enumerate(getattr(block, "attentions", None) or ()):
            for depth, inner in enumerate(transformer.transformer_blocks):
                yield f"{path}.attentions.{number}.transformer_blocks.{depth}.attn2", inner.attn2


def content_layers(count: int) -> range:
    """Of so many cross-attentions, those that see tokens of content: the coarse ones.

    >>> content_layers(16)
    range(4, 9)
    """
    return range(count // 4, count // 2 + 1)


# files

_OWN = (
    (r"Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.embeddings.layernorm."),
    (r"Qformer\.bert\.(.*\.(?:cross)?attention)\.self\.", r"qformer.\1.attention."),
    (r"Qformer\.bert\.", "qformer."),
    (r"query_tokens$", "queries"),
)
_UNUSED = re.compile(r".*\.position_ids|Qformer\.cls\..*")
_MAP = re.compile(
    r"model\.diffusion_model\.(input|middle|output)_blocks?\.(\d+)\..*\.attn2\.i_to_(k|v)\.weight"
)


def own_names(state: State) -> dict[str, Tensor]:
    """The tensors under the names of this file: of the published file, or of BLIP-Diffusion's.

    Everything else in those files is left out. Both readers start from the one of BLIP-Diffusion.
    """
    if any(name.startswith("readers.") for name in state):
        return dict(state)
    found: dict[str, Tensor] = {}
    for kind in KINDS:
        for start in (f"{kind}_blip.", "blip."):
            found |= _reader(kind, _below(state, start))
        for start in (f"{kind}_proj_layer.", "proj_layer."):
            found |= {
                f"readers.{kind}.project.{name.replace('LayerNorm', 'norm')}": value
                for name, value in _below(state, start).items()
            }
    return _once(found) | _maps(state)


def _below(state: State, start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def _reader(kind: Kind, state: State) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("visual_encoder."):
            seen = clip_layout.renamed(f"visual.{name.removeprefix('visual_encoder.')}", value)
            found |= {
                f"visions.{kind}.tower.{inner.removeprefix('vision_model.')}": one for inner, one in seen
            }
        elif name.startswith("ln_vision."):
            found[f"visions.{kind}.norm.{name.removeprefix('ln_vision.')}"] = value
        elif name.startswith(("Qformer.bert.", "query_tokens")) and not _UNUSED.fullmatch(name):
            for pattern, own in _OWN:
                name = re.sub(f"^{pattern}", own, name)
            found[f"readers.{kind}.{name}"] = value
    return found


def _once(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the second vision transformer where it equals the first."""
    second = {
        name: name.replace(".content.", ".style.") for name in state if name.startswith("visions.content.")
    }
    if all(other in state and torch.equal(state[name], state[other]) for name, other in second.items()):
        return {name: value for name, value in state.items() if name not in second}
    return state


def _maps(state: State) -> dict[str, Tensor]:
    """The maps in each cross-attention, numbered from the input to the output."""
    places = {name: found for name in state if (found := _MAP.fullmatch(name))}
    order = ("input", "middle", "output")
    ranks = sorted({(order.index(found[1]), int(found[2])) for found in places.values()})
    return {
        f"maps.{ranks.index((order.index(found[1]), int(found[2])))}.to_{found[3]}.weight": state[name]
        for name, found in places.items()
    }


def read(
    state: State,
    unet: Any,
    name: str,
    *,
    words: Mapping[Kind, tuple[int, ...]] = WORDS,
    heads: tuple[int, int] | None = None,
) -> Deadiff:
    """The networks with these tensors, for a UNet. Raises WeightsError.

    The maps of a file that has none are those of the words in the UNet. `heads` of the vision transformer
    and of the Q-Formers are by default one for each 64 channels.
    """
    state = own_names(state)
    if "readers.style.queries" not in state:
        raise WeightsError(
            f"{name} holds no networks of deadiff: use deadiff.published, a file that `atelier train "
            "deadiff` wrote, or BLIP-Diffusion's to start training from"
        )
    layers = [(f"maps.{index}", attention) for index, (_, attention) in enumerate(cross_attentions(unet))]
    if not any(key.startswith("maps.") for key in state):
        state |= {
            f"{start}.{part}.weight": getattr(attention, part).weight.detach().clone()
            for start, attention in layers
            for part in ("to_k", "to_v")
        }
    _check_base(state, layers, name)
    with torch.inference_mode(False):
        with torch.device("meta"):
            network = Deadiff(sizes_of(state, heads), words)
        check_state({key: one.shape for key, one in network.state_dict().items()}, state, name)
        network.load_state_dict({key: one.float() for key, one in state.items()}, assign=True)
        for one in (*(vision.tower for vision in network.visions.values()), *_qformers(network)):
            embeddings = one.embeddings
            embeddings.position_ids = torch.arange(embeddings.position_ids.shape[-1])[None]
        return network.requires_grad_(False).eval()


def _qformers(network: Deadiff) -> list[Any]:
    return [reader.qformer for reader in network.readers.values()]


def _check_base(state: State, layers: list[tuple[str, Any]], name: str) -> None:
    """Raise WeightsError for maps of another UNet."""
    found = [
        tuple(state[key].shape) for key in sorted(state) if re.fullmatch(r"maps\.\d+\.to_k\.weight", key)
    ]
    wanted = [tuple(attention.to_k.weight.shape) for _, attention in layers]
    if sorted(found) != sorted(wanted):
        widest = max(found, default=(0, 0))[0]
        raise WeightsError(
            f"{name} was made for another base model: it joins {len(found)} attentions of up to {widest} "
            f"channels, and the pipeline has {len(wanted)} of up to {max(wanted)[0]}"
        )


def sizes_of(state: State, heads: tuple[int, int] | None = None) -> Sizes:
    """The sizes of the networks with these tensors."""
    vision = {f"vision_model.{name}": value for name, value in _below(state, "visions.style.tower.").items()}
    patch = vision["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    places = vision["vision_model.embeddings.position_embedding.weight"].shape[0] - 1
    seeing = clip_layout.layout_of(vision, "vision").settings("quick_gelu")
    seeing |= {"patch_size": patch, "image_size": patch * math.isqrt(places)}
    qformer = _qformer_settings(_below(state, "readers.style.qformer."), seeing["hidden_size"])
    if heads:
        seeing["num_attention_heads"], qformer["num_attention_heads"] = heads
    layers = [tuple(state[f"maps.{index}.to_k.weight"].shape) for index in range(_count(state, "maps"))]
    return Sizes(
        seeing,
        qformer,
        state["readers.style.queries"].shape[1],
        state["readers.style.project.dense1.weight"].shape[0],
        tuple((channels, width) for channels, width in layers),
        not any(name.startswith("visions.content.") for name in state),
    )


def _qformer_settings(state: State, seen: int) -> dict[str, Any]:
    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _count(state, "encoder.layer"),
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
        "layer_norm_eps": _EPSILON,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": seen,
    }


def _count(state: State, start: str) -> int:
    found = (re.match(rf"{re.escape(start)}\.(\d+)\.", name) for name in state)
    return len({one[1] for one in found if one})


def tiny(unet_layers: list[tuple[int, int]], seed: int = 0) -> dict[str, Tensor]:
    """Small networks with random weights, for tests: tokens of 64 channels, and these cross-attentions."""
    vision = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "patch_size": 8,
        "image_size": 32,
        "hidden_act": "quick_gelu",
    }
    qformer = _qformer_settings(
        {
            "embeddings.word_embeddings.weight": torch.empty(4200, 64),
            "embeddings.position_embeddings.weight": torch.empty(8, 64),
            "encoder.layer.0.intermediate.dense.weight": torch.empty(64, 64),
        },
        64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Deadiff(Sizes(vision, qformer, 2, 64, tuple(unet_layers), shared=True))
        for name, weight in network.readers.named_parameters():
            if name.endswith("queries"):
                nn.init.normal_(weight)
    return network.state_dict()
