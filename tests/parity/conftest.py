"""The filled VGG-19, as a file that methods load by its path."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def vgg19_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file with the features of the filled vgg19, under their official names."""
    from safetensors.numpy import save_file

    spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    layout = json.loads((HERE / "gatys" / "layout.json").read_text())
    filled = fill.fill_state_dict(layout, layout["fill_seed"])
    assert fill.state_dict_sha256(filled) == layout["models"]["vgg19"]["fill_sha256"]
    path = tmp_path_factory.mktemp("vgg19") / "vgg19.safetensors"
    save_file(filled, path)
    return path
