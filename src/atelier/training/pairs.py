"""Training of a method's own network on pairs of photographs and paintings.

One task serves every method that declares `Training`, `network` and `losses`: it feeds crops, steps with
Adam, judges on pictures held back, and paints a sheet of fixed pairs, since a low loss is not a good
picture.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from atelier.core import knobs
from atelier.core.atomic import atomic
from atelier.core.device import compute_dtype
from atelier.core.errors import TrainingError
from atelier.methods.base import Batch, Job, Method
from atelier.training import data
from atelier.training.loop import Settings, portable

_SHEET_SIDE = 384


class PairSettings(Settings):
    """What training on photos and paintings adds to every run; a method's `Training` may change defaults."""

    photos: tuple[str, ...] = Field(
        ..., description="Photographs: shards (.npz), folders, or patterns of them."
    )
    paintings: tuple[str, ...] = Field(..., description="Paintings: shards (.npz), folders, or patterns.")
    sheet: tuple[str, ...] = Field(
        (), description="Pictures painted at every evaluation: photo, painting, photo, painting, ..."
    )
    batch: int = Field(8, ge=1, description="Pairs a step.")
    crop: int = Field(160, ge=16, le=1024, description="Side of the square crops in pixels.")
    photo_zoom: float = Field(0.5, gt=0, le=1, description="Smallest crop as a part of a photo's short side.")
    painting_zoom: float = Field(
        0.33, gt=0, le=1, description="Smallest crop as a part of a painting's short side."
    )
    held_back: int = Field(16, ge=1, description="Photos and paintings that are judged by and never learnt.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's rate between warm-up and cool-down.")
    warmup: int = Field(50, ge=0, description="Steps over which the rate rises from zero.")
    cooldown: float = Field(
        0.7, ge=0, le=1, description="The last part of the run, in which the rate falls to zero."
    )
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    average: float = Field(0.999, ge=0, lt=1, description="Decay of the running average of the weights.")
    steps: int = Field(20_000, ge=1, description="Optimiser steps in all; a resumed run may be given more.")


def settings_of(kind: type[Method]) -> type[PairSettings]:
    """The settings of a method's training: its own knobs before those of every run on pairs."""
    if kind.Training is None:
        raise TrainingError(f"{kind.name} has no network of its own to train")
    return cast("type[PairSettings]", type(f"{kind.__name__}Settings", (kind.Training, PairSettings), {}))


class PairTask:
    """Builds, feeds and judges a method's network. All pictures are held in memory as uint8."""

    def __init__(self, kind: type[Method], settings: Any) -> None:
        self.method, self.settings, self.name = kind(), settings, kind.name
        self.photos, self.judged_photos = _split(_read(settings.photos, 512), settings.held_back)
        self.paintings, self.judged_paintings = _split(_read(settings.paintings, 640), settings.held_back)
        self.pairs = _pairs(settings.sheet)

    def build(self) -> nn.Module:
        return self.method.network(self.settings)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        return torch.optim.Adam(weights, lr=self.settings.learning_rate, betas=(0.9, 0.99))

    def loss(
        self, network: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The sum of the method's terms on one batch of random crops, and the terms."""
        batch = self._batch(self.photos, self.paintings, step, generator, next(network.parameters()).device)
        terms = self.method.losses(network, batch, self.settings)
        return _total(terms), {name: float(term.detach()) for name, term in terms.items()}

    def _batch(
        self,
        photos: Sequence[data.Array],
        paintings: Sequence[data.Array],
        step: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> Batch:
        def crops(pictures: Sequence[data.Array], zoom: float) -> Tensor:
            rows = torch.randint(len(pictures), (self.settings.batch,), generator=generator).tolist()
            some = data.random_crops(pictures, rows, self.settings.crop, zoom, generator)
            return (some.float() / 255).to(device)

        return Batch(
            photos=crops(photos, self.settings.photo_zoom),
            paintings=crops(paintings, self.settings.painting_zoom),
            step=step,
            generator=generator,
        )

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """The method's terms on pictures held back, the same crops every time."""
        network.eval()
        device, sums = next(network.parameters()).device, dict[str, float]()
        batches = max(1, 2 * self.settings.held_back // self.settings.batch)
        for index in range(batches):
            generator = torch.Generator().manual_seed(index)
            batch = self._batch(self.judged_photos, self.judged_paintings, index, generator, device)
            with (
                torch.no_grad(),
                torch.autocast(device.type, torch.bfloat16, enabled=self.settings.half),
            ):
                terms = self.method.losses(network, batch, self.settings)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term) / batches
        return {f"judged_{name}": value for name, value in (sums | {"loss": sum(sums.values())}).items()}

    def paint(self, network: nn.Module, path: Path) -> None:
        """The sheet of fixed pairs by the network as it is: photo, painting, result, row by row."""
        if not self.pairs:
            return
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.safetensors"
            self.export(network, weights, {})
            chosen = {"weights": str(weights)}
            if "encoder" in self.method.Knobs.model_fields:
                chosen["encoder"] = self.settings.encoder
            given = knobs.parse(self.method.Knobs, chosen)
            rows = [self._row(photo, painting, given) for photo, painting in self.pairs]
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0))) for row in rows]
        with atomic(path) as temporary:
            encoded = cv2.imencode(".jpg", np.concatenate(padded)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            temporary.write_bytes(encoded[1].tobytes())

    def _row(self, photo: data.Array, painting: data.Array, given: knobs.Knobs) -> data.Array:
        device = torch.device("cpu")
        content, style = (_tensor(picture) for picture in (photo, painting))
        job = Job(
            content=content, styles=[style], style_weights=[1.0], device=device, dtype=compute_dtype(device)
        )
        made = (self.method.picture(job, given)[0].permute(1, 2, 0) * 255).round().byte().numpy()
        tall = cv2.resize(
            painting, (round(painting.shape[1] * photo.shape[0] / painting.shape[0]), photo.shape[0])
        )
        return np.concatenate([photo, tall, made], axis=1)

    def export(self, network: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        """fp16 safetensors of the network's state dict, with the recipe as metadata."""
        from safetensors.torch import save_file

        state = {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in network.state_dict().items()
        }
        metadata = {"network": self.name, "training": json.dumps(portable(facts))}
        with atomic(path) as temporary:
            save_file(state, temporary, metadata=metadata)


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms.values()]).sum()


def _read(patterns: Sequence[str], short_side: int) -> list[data.Array]:
    """Every picture in the shards and folders, shrunk to `short_side`."""
    pictures: list[data.Array] = []
    for path in data.expand(patterns):
        if path.is_dir():
            pictures += data.read_folder(path, short_side=short_side)
        else:
            pictures += data.read_shard(path, short_side=short_side)[0]
    return pictures


def _split(pictures: list[data.Array], held_back: int) -> tuple[list[data.Array], list[data.Array]]:
    """The pictures to learn from, and every so many-th one to judge by."""
    if len(pictures) <= held_back:
        raise TrainingError(
            f"{len(pictures)} pictures are too few with {held_back} held back: give more, or hold back fewer"
        )
    judged = {round(index * len(pictures) / held_back) for index in range(held_back)}
    return (
        [picture for index, picture in enumerate(pictures) if index not in judged],
        [picture for index, picture in enumerate(pictures) if index in judged],
    )


def _pairs(names: Sequence[str]) -> list[tuple[data.Array, data.Array]]:
    """The sheet's pictures, two and two, with a long side that suits a sheet."""
    if len(names) % 2:
        raise TrainingError(f"a sheet is of pairs, photo and painting in turn, and {len(names)} were given")
    pictures = [_small(data.read_file(Path(name))) for name in names]
    return list(zip(pictures[::2], pictures[1::2], strict=True))


def _small(picture: data.Array) -> data.Array:
    scale = min(1.0, _SHEET_SIDE / max(picture.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _tensor(picture: data.Array) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
