"""How much memory networks need, found by running them on the meta device, where nothing is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

#: One plan at a time, because it replaces a function of torch.
_LOCK = RLock()


def peak(run: Callable[[], Any], *, fused: bool = True) -> int:
    """The most bytes that the tensors made by `run` hold at once; tensors from before do not count.

    `run` computes with meta tensors. Attention counts as the fused kernels of CPU and CUDA compute it, or,
    where `fused` is false, with the weights of all its heads. Buffers inside of kernels are not seen.

    >>> linear = torch.nn.Linear(8, 1024, device="meta")
    >>> peak(lambda: linear(torch.empty(2, 8, device="meta")).relu().sum())
    16448
    """
    counted = _Counting()
    with torch.device("meta"), _attention(fused), counted:
        run()
    return counted.most


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operators make, and takes off those that are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        before = {
            id(one.untyped_storage()) for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)
        }
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in before:
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self.known:
            return
        self.known.add(id(storage))
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, id(storage), size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@contextmanager
def _attention(fused: bool) -> Iterator[None]:
    """Attention as one operator: of meta tensors, torch would compute it in parts."""
    usual = torch.nn.functional.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        if query.is_meta:
            return _Attend.apply(query, key, value, fused)  # type: ignore[no-untyped-call]
        return usual(query, key, value, *args, **options)  # of another thread

    with _LOCK:
        torch.nn.functional.scaled_dot_product_attention = attend
        try:
            yield
        finally:
            torch.nn.functional.scaled_dot_product_attention = usual


class _Attend(torch.autograd.Function):
    """The memory of attention: what its kernels make, and what they keep for gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, fused: bool) -> Tensor:
        # Fused kernels keep a number for each query, the others the weight of each key as well.
        kept = query.new_empty(query.shape[:-1] if fused else (*query.shape[:-1], key.shape[-2]))
        made = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, kept, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(one) for one in ctx.saved_tensors[:3]), None)
