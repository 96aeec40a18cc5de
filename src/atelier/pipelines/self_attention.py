"""Self-attention of the decoder of Stable Diffusion's UNet, opened: what it computes is read or replaced.

Decoder blocks are counted from the coarsest, three to a resolution in Stable Diffusion 1.x: block i has the
features of `up_blocks[i // 3].attentions[i % 3]`. The first three have no attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from atelier.core.errors import UsageError


class Features(NamedTuple):
    """Queries, keys and values (B, heads, tokens, channels of a head), before any scaling."""

    query: Tensor
    key: Tensor
    value: Tensor


class Injection(NamedTuple):
    """What takes the place of a block's own features.

    The query becomes `share` of `query` and the rest of its own; keys and values are replaced. The weights of
    attention are sharpened by a `temperature` above 1. Batches of one serve all elements.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    share: float
    temperature: float


def attend(features: Features, temperature: float = 1.0, *, sliced: bool = False) -> Tensor:
    """Softmax of the scaled products of queries and keys, times the values: (B, heads, tokens, channels)."""
    scale = temperature * features.query.shape[-1] ** -0.5
    attention = torch.nn.functional.scaled_dot_product_attention
    if not sliced:
        return attention(features.query, features.key, features.value, scale=scale)
    heads = range(features.query.shape[1])
    parts = [[one[:, head : head + 1] for one in features] for head in heads]
    return torch.cat([attention(query, key, value, scale=scale) for query, key, value in parts], dim=1)


def injected(own: Features, given: Injection) -> Features:
    """A block's features after the injection."""
    query = torch.lerp(own.query, given.query.to(own.query).expand_as(own.query), given.share)
    key, value = (one.to(query).expand(len(query), -1, -1, -1) for one in (given.key, given.value))
    return Features(query, key, value)


class Opened:
    """Opens the self-attentions of the decoder blocks `blocks` inside a `with` block.

    After each pass of the UNet, `read` has the features of each block. While `given` has an injection for a
    block, that is used. Raises UsageError for a block that does not exist or has no attention.
    """

    def __init__(self, unet: Any, blocks: Sequence[int], *, sliced: bool = False) -> None:
        self.attentions = {block: attention_of(unet, block) for block in blocks}
        self.sliced = sliced
        self.read: dict[int, Features] = {}
        self.given: Mapping[int, Injection] = {}
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for block, attention in self.attentions.items():
            self._before[block] = attention.processor
            attention.processor = _Reader(self, block)
        return self

    def __exit__(self, *error: object) -> None:
        for block, attention in self.attentions.items():
            attention.processor = self._before[block]
        self.read, self.given = {}, {}


class _Reader:
    """The processor of one attention, in diffusers' interface."""

    def __init__(self, opened: Opened, block: int) -> None:
        self.opened, self.block = opened, block

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
        linear = (attn.to_q, attn.to_k, attn.to_v)
        own = Features(*(heads_of(one(hidden_states), attn.heads) for one in linear))
        self.opened.read[self.block] = own
        given = self.opened.given.get(self.block)
        used, temperature = (own, 1.0) if given is None else (injected(own, given), given.temperature)
        made = attend(used, temperature, sliced=self.opened.sliced).transpose(1, 2).flatten(2)
        result: Tensor = attn.to_out[0](made)
        return result


def heads_of(tokens: Tensor, heads: int) -> Tensor:
    """(B, tokens, channels) as (B, heads, tokens, channels of a head)."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def attention_of(unet: Any, block: int) -> Any:
    """The self-attention of a decoder block. Raises UsageError."""
    each = int(unet.config.layers_per_block) + 1
    level = unet.up_blocks[block // each] if 0 <= block < each * len(unet.up_blocks) else None
    attentions = getattr(level, "attentions", None)
    if attentions is None:
        known = [index for index in range(each * len(unet.up_blocks)) if _has_attention(unet, index // each)]
        raise UsageError(f"block {block} has no self-attention: use blocks from {known[0]} to {known[-1]}")
    return attentions[block % each].transformer_blocks[0].attn1


def _has_attention(unet: Any, level: int) -> bool:
    return getattr(unet.up_blocks[level], "attentions", None) is not None


def feature_bytes(
    settings: Mapping[str, Any], blocks: Sequence[int], latent: tuple[int, int], bytes_each: int
) -> int:
    """The bytes of one of the three kinds of features, over the blocks, for a latent (height, width)."""
    channels = list(reversed(settings["block_out_channels"]))
    each = int(settings.get("layers_per_block", 2)) + 1
    total = 0
    for block in blocks:
        level = min(max(block // each, 0), len(channels) - 1)
        smaller = 2 ** (len(channels) - 1 - level)
        tokens = -(-latent[0] // smaller) * -(-latent[1] // smaller)
        total += tokens * channels[level] * bytes_each
    return total
