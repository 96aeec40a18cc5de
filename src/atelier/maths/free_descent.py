"""Descent on tensors without a fixed range, such as features, and on the levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from atelier.maths.descent import Descent, Objective


class FreeDescent(Descent):
    """Descent on a tensor of any shape and range: nothing is clamped."""

    bounds = (-math.inf, math.inf)


class PyramidDescent(FreeDescent):
    """Descent on the pyramid levels of an image, which `split` creates and `merge` recombines.

    Optimising all levels together moves large areas as easily as single pixels. The objective sees the
    unclamped image, and `image` is the last one that it saw. The result is that image, or the average,
    clamped to 0..1. It is not the one with the lowest loss, because with an objective that samples random
    positions at each evaluation the lowest loss is only a lucky draw.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        split: Callable[[Tensor], Sequence[Tensor]],
        merge: Callable[[Sequence[Tensor]], Tensor],
        rule: Literal["rmsprop", "adam"] = "rmsprop",
        **options: Any,
    ) -> None:
        super().__init__(objective, optimiser="adam", **options)
        self.split, self.merge, self.rule = split, merge, rule

    def result(self) -> Tensor:
        """The average or the last image, clamped to 0..1; the best one if the descent diverged."""
        if self.failed or self.done == 0:
            return self.best.clamp(0, 1)
        return (self.image.detach() if self.mean is None else super().result()).clamp(0, 1)

    def _adam(self) -> None:
        self.levels = [level.detach().requires_grad_(True) for level in self.split(self.image.detach())]
        if self.rule == "adam":
            optimiser: Any = torch.optim.Adam(self.levels, lr=self.step_size, betas=(0.9, 0.99))
        else:
            optimiser = torch.optim.RMSprop(self.levels, lr=self.step_size)
        for _ in range(self.iterations):
            whole = self.merge(self.levels)
            with torch.no_grad():
                self.image.copy_(whole)
            self._evaluate()
            for level, slope in zip(
                self.levels, torch.autograd.grad(whole, self.levels, self.image.grad), strict=True
            ):
                level.grad = slope
            optimiser.step()
