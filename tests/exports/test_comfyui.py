"""ComfyUI's nodes: each declaration against ComfyUI's documented rules, and some nodes at work."""

from __future__ import annotations

import json
import re
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier import UsageError, stylize
from atelier.exports import comfyui
from atelier.methods import registry

Settings = Callable[[str], dict[str, Any]]
FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
CLASSES, NAMES = comfyui.nodes()
every_node = pytest.mark.parametrize("name", sorted(CLASSES))

#: The options that the documentation allows by type, besides tooltip.
OPTIONS = {
    "INT": {"default", "min", "max", "step"},
    "FLOAT": {"default", "min", "max", "step", "round"},
    "STRING": {"default", "multiline"},
    "BOOLEAN": {"default"},
    "IMAGE": set(),
    "MASK": set(),
}


def fields(name: str) -> dict[str, Any]:
    """All inputs of a node, and the widgets' defaults that ComfyUI sends where nothing was changed."""
    types_ = CLASSES[name].INPUT_TYPES()
    return {**types_["required"], **types_["optional"]}


def defaults(name: str) -> dict[str, Any]:
    return {key: facts["default"] for key, (_, facts) in fields(name).items() if "default" in facts}


def test_every_method_but_the_yardsticks_is_a_node() -> None:
    families = {kind.name: kind.family() for kind in registry.list_methods().values()}
    assert len(CLASSES) == sum(family != "baseline" for family in families.values())
    assert CLASSES.keys() == NAMES.keys()
    assert len(set(NAMES.values())) == len(NAMES)


@every_node
def test_a_node_declares_what_comfyui_documents(name: str) -> None:
    node = CLASSES[name]
    assert callable(getattr(node(), node.FUNCTION))
    assert node.RETURN_TYPES == ("IMAGE", "STRING")
    assert len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)
    assert re.fullmatch(r"atelier/[a-z]+", node.CATEGORY)
    types_ = node.INPUT_TYPES()
    assert types_.keys() <= {"required", "optional", "hidden"}
    assert not types_["required"].keys() & types_["optional"].keys()
    for field, (kind, facts) in fields(name).items():
        assert field.isidentifier()
        assert facts["tooltip"].strip()
        if isinstance(kind, list):  # a menu
            assert facts["default"] in kind
            assert all(isinstance(one, str) for one in kind)
            continue
        assert facts.keys() <= OPTIONS[kind] | {"tooltip"}
        if kind in ("INT", "FLOAT"):
            assert facts["min"] <= facts["default"] <= facts["max"], field
            assert abs(facts["default"]) <= 2**53
        if kind == "INT":
            assert all(isinstance(facts[part], int) for part in ("default", "min", "max", "step")), field
        if kind == "STRING":
            assert isinstance(facts["default"], str)
    json.dumps(types_, allow_nan=False)  # the server sends it as JSON


@every_node
def test_widgets_left_alone_change_no_setting(name: str) -> None:
    kind = next(k for k in registry.list_methods().values() if comfyui._identifier(k) == name)
    settings, _ = comfyui.settings_of(kind, defaults(name))
    assert settings == {}


def image(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def test_a_batch_is_painted_picture_by_picture() -> None:
    contents, style = image(2, 24, 32, 3), image(1, 20, 20, 3, seed=1)
    values = defaults("AtelierColour") | {"content": contents, "style": style}
    made, receipts = CLASSES["AtelierColour"]().paint(**values)
    assert made.shape == contents.shape
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 1
    wanted = [stylize(one.numpy(), style[0].numpy(), method="colour").pixels for one in contents]
    assert np.allclose(made.numpy(), np.stack(wanted), atol=1e-6)
    assert [json.loads(line)["method"] for line in receipts.splitlines()] == ["colour", "colour"]


def test_knobs_controls_and_masks_reach_the_method() -> None:
    content, style = image(1, 24, 32, 3), image(1, 20, 20, 3, seed=1)
    mask = torch.zeros(1, 24, 32)
    mask[:, :, 16:] = 1
    values = defaults("AtelierColour") | {"content": content, "style": style, "mask": mask, "feather": 0.0}
    made = CLASSES["AtelierColour"]().paint(**values)[0]
    assert torch.allclose(made[:, :, :15], content[:, :, :15], atol=1e-6)
    assert (made - content)[:, :, 17:].abs().max() > 0.05
    none = CLASSES["AtelierColour"]().paint(**values | {"strength": 0.0})[0]
    assert torch.allclose(none, content, atol=1e-6)
    small = CLASSES["AtelierColour"]().paint(**values | {"size": 16})[0]
    assert small.shape == (1, 12, 16, 3)


def test_a_network_with_weights_of_ones_own(tiny: Settings) -> None:
    content, styles = image(1, 33, 40, 3), image(2, 40, 40, 3, seed=1)
    values = defaults("AtelierAdain") | {"content": content, "style": styles} | tiny("adain")
    values |= {"half": False, "style_weights": "3, 1"}
    made = CLASSES["AtelierAdain"]().paint(**values)[0]
    wanted = stylize(
        content[0].numpy(),
        list(styles.numpy()),
        method="adain",
        half=False,
        style_weights=(3, 1),
        **tiny("adain"),
    )
    assert np.allclose(made[0].numpy(), wanted.pixels, atol=1e-6)


def test_a_picture_without_a_photo() -> None:
    values = defaults("AtelierQuilting") | {"style": image(1, 40, 40, 3), "size": 32, "passes": 1}
    assert CLASSES["AtelierQuilting"]().paint(**values)[0].shape == (1, 32, 32, 3)


def test_alpha_comes_as_a_fourth_channel() -> None:
    content = image(1, 16, 16, 4)
    values = defaults("AtelierFilters") | {"content": content}
    assert CLASSES["AtelierFilters"]().paint(**values)[0].shape == (1, 16, 16, 3)


def test_errors_are_ateliers_sentences() -> None:
    values = defaults("AtelierAdain") | {"content": image(1, 16, 16, 3)}
    with pytest.raises(UsageError, match="adain needs"):
        CLASSES["AtelierAdain"]().paint(**values)


def test_progress_is_shown_and_interruption_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):  # noqa: N818 - as ComfyUI's
        pass

    steps: list[tuple[int, int]] = []
    bar = types.SimpleNamespace(update_absolute=lambda done, total: steps.append((done, total)))
    comfy = types.ModuleType("comfy")
    comfy.utils = types.SimpleNamespace(ProgressBar=lambda total: bar)  # type: ignore[attr-defined]
    manager = types.SimpleNamespace(throw_exception_if_processing_interrupted=lambda: None)
    comfy.model_management = manager  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    values = defaults("AtelierFilters") | {"content": image(1, 16, 16, 3)}
    CLASSES["AtelierFilters"]().paint(**values)
    assert steps
    assert steps[-1][0] == steps[-1][1]

    def interrupt() -> None:
        raise Interrupted

    manager.throw_exception_if_processing_interrupted = interrupt
    with pytest.raises(Interrupted):
        CLASSES["AtelierFilters"]().paint(**values)


def test_the_folder_is_a_package_of_nodes() -> None:
    # ComfyUI loads the folder from its path, under a name of its own.
    import importlib.util

    spec = importlib.util.spec_from_file_location("custom_nodes_atelier", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    assert module.NODE_CLASS_MAPPINGS.keys() == CLASSES.keys()
    assert NAMES == module.NODE_DISPLAY_NAME_MAPPINGS


def test_the_package_has_the_registrys_form() -> None:
    facts = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    project, comfy = facts["project"], facts["tool"]["comfy"]
    assert re.fullmatch(r"[a-z](?!.*[-_.]{2})[a-z0-9._-]{0,98}", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"].keys() <= {"text", "file"}
    assert "Repository" in project["urls"]
    assert {"PublisherId", "DisplayName"} <= comfy.keys()
    assert (FOLDER / "requirements.txt").read_text().split() == project["dependencies"]
