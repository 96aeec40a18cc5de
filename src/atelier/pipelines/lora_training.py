"""The adapters of a LoRA in training: attached to the layers of frozen networks, and written as a file.

They are those of sd-scripts' default: every linear layer and 1 x 1 convolution of the transformers in the
UNet, and the linear layers of the text encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.pipelines.lora import Adapter, Kind, Lora, Place, kohya
from atelier.pipelines.stable_diffusion_layout import State


class Trained(torch.nn.Module):
    """The adapters of a LoRA in training, by the names of kohya's files.

    `networks` are the UNet, and the text encoder if that is trained too. The first matrix starts random, from
    torch's global seed, and the second at zero, so that an untrained LoRA changes nothing. `most` limits the
    norm of each layer's change (scale_weight_norms); 0 is without.
    """

    def __init__(
        self, networks: Mapping[Kind, torch.nn.Module], rank: int, alpha: float, most: float = 0.0
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.most = rank, alpha, most
        self.places: dict[str, Place] = {}
        self.pairs = torch.nn.ModuleDict()
        for kind, network in networks.items():
            for path, layer in changed_layers(network, kind):
                name = kohya((kind, path))
                self.places[name] = (kind, path)
                self.pairs[name] = _pair(layer, rank)

    def of(self, kind: Kind) -> list[torch.nn.Parameter]:
        """The weights for one of the networks."""
        return [
            one
            for name, pair in self.pairs.items()
            if self.places[name][0] == kind
            for one in pair.parameters()
        ]

    def attach(self, networks: Mapping[Kind, torch.nn.Module]) -> list[Any]:
        """Add the adapters' outputs to those of the layers of `networks`; returns handles that undo it."""
        return [
            networks[kind].get_submodule(path).register_forward_hook(partial(self._add, self.pairs[name]))
            for name, (kind, path) in self.places.items()
            if kind in networks
        ]

    def _add(self, pair: Any, layer: Any, seen: tuple[Tensor, ...], made: Tensor) -> Tensor:
        """The weights stay in float32, and compute in the precision of the layer."""
        down, up = (one.weight.to(made.dtype) for one in pair)
        apply = F.linear if down.ndim == 2 else F.conv2d
        return made + self.alpha / self.rank * apply(apply(seen[0], down), up)

    @torch.no_grad()
    def limit(self) -> None:
        """Bring the weights within the limit of the norms; called before every step."""
        for place, one in self.lora().adapters.items() if self.most else ():
            down, up = self.pairs[kohya(place)].parameters()
            down.copy_(one.down)
            up.copy_(one.up)

    def lora(self) -> Lora:
        """The LoRA as it is now, within the limit of the norms."""
        made: dict[Place, Adapter] = {}
        for name, pair in self.pairs.items():
            down, up = (one.detach() for one in pair.parameters())
            one = Adapter(down, up, self.alpha)
            made[self.places[name]] = one.limited(self.most)[0] if self.most else one
        return Lora(made, "kohya", {})

    @torch.no_grad()
    def load(self, state: State) -> None:
        """Take the tensors of a file to continue a LoRA. Raises RuntimeError for other layers or ranks."""
        wanted = self.lora().state()
        alphas = {float(one) for name, one in state.items() if name.endswith(".alpha")}
        shapes = {name: one.shape for name, one in state.items()}
        if shapes != {name: one.shape for name, one in wanted.items()} or alphas != {self.alpha}:
            raise RuntimeError("the file has other layers, ranks or alpha")
        for name, pair in self.pairs.items():
            down, up = pair.parameters()
            down.copy_(state[f"{name}.lora_down.weight"])
            up.copy_(state[f"{name}.lora_up.weight"])


def changed_layers(network: torch.nn.Module, kind: Kind) -> Iterable[tuple[str, Any]]:
    """The paths of the layers that sd-scripts changes by default, with the layers."""
    for path, module in network.named_modules():
        linear = isinstance(module, torch.nn.Linear)
        square = isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1)
        inside = ".transformer_blocks." in path or path.endswith((".proj_in", ".proj_out"))
        if linear if kind == "text" else inside and (linear or square):
            yield path, module


def _pair(layer: Any, rank: int) -> torch.nn.Sequential:
    if isinstance(layer, torch.nn.Linear):
        parts: tuple[Any, Any] = (
            torch.nn.Linear(layer.in_features, rank, bias=False),
            torch.nn.Linear(rank, layer.out_features, bias=False),
        )
    else:
        parts = (
            torch.nn.Conv2d(layer.in_channels, rank, 1, bias=False),
            torch.nn.Conv2d(rank, layer.out_channels, 1, bias=False),
        )
    torch.nn.init.kaiming_uniform_(parts[0].weight, a=math.sqrt(5))
    torch.nn.init.zeros_(parts[1].weight)
    return torch.nn.Sequential(*parts)
