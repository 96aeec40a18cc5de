"""The lazy torch: nothing is loaded until a name is used, and then it is torch itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch as real

from atelier.core.lazy import torch


def test_it_is_torch() -> None:
    assert torch.Tensor is real.Tensor
    assert torch.nn.functional is real.nn.functional
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = torch.nonsense


def test_importing_it_loads_nothing() -> None:
    code = (
        "import sys; from atelier.core.lazy import torch; assert 'torch' not in sys.modules; "
        "torch.ones(1); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
