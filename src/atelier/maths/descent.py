"""Optimisation of the image itself, by L-BFGS or Adam, with averaging and divergence detection."""

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

#: The fraction of Adam's step size that is left after cooling.
_COLD = 0.3


class Descent:
    """Minimises the sum of the terms of `objective` over an image (B, 3, H, W) with values in 0..1.

    The image is clamped to `bounds` before each evaluation, as in PyTorch's tutorial. The curvature history
    of L-BFGS, the last `history` steps, still refers to the unclamped iterates.
    `report(evaluation, terms, image)` is called after each evaluation; it returns False to stop.

    The result is the iterate with the lowest loss, `best`. With `average` > 0, the result of Adam is the
    exponential moving average of its iterates instead, which has less grain (like Polyak averaging in
    training). Over the last fraction `cooling` of the evaluations, Adam's step size decreases to 0.3 of its
    value: with a constant step size the loss oscillates at the end.

    The descent stops if the loss is not finite. L-BFGS has no line search here, so it may jump to many times
    the lowest loss and reach a lower one within a few evaluations. It stops once the loss has stayed above
    `diverged` times the lowest for more than `patience` evaluations, after which it does not recover. The
    first step of L-BFGS is along the gradient. As in torch, its L1 norm is at most 1, which is lost in
    rounding for large images; with `first_step`, that is its mean absolute value instead.

    torch's L-BFGS skips curvatures below 1e-10 and stops at gradients below 1e-7. A loss that is a mean over
    a large picture never exceeds these thresholds. With `rescale`, such a loss is multiplied by a power of
    two, derived from its first gradient. With positive curvatures this affects only the thresholds; before
    the first positive curvature the step is the gradient itself and grows with the factor. To reproduce a
    published loss, use `rescale=False`, which is bit-identical to torch's L-BFGS.
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
        """The result of the descent from `start` (B, 3, H, W), detached and within the bounds."""
        self.image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
        self.best = self.image.detach().clamp(*self.bounds)
        self.mean = torch.zeros_like(self.best) if self.average else None
        with torch.enable_grad(), contextlib.suppress(_StopDescentError):
            self._adam() if self.optimiser == "adam" else self._lbfgs()
        return self.result()

    def result(self) -> Tensor:
        """The average of the iterates, or the best iterate if there is no average or the descent diverged."""
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
        # Encoders return channels-last gradients, which L-BFGS cannot flatten with view().
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
        # A beta2 of 0.99 adapts quickly enough to a loss whose scale falls by a factor of 1000.
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
            # Each closure call is one evaluation; the last step is shortened so that their number is exact.
            group["max_iter"] = min(20, self.iterations - self.done)
            optimiser.step(self._evaluate)  # type: ignore[no-untyped-call]
            if self.done - before <= 1:
                return  # the gradient or the step is too small to continue


def _unit(gradient: Tensor) -> float:
    """The power of two that scales a gradient with a mean absolute value below 1 to between 1 and 2."""
    size = float(gradient.abs().mean(dtype=torch.float64))
    return 2.0 ** math.ceil(-math.log2(size)) if 0 < size < 1 else 1.0


class _StopDescentError(Exception):
    """The listener asked to stop, or the loss diverged."""
