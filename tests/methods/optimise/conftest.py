"""Runs a method on small pictures: METHOD in each file names it, FEW sets a few evaluations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atelier import Picture, stylize


@pytest.fixture
def make(
    request: pytest.FixtureRequest,
    photo: npt.NDArray[np.float32],
    painting: npt.NDArray[np.float32],
    tiny_encoder: Path,
) -> Callable[..., Picture]:
    """`stylize` with the file's method, the tiny encoder and few evaluations."""
    few = {"encoder": str(tiny_encoder), "device": "cpu", "half": False, **request.module.FEW}

    def call(content: Any = photo, style: Any = painting, **settings: Any) -> Picture:
        return stylize(content, style, method=request.module.METHOD, **few | settings)

    return call
