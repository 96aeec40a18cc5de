"""Devices: chosen by name, tried before the work, refused in one sentence."""

from __future__ import annotations

import pytest
import torch

from atelier.core.device import choose, compute_dtype
from atelier.core.errors import ResourceError, UsageError


def test_cpu() -> None:
    assert choose("cpu") == torch.device("cpu")


def test_auto_is_one_that_answers() -> None:
    device = choose()
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device.type == expected
    assert torch.ones(1, device=device).item() == 1


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cuda:", "cuda:x", "cpu:9", "auto:1", "cuda:-1", "meta"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no device '{name}': allowed are auto, cpu, cuda, mps"):
        choose(name)


@pytest.mark.parametrize("name", ["cuda:99", "cuda:999"])
def test_one_that_is_not_there(name: str) -> None:
    with pytest.raises(ResourceError, match=rf"the device '{name}' does not work \(.+\): use --device cpu"):
        choose(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_no_cuda_at_all() -> None:
    with pytest.raises(ResourceError, match="does not work") as caught:
        choose("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fast", [False, True])
def test_bfloat16_only_where_the_processor_multiplies_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: fast, raising=False)
    assert compute_dtype(torch.device("cpu")) == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize(
    ("name", "matrix", "expected"),
    [
        ("Intel Xeon", True, torch.bfloat16),
        ("Intel Xeon", False, torch.float32),
        ("AMD EPYC", False, torch.bfloat16),
    ],
)
def test_bfloat16_is_slow_on_intel_without_matrix_units(
    name: str, matrix: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name}, raising=False)
    assert compute_dtype(torch.device("cpu")) == expected


def test_other_devices_stay_in_float32() -> None:
    assert compute_dtype(torch.device("meta")) == torch.float32
