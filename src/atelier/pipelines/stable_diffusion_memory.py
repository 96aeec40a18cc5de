"""One memory plan for Stable Diffusion: what a picture needs, and what makes it fit.

The plan is made before any weights are read, from the settings of the networks. Where the memory does not
suffice, it first gives up what the method would keep between steps, then runs the VAE in tiles, and on a GPU
at last moves each network to the device only while it computes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch

from atelier.core import memory
from atelier.core.errors import ResourceError
from atelier.core.memory import GIB
from atelier.pipelines.memory import peak

if TYPE_CHECKING:
    from atelier.pipelines.stable_diffusion_layout import Parts

#: Whether to save memory in one of the ways: as the plan finds it needed, always, or never.
Saving = Literal["auto", "on", "off"]

#: The side of the VAE's tiles in pixels.
TILE = 512
#: What the process and the kernels of the device take besides tensors, in bytes.
BESIDES: Mapping[str, int] = {"cuda": 600 << 20, "mps": 400 << 20, "cpu": 500 << 20}


@dataclass(frozen=True)
class Savings:
    """What the user wants of the ways to save memory."""

    tiles: Saving = "auto"
    slices: Saving = "auto"
    offload: Saving = "auto"


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a run needs on its device, in bytes, and the ways in which it saves some.

    `networks` is what is on the device at once, `working` the largest step, `kept` what a method keeps
    between steps. `tiles` says whether the VAE works in tiles, `slices` whether attention computes its heads
    one by one, `offload` whether networks wait in main memory.
    """

    device: torch.device
    dtype: torch.dtype
    networks: int
    working: int
    kept: int
    tiles: bool
    slices: bool
    offload: bool
    available: int

    @property
    def total(self) -> int:
        """All that is needed."""
        return self.networks + self.working + self.kept + BESIDES.get(self.device.type, 0)

    def __str__(self) -> str:
        ways = {
            "the VAE in tiles": self.tiles,
            "attention in slices": self.slices,
            "one network at a time on the device": self.offload,
        }
        parts = [f"networks {_gib(self.networks)}", f"the largest step {_gib(self.working)}"]
        if self.kept:
            parts.append(f"features kept between steps {_gib(self.kept)}")
        saving = "; ".join(name for name, used in ways.items() if used)
        return (
            f"memory: {_gib(self.total)} of {_gib(self.available)} GiB on {self.device}, in "
            f"{str(self.dtype).removeprefix('torch.')} ({', '.join(parts)}){'; ' * bool(saving)}{saving}"
        )


def plan(
    parts: Parts,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch: int = 1,
    kept: Sequence[int] = (0,),
    savings: Savings | None = None,
    loaded: bool = False,
) -> MemoryPlan:
    """The first plan that fits for pictures of `size`, (height, width) in pixels.

    `batch` is the number of latents that the UNet sees at once. `kept` are the bytes that a method would keep
    between steps, in order of preference. `loaded` says that the networks are on the device already. Raises
    ResourceError if no plan fits.
    """
    room = memory.available(device)
    plans = list(_plans(parts, size, device, dtype, batch, kept, savings or Savings()))
    if loaded:
        plans = [replace(one, available=room + one.networks) for one in plans]
    else:
        plans = [replace(one, available=room) for one in plans]
    for one in plans:
        if one.total <= one.available:
            return one
    least = min(plans, key=lambda one: one.total)
    raise ResourceError(
        f"a picture of {size[1]} x {size[0]} pixels needs at least {_gib(least.total)} GiB of memory on "
        f"{device}, and {_gib(least.available)} GiB are available: use a smaller --size, or close programs"
    )


def _plans(
    parts: Parts,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    kept: Sequence[int],
    savings: Savings,
) -> Iterator[MemoryPlan]:
    """All plans that the savings allow, those that save the least first."""
    fused = device.type != "mps"
    # Only kernels that are not fused hold the weights of all heads, which slices avoid.
    slices = savings.slices == "on" or (savings.slices == "auto" and not fused)
    sizes = [count * dtype.itemsize for count in weights_of(parts)]
    for offload in _choices(savings.offload, device.type == "cuda"):
        for tiles in _choices(savings.tiles, max(size) > TILE):
            working = _working(parts, size, dtype, batch, fused or slices, tiles)
            for held in kept:
                networks = max(sizes) if offload else sum(sizes)
                yield MemoryPlan(device, dtype, networks, working, held, tiles, slices, offload, 0)


def _choices(saving: Saving, possible: bool) -> Sequence[bool]:
    if saving == "auto":
        return (False, True) if possible else (False,)
    return (saving == "on",)


def weights_of(parts: Parts) -> tuple[int, ...]:
    """The number of weights of the UNet, the VAE and the text encoder."""
    return tuple(_count(key_of(part.settings), kind) for part, kind in zip(_of(parts), _KINDS, strict=True))


def _of(parts: Parts) -> tuple[Any, Any, Any]:
    return parts.unet, parts.vae, parts.text


_KINDS = ("unet", "vae", "text")


def _working(
    parts: Parts, size: tuple[int, int], dtype: torch.dtype, batch: int, fused: bool, tiles: bool
) -> int:
    """The bytes of the largest step: a pass of the UNet, or encoding or decoding a picture."""
    vae, context = parts.vae.settings, int(parts.text.settings.get("hidden_size", 768))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    latent = (-(-size[0] // factor), -(-size[1] // factor))
    side = TILE // factor if tiles else max(latent)
    tile = (min(side, latent[0]), min(side, latent[1]))
    return max(
        _unet_peak(key_of(parts.unet.settings), latent, batch, context, fused, dtype),
        vae_peak(key_of(vae), tile, fused, dtype),
    )


def key_of(settings: Mapping[str, Any]) -> str:
    """Settings as text, for caches."""
    return json.dumps(settings, sort_keys=True, default=str)


@lru_cache(maxsize=16)
def _count(settings: str, kind: str) -> int:
    from atelier.pipelines.stable_diffusion_layout import empty

    return sum(one.numel() for one in empty(kind, json.loads(settings)).parameters())


@lru_cache(maxsize=64)
@torch.no_grad()
def _unet_peak(
    settings: str, latent: tuple[int, int], batch: int, context: int, fused: bool, dtype: torch.dtype
) -> int:
    from atelier.pipelines.stable_diffusion_layout import empty

    unet = torch.nn.Module.to(empty("unet", json.loads(settings)), dtype)

    def run() -> None:
        words = torch.empty(batch, 77, context, dtype=dtype)
        unet(torch.empty(batch, unet.config.in_channels, *latent, dtype=dtype), torch.empty(1), words)

    return peak(run, fused=fused)


@lru_cache(maxsize=64)
@torch.no_grad()
def vae_peak(
    settings: str, latent: tuple[int, int], fused: bool, dtype: torch.dtype, decodes: bool = True
) -> int:
    """The bytes of encoding a picture or, if the VAE `decodes`, of decoding one, whichever needs more."""
    from atelier.pipelines.stable_diffusion_layout import empty

    vae = torch.nn.Module.to(empty("vae", json.loads(settings)), dtype)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = (latent[0] * factor, latent[1] * factor)
    encoding = peak(lambda: vae.encode(torch.empty(1, 3, *side, dtype=dtype)), fused=fused)
    if not decodes:
        return encoding
    channels = vae.config.latent_channels
    return max(
        encoding, peak(lambda: vae.decode(torch.empty(1, channels, *latent, dtype=dtype)), fused=fused)
    )


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}"
