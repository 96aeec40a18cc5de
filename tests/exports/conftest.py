"""Settings with tiny weights, and the inputs that atelier's own picture is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from atelier.methods import registry

Settings = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Settings:
    """The tiny weights of a method, by knob."""
    folder = tmp_path_factory.mktemp("networks")

    def settings(name: str) -> dict[str, Any]:
        kind = registry.find(name)
        chosen = {"encoder": str(tiny_encoder)} if "encoder" in kind.Knobs.model_fields else {}
        for knob, state in kind.tiny().items():
            path = folder / f"{name}-{knob}.safetensors"
            if not path.exists():
                save_file({key: value.contiguous() for key, value in state.items()}, path)
            chosen[knob] = str(path)
        return chosen

    return settings
