"""Communication between the processes of a run: averages of gradients, buffers and numbers, joint decisions.

Gradients are averaged after the backward pass instead of by DistributedDataParallel, which hides the
attributes of a network and supports neither second derivatives nor several networks in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atelier.core.errors import TrainingError

_SUPPORTED = {"NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_HPU", "MULTI_MLU"}


class Processes:
    """The processes of an Accelerate run. With a single process, all operations are no-ops."""

    def __init__(self, accelerator: Any) -> None:
        kind = str(accelerator.distributed_type).rpartition(".")[2]
        if kind not in _SUPPORTED:
            raise TrainingError(
                f"training does not support Accelerate's {kind} mode: choose plain multi-GPU or CPU"
            )
        self._accelerator = accelerator
        self.index: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self.device: torch.device = accelerator.device

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes. With several processes it carries no gradient."""
        if self.count == 1:
            return tensor
        # A copy, because the reduction works in place.
        mean: Tensor = self._accelerator.reduce(tensor.detach().clone(), reduction="mean")
        return mean

    def anyone(self, flag: bool) -> bool:
        """Whether `flag` is set in any process."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait for the other processes."""
        self._accelerator.wait_for_everyone()

    def average_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes. If it is None everywhere, it stays None."""
        if self.count == 1 or not weights:
            return
        here = torch.tensor([weight.grad is not None for weight in weights], device=self.device)
        parts = [
            (torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(-1).float()
            for weight in weights
        ]
        mean = self.mean(torch.cat([*parts, here.float()]))
        values = torch.split(mean[: -len(weights)], [weight.numel() for weight in weights])
        for weight, value, given in zip(weights, values, mean[-len(weights) :].tolist(), strict=True):
            if weight.grad is None and given > 0:
                weight.grad = torch.zeros_like(weight)
            if weight.grad is not None:
                weight.grad.copy_(value.view_as(weight.grad))

    def average_buffers(self, networks: Iterable[nn.Module]) -> None:
        """Replace batch norm statistics and other float buffers by their means over the processes."""
        if self.count == 1:
            return
        for network in networks:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.mean(buffer))

    def broadcast(self, networks: Iterable[nn.Module]) -> None:
        """Copy the main process's weights and buffers to every process."""
        from accelerate.utils import broadcast

        if self.count == 1:
            return
        for network in networks:
            for tensor in network.state_dict().values():
                tensor.copy_(broadcast(tensor.detach().contiguous()))
