"""Training of the bundled encoder: a classifier of small photographs with a second head for style.

Recipe: random crops at mixed sizes (a network trained at one size does poorly at others), colour
and blur augmentation, label smoothing, SGD; small pictures first, large ones in the cool-down
(progressive resizing); a second head that classifies kinds of painting. Batch norm statistics are
re-estimated at many sizes before each evaluation and before batch norm is folded in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier.core.atomic import atomic
from atelier.methods.base import Batch
from atelier.methods.trainable import Stateful, Update
from atelier.networks.classifier import Classifier, fold
from atelier.training import data
from atelier.training.loop import portable
from atelier.training.processes import Processes
from atelier.training.settings import EncoderSettings, rate

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
DEVIATION = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)


class EncoderTask:
    """Builds, trains and evaluates the classifier. Its small pictures are kept in memory as uint8."""

    name = "encoder"
    averaged = ("network",)

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self.photos = data.read_shards(data.expand(settings.photos))
        self.validation = data.read_shards(data.expand(settings.validation))
        self.styles: data.Labelled | None = None
        if settings.paintings:
            scenes = data.expand(settings.scenes)
            self.styles = data.read_styles(Path(settings.paintings), scenes, short_side=256)

    def __str__(self) -> str:
        """A summary of the data sets, for the terminal."""
        styles = f", {len(self.styles)} pictures of {self.styles.classes} styles" if self.styles else ""
        return f"{len(self.photos)} photos of {self.photos.classes} classes{styles}"

    def networks(self) -> dict[str, nn.Module]:
        return {"network": self.build()}

    def build(self) -> Classifier:
        """The classifier, initialised from torch's global seed."""
        return Classifier(
            widths=self.settings.widths,
            depths=self.settings.depths,
            objects=self.photos.classes,
            styles=self.styles.classes if self.styles else 0,
        )

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        return {"network": self.optimiser(networks["network"])}

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """SGD with momentum, without weight decay on norms and biases."""
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [p for p in network.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=self.settings.learning_rate, momentum=0.9, nesterov=True)

    # the step

    def state(self) -> dict[str, Stateful]:
        return {}

    def batches(self, start: int, processes: Processes) -> Iterator[list[Batch]]:
        """The parts of each step's batch that this process computes, as strided slices of the batch."""
        count = self.settings.accumulate * processes.count
        parts = [index * processes.count + processes.index for index in range(self.settings.accumulate)]
        for step in range(start, self.settings.steps):
            seed = data.mix(self.settings.seed, step, 0)
            images, objects, styles = self.batch(step, torch.Generator().manual_seed(seed))
            photos, paintings = images[: len(objects)], images[len(objects) :]
            yield [
                Batch(
                    {
                        "images": torch.cat([photos[part::count], paintings[part::count]]).to(
                            processes.device
                        ),
                        "objects": objects[part::count].to(processes.device),
                        "styles": styles[part::count].to(processes.device),
                    },
                    step,
                    torch.Generator().manual_seed(seed),
                    (part, count),
                )
                for part in parts
            ]

    def updates(
        self, networks: Mapping[str, nn.Module], batch: Batch, state: Mapping[str, Stateful]
    ) -> Iterator[Update]:
        """Cross entropy of both heads on a batch of pictures of one size."""
        yield Update("network", self.losses(networks["network"], batch))

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted cross entropy of each head."""
        images, objects, styles = batch["images"], batch["objects"], batch["styles"]
        object_logits, style_logits = network(images.contiguous(memory_format=torch.channels_last))
        count, smoothing = len(objects), self.settings.smoothing
        terms = {
            "objects": F.cross_entropy(object_logits[:count].float(), objects, label_smoothing=smoothing)
        }
        if style_logits is not None and len(styles):
            style = F.cross_entropy(style_logits[count:].float(), styles, label_smoothing=smoothing)
            terms["styles"] = self.settings.style_weight * style
        return terms

    def batch(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised pictures (B, 3, S, S), photos first; object labels of the photos; styles of the rest."""
        late = rate(max(step, self.settings.warmup), self.settings) < 1
        sizes = self.settings.late_sizes if late else self.settings.sizes
        size = sizes[int(torch.randint(len(sizes), (), generator=generator))]
        crops, labels = self._draw(self.photos, self.settings.batch, size, self.settings.smallest, generator)
        styles = labels[:0]
        if self.styles is not None and step >= self.settings.style_start:
            count = round(self.settings.style_share * self.settings.batch)
            # Down to a sixth of 256 px, to show brush strokes as in a close view of a painting.
            more, styles = self._draw(self.styles, count, size, 1 / 6, generator)
            crops = torch.cat([crops, more])
        images = data.jitter(crops.float() / 255, self.settings.colour, self.settings.blur, generator)
        return (images - MEAN) / DEVIATION, labels, styles

    @staticmethod
    def _draw(
        source: data.Labelled, count: int, size: int, smallest: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(source), (count,), generator=generator).tolist()
        return data.random_crops(source.pictures, rows, size, smallest, generator), torch.from_numpy(
            source.labels[rows]
        )

    # evaluation

    def evaluate(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Top-1 accuracy on validation pictures at 48, 64 and 96 px, with re-estimated batch norm."""
        judged = self.calibrated(networks["network"])
        return self.accuracy(judged, self.settings.judged)

    @torch.inference_mode()
    def accuracy(self, network: nn.Module, count: int) -> dict[str, float]:
        """Top-1 accuracy on the first `count` validation pictures, by picture size."""
        count = min(count, len(self.validation))
        device = next(network.parameters()).device
        right = {48: 0, 64: 0, 96: 0}
        network.eval()
        for start in range(0, count, 250):
            rows = slice(start, min(start + 250, count))
            pixels = torch.from_numpy(self.validation.pictures[rows]).permute(0, 3, 1, 2)
            images = ((pixels.float() / 255) - MEAN) / DEVIATION
            labels = torch.from_numpy(self.validation.labels[rows])
            for size in right:
                small = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.half):
                    logits, _ = network(small.to(device, memory_format=torch.channels_last))
                right[size] += int((logits.float().argmax(1).cpu() == labels).sum())
        return {f"top1_{size}": n / count for size, n in right.items()}

    @torch.no_grad()
    def calibrated(self, network: nn.Module, batches: int = 24) -> Classifier:
        """A copy with batch norm statistics averaged over batches of many sizes."""
        network = copy.deepcopy(network)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative instead of exponential average
        network.train()
        device = next(network.parameters()).device
        for index in range(batches):
            generator = torch.Generator().manual_seed(index)
            images, _, _ = self.batch(self.settings.steps - 1, generator)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.half):
                network(images.to(device, memory_format=torch.channels_last))
        assert isinstance(network, Classifier)
        return network.eval()

    def export(self, networks: Mapping[str, nn.Module], path: Path, facts: Mapping[str, Any]) -> None:
        """Write the convolutions up to conv5_1 as fp16 safetensors, with recipe and scores as metadata."""
        import json

        from safetensors.torch import save_file

        judged = self.calibrated(networks["network"], batches=100)
        scores = self.accuracy(judged, len(self.validation))
        # The last stage's second convolution is only used by the classifier; it has no tap.
        last = f"conv{judged.stages}_"
        state = {
            name: value.half()
            for name, value in fold(judged).items()
            if not name.startswith(last) or name.startswith(f"{last}1.")
        }
        metadata = {
            "network": "encoder",
            "scores": json.dumps(scores),
            "training": json.dumps(portable(facts)),
        }
        with atomic(path) as temporary:
            save_file(state, temporary, metadata=metadata)
