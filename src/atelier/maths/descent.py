"""Descent on the image itself: L-BFGS or Adam, keeping the best, averaging, stopping when it diverges."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Optimiser = Literal["adam", "lbfgs"]
Objective = Callable[[Tensor], Mapping[str, Tensor]]
Report = Callable[[int, Mapping[str, float], Callable[[], Tensor]], bool]


class Descent:
    """Minimises the sum of `objective`'s terms over an image (B, 3, H, W) with values in 0..1.

    The image is clamped to 0..1 before each evaluation, as PyTorch's tutorial does; L-BFGS is not told,
    so its memory refers to the unclamped iterates. `report(evaluation, terms, image)` is called after each
    evaluation and returns False to stop.

    What counts is not the last iterate: `best` is the one of the lowest loss, and with `average` > 0 Adam's
    result is the exponential average of its iterates, which has less grain (as Polyak averaging has in
    training). The descent stops when the loss is not finite. L-BFGS, which has no line search here, may leap
    to many times the lowest loss and come down to a lower one within a few evaluations; it stops when it
    has stayed above `diverged` times the lowest for more than `patience` of them, for then it never does.
    """

    diverged = 10.0
    patience = 20

    def __init__(
        self,
        objective: Objective,
        *,
        optimiser: Optimiser = "adam",
        iterations: int = 300,
        step_size: float = 0.02,
        average: float = 0.0,
        report: Report | None = None,
    ) -> None:
        self.objective, self.optimiser, self.iterations = objective, optimiser, iterations
        self.step_size, self.average = step_size, average if optimiser == "adam" else 0.0
        self.report = report
        self.done = 0
        self.lowest = math.inf
        self.failed = False
        self.high = 0

    @torch.inference_mode(False)
    def run(self, start: Tensor) -> Tensor:
        """The best image found from `start`, (B, 3, H, W), detached, in 0..1."""
        self.image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
        self.best = self.image.detach().clamp(0, 1)
        self.mean = torch.zeros_like(self.best) if self.average else None
        with torch.enable_grad(), contextlib.suppress(_StopDescentError):
            self._adam() if self.optimiser == "adam" else self._lbfgs()
        return self.result()

    def result(self) -> Tensor:
        """The averaged iterates, or the best one where nothing is averaged or the descent diverged."""
        if self.mean is None or self.done == 0 or self.failed:
            return self.best
        return (self.mean / (1 - self.average**self.done)).clamp(0, 1)

    def _evaluate(self) -> Tensor:
        with torch.no_grad():
            self.image.clamp_(0, 1)
        terms = self.objective(self.image)
        total = torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(total, self.image)
        # It comes channels-last out of an encoder, and L-BFGS flattens by view.
        self.image.grad = gradient.contiguous()
        self._keep(float(total.detach()))
        values = {name: float(term.detach()) for name, term in terms.items()}
        if self.report is not None and not self.report(self.done, values, self.result):
            raise _StopDescentError
        return total

    def _keep(self, total: float) -> None:
        self.failed = not math.isfinite(total) or total > self.diverged * self.lowest > 0
        self.high = self.high + 1 if self.failed else 0
        lost = self.optimiser == "lbfgs" and self.high > self.patience
        if lost or not math.isfinite(total):
            raise _StopDescentError
        self.done += 1
        iterate = self.image.detach()
        if total < self.lowest:
            self.lowest = total
            self.best.copy_(iterate)
        if self.mean is not None:
            self.mean.mul_(self.average).add_(iterate, alpha=1 - self.average)

    def _adam(self) -> None:
        # The short memory of the squares lets it follow a loss whose scale falls a thousandfold.
        optimiser = torch.optim.Adam([self.image], lr=self.step_size, betas=(0.9, 0.99))
        for _ in range(self.iterations):
            self._evaluate()
            optimiser.step()

    def _lbfgs(self) -> None:
        optimiser = torch.optim.LBFGS([self.image])
        while self.done < self.iterations:
            before = self.done
            # Each closure is one evaluation; the last step is cut so that their number is exact.
            group = optimiser.param_groups[0]
            group["max_iter"] = min(20, self.iterations - self.done)
            optimiser.step(self._evaluate)  # type: ignore[no-untyped-call]
            if self.done - before <= 1:
                return  # the gradient or the step has become too small to go on


class _StopDescentError(Exception):
    """The listener asked to stop, or the loss diverged."""
