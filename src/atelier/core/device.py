"""Selects and tests the device before work starts, and selects its precision."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atelier.core.errors import ResourceError, UsageError, first_line

if TYPE_CHECKING:
    import torch

KINDS = ("auto", "cpu", "cuda", "mps")


def choose(name: str = "auto") -> torch.device:
    """The device called auto, cpu, cuda, cuda:N or mps, tested with a small sum.

    Raises UsageError for an unknown name and ResourceError for a device that does not work.
    """
    import torch

    if name not in KINDS and not re.fullmatch(r"cuda:[0-9]{1,3}", name):
        raise UsageError(f"there is no device '{name}': allowed are {', '.join(KINDS)} and cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ResourceError(
            f"the device '{name}' does not work ({first_line(error)}): use --device cpu, or auto"
        ) from None
    return device


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype for convolutions: bfloat16 if the hardware computes faster in it, else float32.

    Optimisation and statistics are computed in float32 everywhere.
    """
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32: with AMX, or with AMD's AVX512-BF16.

    Without them it is emulated. Intel's AVX512-BF16 alone takes up to twice as long as float32 for the same
    convolutions (measured on a Xeon).
    """
    import torch

    if _supports("_is_amx_tile_supported"):
        return True
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return _supports("_is_avx512_bf16_supported") and "Intel" not in str(capabilities.get("cpu_name", ""))


def _supports(check: str) -> bool:
    """A check of torch's by its name, which older versions lack."""
    import torch

    found = getattr(torch.cpu, check, None)
    return found is not None and bool(found())
