"""Diffusion networks as files: loaded with the conventions that they were trained with, whole or in tiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.errors import UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.tiles import tiles
from atelier.maths.layout import padded
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.maths.diffusion import Process
    from atelier.maths.schedules import Schedule
    from atelier.networks.unet import UNet, UNetPlan

#: The side of the part of a picture that a local network paints at once, in pixels.
_CORE = 768


class NetworkSettings(AnyKnobs):
    """The shape of a diffusion network, and the conventions of its input and output."""

    width: int = knob(
        64, "Channels of the time embedding; those of each level are multiples of it.", ge=8, le=1024
    )
    multiples: tuple[int, ...] = knob((1, 2, 3), "Channels of each level, as multiples of the width.")
    blocks: int = knob(1, "Residual blocks in each level.", ge=1, le=8)
    attention: tuple[int, ...] = knob((), "Downsampling factors with self-attention.")
    head: int = knob(64, "Channels of each attention head.", ge=1)
    groups: int = knob(
        0,
        "Groups of group norm; 0 normalises each pixel by itself, for pictures of any size.",
        ge=0,
        le=1024,
    )
    patch: int = knob(2, "Side of the squares of pixels that are folded into channels.", ge=1, le=16)
    dropout: float = knob(0.0, "Dropout in the residual blocks.", ge=0, lt=1)
    target: Literal["eps", "x0", "v"] = knob("v", "What the network predicts.")
    learned: bool = knob(False, "Learn the variance of each step as well.")
    schedule: Literal["linear", "scaled-linear", "cosine"] = knob("linear", "Noise schedule of 1000 steps.")
    highest: float = knob(
        1.0, "Train only this fraction of the schedule, from the least noise on.", gt=0, le=1
    )

    @property
    def plan(self) -> UNetPlan:
        """The plan of the network."""
        from atelier.networks.unet import UNetPlan

        shape = {name: getattr(self, name) for name in _SHAPE}
        return UNetPlan(**shape, out=6 if self.learned else 3)


_SHAPE = ("width", "multiples", "blocks", "attention", "head", "groups", "patch", "dropout")
#: The conventions of OpenAI's published networks, which are recognised by their shapes.
_PUBLISHED: Mapping[str, Any] = {"target": "eps", "schedule": "linear", "highest": 1.0}


@dataclass(frozen=True)
class Denoiser:
    """A diffusion network with its conventions."""

    network: UNet
    settings: NetworkSettings

    @property
    def schedule(self) -> Schedule:
        """The schedule that the network was trained with."""
        from atelier.maths import schedules

        return schedules.named(self.settings.schedule)

    def process(self, schedule: Schedule, *, clip: bool = True) -> Process:
        """The network's predictions on a schedule."""
        from atelier.maths.diffusion import Process

        return Process(
            self.predict,
            schedule,
            target=self.settings.target,
            variance="learned" if self.settings.learned else "small",
            clip=clip,
        )

    def check(self, noise: float) -> None:
        """Raise UsageError for a noise, a fraction of the schedule, beyond that of the training."""
        if noise > self.settings.highest:
            raise UsageError(
                f"a noise of {noise:.3g} is more than this network removes: it was trained up to "
                f"{self.settings.highest:g}; start with less noise, or use weights trained with --highest 1"
            )

    def within(self, noise: float, steps: int) -> Schedule:
        """A schedule of at most `steps` steps, up to a `noise`, which is checked."""
        from atelier.maths import schedules

        self.check(noise)
        whole = self.schedule
        count = max(1, round(noise * len(whole)))
        part = schedules.Schedule(whole.betas[:count], whole.steps[:count], whole.trained)
        return schedules.respaced(part, str(min(steps, count)))

    def padded(self, picture: Tensor) -> Tensor:
        """The picture with sides that the network takes: group norm needs two places at every level."""
        multiple = self.network.plan.multiple
        return padded(picture, 2 * multiple, multiple)

    def predict(self, picture: Tensor, times: Tensor) -> Tensor:
        """The network's output for pictures of any size; large ones in tiles, if the network is local."""
        plan, (height, width) = self.network.plan, picture.shape[-2:]
        whole = self.padded(picture)
        if not plan.is_local or max(height, width) <= _CORE:
            output: Tensor = self.network(whole, times)
            return output[..., :height, :width]
        core = _CORE - _CORE % plan.multiple
        made = torch.empty((len(picture), plan.out, *whole.shape[-2:]), device=picture.device)
        for tile in tiles(*whole.shape[-2:], core=core, margin=plan.reach, step=plan.multiple):
            found = self.network(whole[(..., *tile.outer)], times)
            made[(..., *tile.core)] = found[(..., *tile.inner)]
        return made[..., :height, :width]


def load(name: str, device: torch.device, dtype: torch.dtype) -> Denoiser:
    """The network of that name or file, ready. Raises WeightsError for other weights."""
    return _loaded(name, weights.fingerprint(name), device, dtype)


@kept
def _loaded(name: str, fingerprint: str, device: Any, dtype: Any) -> Denoiser:
    """`fingerprint` is part of the cache key, so that changed files are reloaded."""
    from atelier.networks import unet

    settings = _settings(weights.metadata(name))
    with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
        try:
            state = weights.load(name)
            network = unet.from_state(state, settings.plan if settings else None)
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from error
        if settings is None:
            settings = _published(network.plan)
        network.requires_grad_(False).eval()
        network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Denoiser(network, settings)


def _settings(metadata: Mapping[str, str]) -> NetworkSettings | None:
    """The settings in a file of the project's own training; None for other files."""
    if metadata.get("network") != "ddpm":
        return None
    settings = json.loads(metadata["training"])["settings"]
    return NetworkSettings(**{name: settings[name] for name in NetworkSettings.model_fields})


def _published(plan: UNetPlan) -> NetworkSettings:
    shape = {name: getattr(plan, name) for name in _SHAPE}
    return NetworkSettings(**shape, **_PUBLISHED, learned=plan.out > 3)


def in_training(network: UNet, settings: NetworkSettings) -> Denoiser:
    """The denoiser of a network in training."""
    own = {name: getattr(settings, name) for name in NetworkSettings.model_fields}
    return Denoiser(network, NetworkSettings(**own))
