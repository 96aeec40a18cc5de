"""What training a LoRA needs: memory and time, found on the meta device before any weights are read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from atelier.core import memory
from atelier.core.errors import ResourceError
from atelier.core.memory import GIB
from atelier.pipelines.lora import Kind
from atelier.pipelines.lora_training import Trained
from atelier.pipelines.memory import peak
from atelier.pipelines.stable_diffusion_layout import Parts, empty
from atelier.pipelines.stable_diffusion_memory import BESIDES, key_of, vae_peak, weights_of

#: The share of the speed of one convolution that a whole step reaches, as measured on a CPU.
_SHARE = 0.6


@dataclass(frozen=True)
class Run:
    """What memory and time of a run depend on. `size` is the largest bucket, (height, width) in pixels."""

    size: tuple[int, int]
    batch: int
    rank: int
    text: bool
    checkpointing: bool
    drawing: bool
    steps: int


@dataclass(frozen=True)
class TrainingPlan:
    """The memory of a run in bytes, and its time in seconds.

    `networks` are the frozen ones, `learnt` the LoRA with its optimiser, `working` is the largest step.
    """

    device: torch.device
    dtype: torch.dtype
    networks: int
    learnt: int
    working: int
    available: int
    seconds: float

    @property
    def total(self) -> int:
        """All the memory that is needed."""
        return self.networks + self.learnt + self.working + BESIDES.get(self.device.type, 0)

    def __str__(self) -> str:
        sizes = (self.total, self.available, self.networks, self.learnt, self.working)
        total, room, networks, learnt, step = (f"{count / GIB:.1f}" for count in sizes)
        kind = str(self.dtype).removeprefix("torch.")
        return (
            f"memory: {total} of {room} GiB on {self.device} (networks {networks} in {kind}, LoRA and "
            f"optimiser {learnt}, the largest step {step}); time: about {_duration(self.seconds)}"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan(parts: Parts, run: Run, device: torch.device, dtype: torch.dtype) -> TrainingPlan:
    """The plan of a run with the UNet and the text encoder in `dtype`, and the VAE in float32.

    Raises ResourceError if the memory does not suffice.
    """
    unet, vae, text = weights_of(parts)
    step, adapters, work = _step(*_settings(parts), _latent(parts, run), run, dtype)
    picture = vae_peak(key_of(parts.vae.settings), _latent(parts, run), True, torch.float32, run.drawing)
    found = TrainingPlan(
        device,
        dtype,
        networks=(unet + text) * dtype.itemsize + vae * 4,
        learnt=adapters * 12,  # the weights and Adam's two moments; the gradients are part of the step
        working=max(step, picture),
        available=memory.available(device),
        seconds=run.steps * work / (_SHARE * _speed(device, dtype)),
    )
    if found.total > found.available:
        raise ResourceError(
            f"training needs {found.total / GIB:.1f} GiB of memory on {device}, and "
            f"{found.available / GIB:.1f} GiB are available: use a smaller --crop or --batch"
        )
    return found


def step_bytes(parts: Parts, run: Run, dtype: torch.dtype) -> int:
    """The bytes of one training step besides the weights."""
    return _step(*_settings(parts), _latent(parts, run), run, dtype)[0]


def _settings(parts: Parts) -> tuple[str, str]:
    return key_of(parts.unet.settings), key_of(parts.text.settings)


def _latent(parts: Parts, run: Run) -> tuple[int, int]:
    factor = 2 ** (len(parts.vae.settings["block_out_channels"]) - 1)
    return run.size[0] // factor, run.size[1] // factor


@lru_cache(maxsize=4)
def _step(
    unet_settings: str, text_settings: str, latent: tuple[int, int], run: Run, dtype: torch.dtype
) -> tuple[int, int, int]:
    """The bytes of a step, the number of the LoRA's weights, and the operations of a step."""
    unet, text = (
        torch.nn.Module.to(empty(kind, json.loads(settings)), dtype).requires_grad_(False)
        for kind, settings in (("unet", unet_settings), ("text", text_settings))
    )
    networks: dict[Kind, torch.nn.Module] = {"unet": unet, **({"text": text} if run.text else {})}
    with torch.device("meta"):
        trained = Trained(networks, run.rank, 1.0)
    trained.attach(networks)
    if run.checkpointing:
        unet.train().enable_gradient_checkpointing()
    learnt = list(trained.parameters())

    def forward() -> Any:
        words = text(torch.zeros(run.batch, 77, dtype=torch.long)).last_hidden_state
        noisy = torch.empty(run.batch, unet.config.in_channels, *latent, dtype=dtype)
        return unet(noisy, torch.empty(run.batch), words).sample

    def step() -> None:
        loss: Any = forward().float().square().mean()
        torch.autograd.grad(loss, learnt, allow_unused=True)

    # Weights that stay as they are need no gradients, so the way back costs as much as the way there.
    passes = 3 if run.checkpointing else 2
    return peak(step), sum(one.numel() for one in learnt), passes * _operations(forward)


@torch.no_grad()
def _operations(forward: Callable[[], Any]) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        forward()
    return int(counted.get_total_flops())


@lru_cache(maxsize=4)
def _speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second in a convolution of a usual size, measured for a moment."""
    layer = torch.nn.Conv2d(320, 320, 3, padding=1, device=device, dtype=dtype)
    seen = torch.zeros(1, 320, 64, 64, device=device, dtype=dtype)
    work, count = 2 * 320 * 320 * 9 * 64 * 64, 0
    with torch.no_grad():
        layer(seen)
        _wait(device)
        started = time.monotonic()
        while time.monotonic() - started < 0.2:
            layer(seen)
            count += 1
        _wait(device)
    return count * work / (time.monotonic() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
