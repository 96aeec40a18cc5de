"""Settings with which every method runs in a moment, and a folder for throw-away methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from atelier.methods import registry
from atelier.methods.base import Method

Kind = type[Method]
Add = Callable[[str], None]

#: What keeps a method small where the general rule of `tiny` does not.
SMALL: dict[str, dict[str, Any]] = {
    "clipstyler": {"patches": 4},
    "gatys": {"smallest": 32},
    "deadiff": {"noise": 1.0, "guidance": 1.0},
    "diffusion_in_style": {"noise": 1.0, "guidance": 1.0},
    "harmonise": {"engine": "adain"},
    "lora": {"noise": 1.0, "guidance": 1.0},
    "quilting": {"passes": 2},
    "styleid": {"blocks": (2, 3)},
    "zecon": {"skip": 0, "views": 2, "view_side": 32},
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that import transformers, which takes seconds, run in one process."""
    kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")
    if kind is not None and (
        "transformers" in kind.packages or "clip_model" in getattr(kind.Training, "model_fields", ())
    ):
        item.add_marker(pytest.mark.xdist_group("transformers"))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], dict[str, str]]:
    """The files of a method's tiny weights, by knob."""
    folder = tmp_path_factory.mktemp("tiny")

    def written(kind: Kind) -> dict[str, str]:
        files = {}
        for name, state in kind.tiny().items():
            path = folder / f"{kind.name}-{name}.safetensors"
            if not path.exists():
                save_file({key: value.contiguous() for key, value in state.items()}, path)
            files[name] = str(path)
        return files

    return written


@pytest.fixture
def tiny(
    kind: Kind,
    tiny_encoder: Path,
    tiny_clip: Path,
    tiny_weights: Callable[[Kind], dict[str, str]],
    request: pytest.FixtureRequest,
) -> dict[str, Any]:
    """Settings with which a method runs in a moment and needs no weights but tiny ones."""
    settings: dict[str, Any] = {"device": "cpu", **tiny_weights(kind)}
    if kind.takes.mask == "required":
        # Nearly all of the picture: black only at the bottom.
        settings["mask"] = np.vstack([np.ones((7, 8), np.float32), np.zeros((1, 8), np.float32)])
    for name, field in kind.Knobs.model_fields.items():
        if name == "encoder":
            settings[name] = str(tiny_encoder)
        elif name == "clip" and field.default:
            settings[name] = str(tiny_clip)
        elif name == "pipeline":  # made only where it is needed, because it imports diffusers
            settings[name] = str(request.getfixturevalue("tiny_pipeline"))
        elif re.search("iterations|steps", name):
            settings[name] = 2
    return settings | SMALL.get(kind.name, {})


#: What the file of a throw-away method starts with.
HEAD = """
from atelier.core.knobs import Knobs as AnyKnobs, knob
from atelier.core.lazy import torch
from atelier.methods.base import Context, Frame, Job, Method, Paper, Result, Styles, Takes

PAPER = Paper("Nobody", 2026, "Nothing", "https://example.org")
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Adds the file of a method to a folder outside the package."""
    folder = tmp_path / "methods" / "text"
    folder.mkdir(parents=True)
    monkeypatch.setenv("ATELIER_METHODS", str(folder))

    def write(code: str) -> None:
        (folder / f"method_{len(list(folder.iterdir()))}.py").write_text(HEAD + code)
        registry.list_methods.cache_clear()

    yield write
    registry.list_methods.cache_clear()
