"""Descent on the image itself: L-BFGS or Adam, keeping the best, averaging, stopping when it diverges."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

Optimiser = Literal["adam", "lbfgs"]
Objective = Callable[[Tensor], Mapping[str, Tensor]]
Report = Callable[[int, Mapping[str, float], Callable[[], Tensor]], bool]

#: What is left of Adam's step at the end, where it cools.
_COLD = 0.3


class Descent:
    """Minimises the sum of `objective`'s terms over an image (B, 3, H, W) with values in 0..1.

    The image is clamped to `bounds` before each evaluation, as PyTorch's tutorial does; L-BFGS is not told,
    so its memory, of the last `history` steps, refers to the unclamped iterates. `report(evaluation, terms,
    image)` is called after each evaluation and returns False to stop.

    What counts is not the last iterate: `best` is the one of the lowest loss, and with `average` > 0 Adam's
    result is the exponential average of its iterates, which has less grain (as Polyak averaging has in
    training). Over the last `cooling` of the evaluations Adam's step shrinks to 0.3 of its size: at a
    constant one the loss ends by going up and down.

    The descent stops when the loss is not finite. L-BFGS, which has no line search here, may leap to many
    times the lowest loss and come down to a lower one within a few evaluations; it stops when it has stayed
    above `diverged` times the lowest for more than `patience` of them, for then it never does. Its first
    step, along the gradient, is 1 over all values together as in torch, which rounding swallows where they
    are many; or `first_step`, the mean over the values.

    torch's L-BFGS skips curvatures below 1e-10 and ends at gradients below 1e-7, which a loss that is a mean
    over a large picture never exceeds. With `rescale` such a loss is multiplied by a power of two, from its
    first gradient. That changes nothing where curvatures are positive, except those thresholds; but until
    the first positive one the step is the gradient itself, and so grows with the factor. A loss in a
    published unit is therefore minimised with `rescale=False`, which is torch's L-BFGS to the bit.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
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
        cooling: float = 0.0,
        history: int = 100,
        first_step: float | None = None,
        rescale: bool = True,
        report: Report | None = None,
    ) -> None:
        self.objective, self.optimiser, self.iterations = objective, optimiser, iterations
        self.step_size, self.average = step_size, average if optimiser == "adam" else 0.0
        self.cooling = cooling
        self.history, self.first_step, self.report = history, first_step, report
        self.rescale = rescale
        self.done = 0
        self.lowest = math.inf
        self.failed = False
        self.high = 0
        self.unit = 1.0

    @torch.inference_mode(False)
    def run(self, start: Tensor) -> Tensor:
        """The best image found from `start`, (B, 3, H, W), detached, within the bounds."""
        self.image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
        self.best = self.image.detach().clamp(*self.bounds)
        self.mean = torch.zeros_like(self.best) if self.average else None
        with torch.enable_grad(), contextlib.suppress(_StopDescentError):
            self._adam() if self.optimiser == "adam" else self._lbfgs()
        return self.result()

    def result(self) -> Tensor:
        """The averaged iterates, or the best one where nothing is averaged or the descent diverged."""
        if self.mean is None or self.done == 0 or self.failed:
            return self.best
        return (self.mean / (1 - self.average**self.done)).clamp(*self.bounds)

    def _evaluate(self) -> Tensor:
        with torch.no_grad():
            self.image.clamp_(*self.bounds)
        terms = self.objective(self.image)
        total = torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(total, self.image)
        self._keep(float(total.detach()))
        if self.rescale and self.optimiser == "lbfgs" and self.done == 1:
            self.unit = _unit(gradient)
        # It comes channels-last out of an encoder, and L-BFGS flattens by view.
        self.image.grad = gradient.contiguous() * self.unit
        values = {name: float(term.detach()) for name, term in terms.items()}
        if self.report is not None and not self.report(self.done, values, self.result):
            raise _StopDescentError
        return total * self.unit

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
        cooled = max(1.0, self.cooling * self.iterations)
        for done in range(self.iterations):
            self._evaluate()
            warm = min(1.0, (self.iterations - done) / cooled)
            optimiser.param_groups[0]["lr"] = self.step_size * (_COLD + (1 - _COLD) * warm)
            optimiser.step()

    def _lbfgs(self) -> None:
        optimiser = torch.optim.LBFGS([self.image], history_size=self.history)
        (group,) = optimiser.param_groups
        if self.first_step is not None:
            group |= {"lr": self.first_step * self.image.numel(), "max_iter": 1}
            optimiser.step(self._evaluate)  # type: ignore[no-untyped-call]
            group["lr"] = 1.0
        while self.done < self.iterations:
            before = self.done
            # Each closure is one evaluation; the last step is cut so that their number is exact.
            group["max_iter"] = min(20, self.iterations - self.done)
            optimiser.step(self._evaluate)  # type: ignore[no-untyped-call]
            if self.done - before <= 1:
                return  # the gradient or the step has become too small to go on


def _unit(gradient: Tensor) -> float:
    """The power of two that brings a first gradient with a mean below 1 to a mean of 1 to 2."""
    size = float(gradient.abs().mean(dtype=torch.float64))
    return 2.0 ** math.ceil(-math.log2(size)) if 0 < size < 1 else 1.0


class _StopDescentError(Exception):
    """The listener asked to stop, or the loss diverged."""
