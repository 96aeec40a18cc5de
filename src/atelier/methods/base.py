"""What a method declares and what it receives: the base class, a job, a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from atelier.core.knobs import Knobs
from atelier.core.progress import Progress

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    authors: str
    year: int
    title: str
    url: str


@dataclass
class Job:
    """One picture to make: what every method gets, already prepared.

    `content` is (1, 3, H, W) and each of `styles` (1, 3, H', W'), float32 sRGB in 0..1 on `device`;
    `style_weights` sum to 1. `dtype` is what networks should compute in. `strength` is 1 unless the
    method declares that it handles strength itself, and `regions`, each style's share of every pixel
    (K, 1, H, W), is None unless it handles those.
    """

    content: torch.Tensor
    styles: Sequence[torch.Tensor]
    style_weights: Sequence[float]
    device: torch.device
    dtype: torch.dtype
    seed: int = 0
    strength: float = 1.0
    progress: Progress = field(default_factory=Progress)
    regions: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """What a step of training sees: photos and paintings (B, 3, S, S), float32 sRGB in 0..1.

    `generator` is on the CPU and seeded by the step, so that a resumed run draws what an unbroken one
    would have drawn.
    """

    photos: torch.Tensor
    paintings: torch.Tensor
    step: int
    generator: torch.Generator


class Method:
    """Base of every method. The class's docstring is its one-sentence description."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    Knobs: ClassVar[type[Knobs]]
    #: Controls that the method does itself, better than the shared way: "strength", "styles", "regions".
    native: ClassVar[frozenset[str]] = frozenset()
    #: Whether there is nothing to do without a style picture; else one may be left out.
    needs_style: ClassVar[bool] = True
    #: Knobs by `--quality` name; "draft", "good" and "best" everywhere, more where a method has them.
    qualities: ClassVar[Mapping[str, Mapping[str, Any]]] = {"draft": {}, "good": {}, "best": {}}
    #: The long side in pixels by quality, when no size is asked for.
    sizes: ClassVar[Mapping[str, int]] = {"draft": 384, "good": 512, "best": 768}

    def transfer(self, job: Job, knobs: Any) -> torch.Tensor:
        """The picture, (1, 3, H, W) of the content's size."""
        raise NotImplementedError

    def weights(self, knobs: Any) -> Sequence[str]:
        """Names or paths of the weights and other files that these knobs use, for the recipe."""
        return ()

    def look(self, job: Job, knobs: Any) -> None:
        """Look at the styles alone and leave what is worth keeping in the cache; nothing by default."""

    # training, for a method that has a network of its own

    #: The knobs of its training; they also set other defaults for the loop's own (steps, batch, crop, ...).
    Training: ClassVar[type[BaseModel] | None] = None

    def network(self, training: Any) -> torch.nn.Module:
        """What is trained, new from torch's global seed; its state dict is what the knob `weights` names."""
        raise NotImplementedError

    def losses(self, network: torch.nn.Module, batch: Batch, training: Any) -> dict[str, torch.Tensor]:
        """The weighted terms of one step by name; their sum is minimised."""
        raise NotImplementedError

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """Tiny weights from a fixed seed by the knob that names them, for the tests of every method."""
        return {}

    @classmethod
    def family(cls) -> str:
        """The folder that the method's file lies in: "optimise", "classical", ..."""
        return cls.__module__.rsplit(".", 2)[-2]

    @classmethod
    def summary(cls) -> str:
        """The one sentence that lists show."""
        return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
