"""The interface of trainable methods: their data, networks, optimisers, and the updates of one step.

A method with one network declares `Training`, `network` and `losses`. One with several networks
(adversarial training, for instance) overrides `networks`, `optimisers` and `updates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from atelier.core.errors import TrainingError
from atelier.core.lazy import torch

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor, nn

#: The kinds of training data, and the items of their batches:
#: pairs: `photos` and `paintings`, drawn independently;
#: styles: `photos`, and all the style pictures in `styles`;
#: one_style: as styles, with exactly one style;
#: painted: as one_style, and `painted`, each photo as `Trainable.target` paints it before the training;
#: pictures: `pictures`, all of one kind;
#: domains: `a` and `b`, from two folders;
#: labelled: `pictures`, and `domain`, the index of each picture's folder;
#: referenced: as labelled, and `references` (B, 2, 3, S, S), two pictures of the domain `wanted`;
#: captioned: `pictures`, and `captions` from .txt files of the same name;
#: composites: `photos`, `masks` (B, 1, S, S) of one object each, `paintings`, and `others`, (B, 3, 3, S, S),
#:   paintings of other styles;
#: references: `targets` with their `captions`, `references`, and `relation`: 0 for references of the same
#:   style, 1 of the same content, 2 for the target itself;
#: bucketed: `pictures` of one aspect bucket, their `captions`, and their `names`.
DataKind = Literal[
    "pairs",
    "styles",
    "one_style",
    "painted",
    "pictures",
    "domains",
    "labelled",
    "referenced",
    "captioned",
    "bucketed",
    "composites",
    "references",
]


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Batch:
    """The data of one training step.

    `items` holds the data by name: pictures are (B, 3, S, S), float32 sRGB in 0..1; see `DataKind` for
    the names. `generator` is on the CPU and seeded by the step, so that a resumed run draws the same
    numbers as an uninterrupted one.

    Several processes or accumulated batches can share a step. `part` is the (index, count) of this share:
    row r here is row `index + r * count` of the whole batch. `across` averages a tensor over all processes.
    """

    items: Mapping[str, Any]
    step: int
    generator: torch.Generator
    part: tuple[int, int] = (0, 1)
    across: Callable[[Tensor], Tensor] = _same

    @classmethod
    def pairs(cls, photos: Tensor, paintings: Tensor, step: int, generator: torch.Generator) -> Batch:
        """A batch of photos and paintings."""
        return cls({"photos": photos, "paintings": paintings}, step, generator)

    def __getitem__(self, name: str) -> Any:
        return self.items[name]

    @property
    def photos(self) -> Tensor:
        """The photos (B, 3, S, S)."""
        photos: Tensor = self.items["photos"]
        return photos

    @property
    def paintings(self) -> Tensor:
        """The paintings (B, 3, S, S)."""
        paintings: Tensor = self.items["paintings"]
        return paintings

    @property
    def whole(self) -> int:
        """The number of pictures in all shares of this step."""
        first = next(iter(self.items.values()))
        return len(first) * self.part[1]

    def rows(self, values: Tensor) -> Tensor:
        """This share's rows of `values` (whole, ...), which has one row per picture of the whole batch.

        >>> import torch
        >>> Batch({}, 0, torch.Generator(), part=(1, 2)).rows(torch.arange(6)).tolist()
        [1, 3, 5]
        """
        return values[self.part[0] :: self.part[1]]


@dataclass(frozen=True)
class Update:
    """One update: the optimisers of these names minimise the sum of `terms` (name: scalar)."""

    optimiser: str | tuple[str, ...]
    terms: Mapping[str, Tensor]


@dataclass(frozen=True)
class DataInfo:
    """Facts on the data that a method needs to build its networks.

    `styles` are the fixed style pictures, each (1, 3, H, W) in 0..1, and `style_names` the names of their
    files without the suffix; `domains` are the names of labelled domains; `facts` what the metadata of the
    exported file tells of bucketed data.
    """

    styles: Sequence[Tensor] = ()
    style_names: Sequence[str] = ()
    domains: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Stateful(Protocol):
    """An object saved in checkpoints; its state consists of tensors, numbers, text, lists and dicts."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass
class ImagePool:
    """A history of generated pictures for a discriminator (Shrivastava et al. 2017).

    Keeps up to `size` pictures; a pool of size 0 returns its input.
    """

    size: int = 50
    images: list[Tensor] = field(default_factory=list)

    def exchange(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """The pictures (B, C, H, W), detached; a full pool swaps half of them for older ones.

        The replaced picture takes the older one's slot. Batches with non-finite values are not kept.
        """
        pictures = pictures.detach()
        if not self.size or not bool(torch.isfinite(pictures).all()):
            return pictures
        return torch.stack([self._one(picture, generator) for picture in pictures])

    def _one(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(picture.clone())
            return picture
        swap, place = self._draw(generator)
        if swap <= 0.5:
            return picture
        index = int(place * self.size)
        old, self.images[index] = self.images[index], picture.clone()
        return old.to(picture)

    def _draw(self, generator: torch.Generator) -> list[float]:
        """Two numbers in 0..1: whether to swap, and with which picture."""
        return torch.rand(2, generator=generator).tolist()

    def state_dict(self) -> dict[str, Any]:
        """The kept pictures."""
        return {"images": list(self.images)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the pictures from `state_dict`."""
        self.images = list(state_dict["images"])


class Trainable:
    """The training side of a method; `Training` is None for a method that is not trained."""

    name: ClassVar[str]
    Knobs: ClassVar[type[Any]]
    #: Its training settings. They can also override defaults of the run (steps, batch, crop, ...).
    Training: ClassVar[type[BaseModel] | None] = None
    #: The kind of data that it trains on.
    data: ClassVar[DataKind] = "pairs"
    #: Networks with a running average of weights, which is used for evaluation and export.
    averaged: ClassVar[tuple[str, ...]] = ("network",)
    #: The knob that takes the exported weights.
    weights_knob: ClassVar[str] = "weights"
    #: Knobs that must have the same value in painting as in training.
    shared_knobs: ClassVar[tuple[str, ...]] = ("encoder",)

    # one network

    def network(self, training: Any) -> nn.Module:
        """The network to train, initialised from torch's global seed.

        Not abstract: methods that are not trained, or that override `networks`, have none.
        """
        raise NotImplementedError

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, Tensor]:
        """The weighted terms of one step by name; their sum is minimised.

        Not abstract: methods that are not trained, or that override `updates`, have none.
        """
        raise NotImplementedError

    def start(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load the weights that training starts from: those that the method itself reads.

        Raises RuntimeError if they belong to another network.
        """
        network.load_state_dict(dict(state))

    def target(self, job: Any, training: Any) -> Tensor:
        """The picture that the network learns to make of the `Job`, from the same seed always the same.

        Not abstract: only methods whose data are "painted" have one.
        """
        raise NotImplementedError

    def target_key(self, training: Any) -> str:
        """What `target` depends on besides the photo and the style, as text."""
        return self.name

    # several networks

    def networks(self, training: Any, data: DataInfo) -> dict[str, nn.Module]:
        """All networks by name, initialised from torch's global seed."""
        return {"network": self.network(training)}

    def optimisers(
        self, networks: Mapping[str, nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        """The optimisers by name: one Adam per network unless overridden."""
        return {
            name: torch.optim.Adam(
                [weight for weight in network.parameters() if weight.requires_grad],
                lr=training.learning_rate,
                betas=(0.9, 0.99),
            )
            for name, network in networks.items()
        }

    def state(self, training: Any) -> dict[str, Stateful]:
        """State kept between steps and saved in checkpoints, such as an `ImagePool`."""
        return {}

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        """The updates of one step, in order.

        The training loop backpropagates and applies each update before it requests the next. Only the
        parameters of the update's optimisers receive gradients.
        """
        yield Update("network", self.losses(networks["network"], batch, training))

    def plan(self, training: Any, data: DataInfo, device: torch.device) -> str:
        """What the run needs on the device, told before anything is loaded; empty if there is nothing to say.

        Raises ResourceError if the memory does not suffice.
        """
        return ""

    # evaluation, export, painting

    def judge(self, networks: Mapping[str, Any], batch: Batch, training: Any) -> dict[str, Tensor]:
        """Scores of the averaged networks on a held-out batch; by default, a single network's losses."""
        if type(self).losses is Trainable.losses:
            return {}
        return self.losses(networks["network"], batch, training)

    def exported(self, networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """The tensors for `weights_knob`: those of the averaged networks, or of all if none is averaged.

        With several networks, each tensor name is prefixed with the network's name.
        """
        names = tuple(self.averaged or networks)
        if len(names) == 1:
            return dict(networks[names[0]].state_dict())
        return {
            f"{name}.{key}": tensor for name in names for key, tensor in networks[name].state_dict().items()
        }

    def described(
        self, state: Mapping[str, Tensor], training: Any, data: DataInfo, facts: Mapping[str, Any]
    ) -> dict[str, str]:
        """More metadata for the exported file, from its tensors as written and the facts on the run."""
        return {}

    def painter(
        self, networks: Mapping[str, nn.Module], training: Any, folder: Path
    ) -> Callable[[Any], Tensor]:
        """Preview painter: paints a `Job` with the networks in training, (1, 3, H, W) of the content's size.

        Writes the weights to `folder` and sets `weights_knob` to their path.
        """
        from safetensors.torch import save_file

        from atelier.core.knobs import parse

        path = folder / "weights.safetensors"
        save_file(half_precision(self.exported(networks)), path)
        shared = {name for name in self.shared_knobs if name in self.Knobs.model_fields}
        chosen = {name: getattr(training, name) for name in shared if hasattr(training, name)}
        knobs = parse(self.Knobs, chosen | {self.weights_knob: str(path)})
        return lambda job: self.picture(job, knobs)

    def picture(self, job: Any, knobs: Any) -> Tensor:
        """The picture, (1, 3, H, W) of the content's size; `Method` defines it."""
        raise NotImplementedError


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a safetensors file: contiguous, floats as float16. Raises TrainingError if empty."""
    if not state:
        raise TrainingError("there are no weights to write: the method exports no tensors")
    return {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for name, value in state.items()
    }
