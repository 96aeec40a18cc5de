"""What networks that translate pictures have in common: any size outside, and domains with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The buffer that holds the names of the domains, as text.
NAMES = "names"


class Translator(nn.Module):
    """A generator from pictures in -1..1 to pictures in -1..1, whose sides are multiples of `multiple`."""

    multiple, smallest = 4, 8
    names: Tensor

    def name_domains(self, domains: Sequence[str]) -> None:
        """Keep the names of the domains in the weights."""
        self.register_buffer(NAMES, torch.tensor(list("\n".join(domains).encode()), dtype=torch.uint8))

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains, which the file holds as text."""
        return names_in(self.names)

    def paint(self, picture: Tensor, *condition: Any) -> Tensor:
        """The translated picture, float32 in 0..1, of a picture (B, 3, H, W) in 0..1 of any size.

        `condition` is what else the network takes.
        """
        height, width = picture.shape[-2:]
        tall, wide = (
            max(self.smallest, (side + self.multiple - 1) // self.multiple * self.multiple)
            for side in (height, width)
        )
        padded = F.pad(picture, (0, wide - width, 0, tall - height), mode="replicate")
        made: Tensor = self((2 * padded - 1).to(next(self.parameters()).dtype), *condition)
        return (made[..., :height, :width].float() + 1) / 2

    def prepare(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Frozen on `device`, in `dtype` and channels-last."""
        self.requires_grad_(False).eval()
        return self.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def names_in(text: Tensor) -> tuple[str, ...]:
    """The names of domains that a file holds as text."""
    return tuple(bytes(text.tolist()).decode().split("\n"))


def names_of(
    state: Mapping[str, Tensor], count: int, published: Mapping[int, Sequence[str]], key: str = NAMES
) -> Sequence[str]:
    """The names of the domains in `state`; without any, those `published` for so many, or numbers from 0."""
    if key in state:
        return names_in(state[key])
    return published.get(count) or [str(number) for number in range(count)]
