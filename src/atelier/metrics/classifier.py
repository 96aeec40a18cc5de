"""Whether a classifier of ImageNet still sees in the result what it sees in the photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from atelier.losses.directions import unit
from atelier.metrics.base import Style


class Classifier(Protocol):
    """A frozen classifier of pictures (1, 3, H, W) in 0..1, which it brings to its own size."""

    def __call__(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled features (1, D) and the scores of the classes (1, K)."""
        ...


@dataclass(frozen=True)
class ClassifierContent:
    """Cosine of the classifier's pooled features of result and photo; 1 is the photo."""

    classifier: Classifier

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        (one, _), (other, _) = self.classifier(result), self.classifier(content)
        return float((unit(one) * unit(other)).sum())


@dataclass(frozen=True)
class ClassifierRecall:
    """1 where the photo's first class is among the result's first five, else 0."""

    classifier: Classifier

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        (_, found), (_, wanted) = self.classifier(result), self.classifier(content)
        return float(wanted.argmax() in found.topk(5).indices)
