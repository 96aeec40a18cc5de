"""What this machine has, measured: to read before starting, and for bug reports."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

from atelier.core import caches, memory, recipe
from atelier.core import device as devices
from atelier.core.memory import GIB
from atelier.store import installation, weights


def examine() -> dict[str, Any]:
    """Versions, device, measured convolution rate, memory, cache folder and the condition of the weights."""
    import torch

    device = devices.choose("auto")
    rates = {
        str(dtype).removeprefix("torch."): convolution_rate(device, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    return {
        "versions": recipe.versions(),
        "device": str(device) if device.type == "cpu" else f"{device} ({_gpu_name(device)})",
        "computes_in": str(devices.compute_dtype(device)).removeprefix("torch."),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "convolution_gflops": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
        "memory_gib": {
            "total": round(psutil.virtual_memory().total / GIB, 1),
            "free": round(memory.available() / GIB, 1),
        },
        "cache": str(installation.home()),
        "cache_writable": caches.can_be_written(installation.home()),
        "weights": dict(weights.verify()),
    }


def convolution_rate(device: Any, dtype: Any, *, seconds: float = 0.5) -> float:
    """Operations per second of a 3x3 convolution, channels-last, from 128 to 128 channels at 128 x 128 px.

    The fastest of the repetitions that fit into `seconds`, which other load on the machine disturbs least.
    """
    import torch

    layer = torch.nn.Conv2d(128, 128, 3, padding=1, device=device, dtype=dtype)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    image = (
        torch.randn(1, 128, 128, 128, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    )
    operations = 2 * 128 * 128 * 9 * 128 * 128
    best, end = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        layer(image)
        while time.perf_counter() < end:
            start = time.perf_counter()
            layer(image)
            _finish(device)
            best = min(best, time.perf_counter() - start)
    return operations / best


def report(facts: Mapping[str, Any]) -> str:
    """The facts as lines of text."""
    rates = "  ".join(f"{name} {rate} GFLOP/s" for name, rate in facts["convolution_gflops"].items())
    lines = {
        "versions": "  ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "device": f"{facts['device']}, computes in {facts['computes_in']}",
        "processor": f"{facts['cores']} cores, {facts['threads']} threads",
        "convolution": rates,
        "memory": f"{facts['memory_gib']['free']} of {facts['memory_gib']['total']} GiB free",
        "cache": facts["cache"] + ("" if facts["cache_writable"] else " (cannot be written: slower)"),
        "weights": "  ".join(f"{name} {state}" for name, state in facts["weights"].items()),
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


def _finish(device: Any) -> None:
    """Wait until the GPU has finished."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _gpu_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple GPU"
