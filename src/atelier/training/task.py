"""Training of a method's own networks: loads the data, evaluates, writes previews and exports.

One task serves every method that declares `Training`. It evaluates on held-out pictures and renders a
preview sheet of chosen pictures, because a low loss does not guarantee a good picture.
"""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from atelier.core.atomic import atomic
from atelier.core.device import compute_dtype
from atelier.core.errors import TrainingError, WeightsError
from atelier.core.progress import Progress
from atelier.methods.base import Batch, Job, Method
from atelier.methods.trainable import Stateful, Update, half_precision
from atelier.store import checkpoints
from atelier.store.weights import load
from atelier.training import bucketed, data, datasets, streams
from atelier.training.loop import portable
from atelier.training.painted import Painter
from atelier.training.processes import Processes

_SHEET_SIDE = 384
#: What lies between the rows of a sheet: grey, which is quiet on light pages and on dark ones.
_GAP = 128
#: Kinds of data whose preview sheets alternate photos and paintings.
_PAIRED = ("pairs", "styles", "references")
#: The seed for evaluation, the same in every run.
_EVALUATION_SEED = 1


class MethodTask:
    """Loads, trains and evaluates a method's networks. Pictures are decoded on demand."""

    def __init__(self, kind: type[Method], settings: Any) -> None:
        self.method, self.settings, self.name = kind(), settings, kind.name
        self.averaged = kind.averaged
        read = bucketed.read if kind.data == "bucketed" else partial(datasets.read, kind.data)
        self.data = read(settings)
        self.sheet = _sheet(settings.sheet, paired=kind.data in _PAIRED)
        self._placed_styles: dict[torch.device, list[Tensor]] = {}
        self._decoder = streams.Decoder(settings.cache * 2**20 // max(1, settings.workers))

    def __str__(self) -> str:
        """A summary of the data set, for the terminal."""
        return str(self.data)

    # the interface for the training loop

    def plan(self, device: torch.device) -> str:
        """What the run needs on a device. Raises ResourceError if it has less."""
        return self.method.plan(self.settings, self.data.info, device)

    def networks(self) -> dict[str, nn.Module]:
        """The method's networks. Raises TrainingError if a network to be averaged is missing."""
        networks = self.method.networks(self.settings, self.data.info)
        if missing := [name for name in self.averaged if name not in networks]:
            raise TrainingError(
                f"{self.name} averages a network '{missing[0]}' that it does not build: "
                f"it builds {', '.join(networks)}"
            )
        if self.settings.start:
            self._start(networks)
        return networks

    def _start(self, networks: Mapping[str, nn.Module]) -> None:
        """Load the weights to start from. Raises TrainingError if they belong to another network."""
        names = self.averaged or tuple(networks)
        if len(names) != 1:
            raise TrainingError(f"{self.name} trains several networks: it cannot start from one weights file")
        state = {name: tensor.float() for name, tensor in load(self.settings.start).items()}
        try:
            self.method.start(networks[names[0]], state)
        except (RuntimeError, WeightsError) as error:
            raise TrainingError(
                f"{self.settings.start} does not hold a network of {self.name} with these settings"
            ) from error

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        return self.method.optimisers(networks, self.settings)

    def state(self) -> dict[str, Stateful]:
        return self.method.state(self.settings)

    def updates(
        self, networks: Mapping[str, nn.Module], batch: Batch, state: Mapping[str, Stateful]
    ) -> Iterator[Update]:
        return self.method.updates(networks, batch, self.settings, state)

    def make(self, folder: Path, processes: Processes, progress: Progress) -> bool:
        """Paint the photos of a method that learns from paintings of them. Returns False if stopped."""
        if self.method.data != "painted" or all(stream.painted for stream in self.data.learn):
            return True
        styles = self._styles(processes.device)
        digest = hashlib.sha256(b"".join(style.cpu().numpy().tobytes() for style in styles)).hexdigest()

        def paint(photo: Tensor, part: Progress) -> Tensor:
            device = processes.device
            job = Job(photo.to(device), styles, [1.0], device, compute_dtype(device), progress=part)
            return self.method.target(job, self.settings)

        made_by = f"{self.method.target_key(self.settings)} {digest}"
        painter = Painter(paint, made_by, folder / "painted", self.settings.painted_side, self._decoder)
        if not painter.all((*self.data.learn, *self.data.judge), processes, progress):
            return False
        learn, judge = (
            tuple(map(painter.painted, streams)) for streams in (self.data.learn, self.data.judge)
        )
        self.data = replace(self.data, learn=learn, judge=judge)
        return True

    def batches(self, start: int, processes: Processes) -> Iterator[list[Batch]]:
        """The parts of each step's batch that this process computes."""
        settings = self.settings
        parts = [
            (index * processes.count + processes.index, settings.accumulate * processes.count)
            for index in range(settings.accumulate)
        ]
        loaded = self._loaded(streams.Keys(start, settings.steps, settings.batch, parts))
        for step in range(start, settings.steps):
            seed, across = data.mix(settings.seed, step), processes.mean
            yield [
                Batch(self._placed(next(loaded), processes.device), step, _generator(seed), part, across)
                for part in parts
            ]

    def _draws(self, found: Sequence[streams.Stream], seed: int) -> streams.Draws | bucketed.Arranged:
        if self.method.data == "bucketed":
            return bucketed.Arranged(found[0].sources[0], self.settings, seed, self._decoder)
        return streams.Draws(found, self.settings.crop, seed, self._decoder)

    def _loaded(self, keys: streams.Keys) -> Iterator[dict[str, Any]]:
        workers = self.settings.workers
        loader = DataLoader(
            self._draws(self.data.learn, self.settings.seed),
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=streams.stacked,
            # Not fork: it copies held locks but not the threads that would release them.
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=_start_worker,
            generator=_generator(0),
        )
        try:
            yield from loader
        except TrainingError as error:
            raise TrainingError(datasets.reason_of(error)) from None

    def _placed(self, items: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """Move loaded rows to the device, convert pictures to floats in 0..1, and add the fixed styles."""
        placed = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in items.items()
        }
        for name, value in placed.items():
            if isinstance(value, Tensor) and value.dtype == torch.uint8:
                placed[name] = value.float() / 255
        if self.data.info.styles:
            placed["styles"] = self._styles(device)
        return placed

    def _styles(self, device: torch.device) -> list[Tensor]:
        """The fixed styles on the device; every call returns the same tensors."""
        if device not in self._placed_styles:
            self._placed_styles[device] = [style.to(device) for style in self.data.info.styles]
        return self._placed_styles[device]

    # evaluation

    def evaluate(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """The method's scores on held-out pictures, using the same crops every time."""
        if not self.data.judge:
            return {}
        for network in networks.values():
            network.eval()
        device, sums = _device(networks), dict[str, float]()
        draws = self._draws(self.data.judge, _EVALUATION_SEED)
        batches = max(1, 2 * self.settings.held_back // self.settings.batch)
        for index in range(batches):
            rows = streams.stacked([draws[index, row] for row in range(self.settings.batch)])
            batch = Batch(self._placed(rows, device), index, _generator(index))
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.settings.half):
                terms = self.method.judge(networks, batch, self.settings)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term) / batches
        if not sums:
            return {}
        return {f"judged_{name}": value for name, value in (sums | {"loss": sum(sums.values())}).items()}

    # pictures

    def preview(self, networks: Mapping[str, nn.Module], path: Path) -> None:
        """Write the preview sheet: in each row the photo, the style if there is one, and the result.

        Pictures from words (`samples`) have rows of their own.
        """
        texts = getattr(self.settings, "samples", ())
        if not self.sheet and not texts:
            return
        with tempfile.TemporaryDirectory() as folder:
            painter = self.method.painter(networks, self.settings, Path(folder))
            device = _device(networks)
            rows = [self._row(painter, device, photo, style) for photo, style in self.sheet]
            rows += [self._drawn(painter, device, text) for text in texts]
        width = max(row.shape[1] for row in rows)
        gaps = [*[8] * (len(rows) - 1), 0]
        padded = [
            np.pad(row, ((0, gap), (0, width - row.shape[1]), (0, 0)), constant_values=_GAP)
            for row, gap in zip(rows, gaps, strict=True)
        ]
        with atomic(path) as temporary:
            encoded = cv2.imencode(".jpg", np.concatenate(padded)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            temporary.write_bytes(encoded[1].tobytes())

    def _row(
        self,
        painter: Callable[[Job], Tensor],
        device: torch.device,
        photo: data.Array,
        painting: data.Array | None,
    ) -> data.Array:
        styles = self._styles(device)[:1]
        if painting is not None:
            styles = [_tensor(painting).to(device)]
        job = Job(
            content=_tensor(photo).to(device),
            styles=styles,
            style_weights=[1.0] * len(styles),
            device=device,
            dtype=compute_dtype(device),
        )
        made = _pixels(painter(job))
        if painting is None:
            return np.concatenate([photo, made], axis=1)
        width = round(painting.shape[1] * photo.shape[0] / painting.shape[0])
        return np.concatenate([photo, cv2.resize(painting, (width, photo.shape[0])), made], axis=1)

    def _drawn(self, painter: Callable[[Job], Tensor], device: torch.device, text: str) -> data.Array:
        """The picture of these words, with the size of the run's squares."""
        canvas = torch.full((1, 3, self.settings.crop, self.settings.crop), 0.5, device=device)
        dtype = compute_dtype(device)
        job = Job(canvas, [], [], device, dtype, texts=[text], text_weights=[1.0], blank=True)
        return _pixels(painter(job))

    def export(self, networks: Mapping[str, nn.Module], path: Path, facts: Mapping[str, Any]) -> None:
        """Write the method's exported networks as fp16 safetensors, with the training facts as metadata.

        A network whose weights do not tell its shape is built again from the settings among them.
        """
        facts = {"settings": self.settings.model_dump(), **facts}
        state = half_precision(self.method.exported(networks))
        metadata = self.method.described(state, self.settings, self.data.info, facts)
        metadata |= {"network": self.name, "training": json.dumps(portable(facts))}
        with atomic(path) as temporary:
            checkpoints.write_safetensors(temporary, state, metadata)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _start_worker(number: int) -> None:
    """Use one thread, and ignore Ctrl-C: the training process still needs pictures to finish its step."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _device(networks: Mapping[str, nn.Module]) -> torch.device:
    """The device of the networks' first parameter."""
    weights = (weight for network in networks.values() for weight in network.parameters())
    return next(weights).device


def _sheet(names: Sequence[str], *, paired: bool) -> list[tuple[data.Array, data.Array | None]]:
    """The pictures of the preview sheet, scaled down; with `paired`, each with its painting."""
    if paired and len(names) % 2:
        raise TrainingError(
            f"the sheet has {len(names)} pictures: list them in pairs, each photo followed by a painting"
        )
    pictures = [_small(data.read_file(Path(name))) for name in names]
    if paired:
        return list(zip(pictures[::2], pictures[1::2], strict=True))
    return [(picture, None) for picture in pictures]


def _small(picture: data.Array) -> data.Array:
    scale = min(1.0, _SHEET_SIDE / max(picture.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _pixels(picture: Tensor) -> data.Array:
    """A picture (1, 3, H, W) in 0..1 as uint8 (H, W, 3)."""
    made: data.Array = (picture[0].float().clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    return made


def _tensor(picture: data.Array) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
