"""What the adversarial methods share: settings of their training, and domains by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atelier.core.errors import TrainingError, UsageError, did_you_mean
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob

if TYPE_CHECKING:
    from torch import Tensor


class AdversarialTraining(AnyKnobs):
    """The layout of the networks, and the schedule."""

    width: int = knob(32, "Channels of the networks at full size.", ge=1, le=512)
    cycle_weight: float = knob(10.0, "Weight of the error after there and back.", ge=0)
    batch: int = knob(8, "Pictures per step, over all processes.", ge=1)
    crop: int = knob(128, "Side of the square crops in pixels.", ge=16, le=2048)
    steps: int = knob(100_000, "Total training steps; a resumed run can use a higher value.", ge=1)
    learning_rate: float = knob(1e-4, "Learning rate before the cool-down.", gt=0)
    warmup: int = knob(0, "Steps over which the learning rate rises from zero.", ge=0)
    cooldown: float = knob(
        0.5, "Final fraction of the run, in which the learning rate falls to zero.", ge=0, le=1
    )
    average: float = knob(
        0.0, "Decay of the running average of the generators; 0 for none, as published.", ge=0, lt=1
    )
    clip: float = knob(1e4, "Maximum gradient norm; so high that it only stops explosions.", gt=0)


def absolute(made: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute error."""
    return (made - wanted).abs().mean()


def check_domain(weights: str, name: str, domains: Sequence[str]) -> None:
    """Raise UsageError unless the network of `weights` knows the domain `name`."""
    if name not in domains:
        raise UsageError(
            f"{weights} has no domain '{name}': {did_you_mean(name, domains)} (it has {', '.join(domains)})"
        )


def check_crop(crop: int, multiple: int, why: str) -> None:
    """Raise TrainingError unless `crop` is a multiple of `multiple`; `why` continues the sentence."""
    if crop % multiple:
        raise TrainingError(
            f"crop = {crop} is not a multiple of {multiple}, {why}: use {max(1, crop // multiple) * multiple}"
        )
