"""ONNX files: the same pictures as atelier's own, at any size, and metadata that says what they are."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier import InputError, UsageError, stylize
from atelier.apps.cli import main
from atelier.core.errors import AtelierError
from atelier.exports import files, networks, onnx
from atelier.methods import registry
from atelier.store import weights

pytest.importorskip("onnxruntime", reason="pip install 'atelier[export]'")
pytest.importorskip("onnxscript", reason="pip install 'atelier[export]'")

Settings = Callable[[str], dict[str, Any]]
#: Of atelier's finished picture, what comes after the network.
ALONE = {"colours": False, "bands": False, "half": False}


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Shades with grain, (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shades = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], 2)
    grain = np.random.default_rng(seed).normal(0, 0.1, shades.shape)
    return (0.5 + 0.35 * shades + grain).clip(0, 1).astype(np.float32)


def tensor(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def run(data: bytes, inputs: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The picture (H, W, 3) that onnxruntime makes."""
    made = onnx._session(data).run(None, dict(zip(names, inputs, strict=True)))[0]
    return np.asarray(made)[0].transpose(1, 2, 0)


def own(name: str, content: np.ndarray, style: Any, settings: dict[str, Any]) -> np.ndarray:
    """Atelier's picture in float32, as the network leaves it."""
    alone = {knob: value for knob, value in ALONE.items() if knob in registry.find(name).Knobs.model_fields}
    made = stylize(content, style, method=name, device="cpu", size=max(content.shape), **settings, **alone)
    return np.asarray(made.pixels)


@pytest.fixture(scope="module")
def johnson(tiny: Settings) -> tuple[networks.Exported, bytes]:
    """A small network and its file."""
    exported = networks.load("johnson", settings=tiny("johnson"))
    return exported, onnx.encode(exported)


@pytest.mark.parametrize("size", [(64, 48), (51, 67), (33, 90)])
def test_the_file_makes_ateliers_picture_at_any_size(
    johnson: tuple[networks.Exported, bytes], tiny: Settings, size: tuple[int, int]
) -> None:
    content = picture(*size)
    made = run(johnson[1], [tensor(content)], ["content"])
    wanted = own("johnson", content, None, tiny("johnson"))
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() < 1e-3
    assert np.std(made) > 0.01


def test_metadata_say_what_the_file_is(johnson: tuple[networks.Exported, bytes], tiny: Settings) -> None:
    import onnx as format_

    from atelier import __version__

    model = format_.load_from_string(johnson[1])
    format_.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    path = tiny("johnson")["weights"]
    assert facts["atelier.version"] == model.producer_version == __version__
    assert facts["atelier.method"] == "johnson"
    assert facts["atelier.weights"] == f"{Path(path).name} sha256:{weights.fingerprint(path)}"
    assert "your own weights" in facts["atelier.licence"]
    assert facts["atelier.opset"] == str(model.opset_import[0].version) == str(onnx.OPSET)
    shape = [side.dim_param or side.dim_value for side in model.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, 3, "height", "width"]
    assert str(Path(path).parent) not in str(facts)  # folders of the user's machine stay there


def test_a_file_that_differs_is_refused(johnson: tuple[networks.Exported, bytes]) -> None:
    exported, data = johnson
    brighter = dataclasses.replace(
        exported.portable, paint=lambda content: exported.portable.paint(content) + 0.002
    )
    with pytest.raises(AtelierError, match=r"differs from torch by 0\.002"):
        onnx.compare(data, brighter)
    assert onnx.compare(data, exported.portable).largest < 1e-3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("baked", [False, True])
@pytest.mark.parametrize("name", networks.names())
def test_every_network_makes_ateliers_picture(name: str, baked: bool, tiny: Settings) -> None:
    settings, kind = tiny(name), registry.find(name)
    if baked and ("picture" not in kind.takes.styles or name == "nnst_d"):
        pytest.skip("it takes no style picture")
    content, style = picture(48, 64), picture(64, 51, seed=1)
    exported = networks.load(name, style if baked else None, size=64, settings=settings)
    data = onnx.encode(exported)
    assert onnx.compare(data, exported.portable).largest < 1e-3
    if name == "nnst_d":  # the decoder is a part of the method: it makes no picture alone
        return
    given = {"content": tensor(content), "style": tensor(style)}
    for one in exported.portable.inputs:
        if one.kind == "shares":
            given[one.name] = np.eye(1, one.channels, dtype=np.float32)
        elif one.kind == "noise":
            given[one.name] = noise_of(content, one.channels)
    names = [one.name for one in exported.portable.inputs]
    made = run(data, [given[one] for one in names], names)
    wanted = own(name, content, style if baked or "style" in names else None, settings)
    assert np.abs(made - wanted).max() < 1e-3


def noise_of(content: np.ndarray, channels: int) -> np.ndarray:
    """The noise of seed 0, three channels for each scale, in the corner of those of full size."""
    import torch

    from atelier.networks.texture_nets import noise

    height, width = content.shape[:2]
    whole = np.zeros((1, channels, height, width), np.float32)
    drawn = noise(channels // 3, (height, width), 1, torch.Generator().manual_seed(0))
    for scale, one in enumerate(drawn):
        whole[:, 3 * scale : 3 * scale + 3, : one.shape[2], : one.shape[3]] = one.numpy()
    return whole


# the command


def test_the_command_writes_and_reports(
    tmp_path: Path, tiny: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "encode", lambda exported: b"a network")
    monkeypatch.setattr(onnx, "compare", lambda data, portable: onnx.Checked([(64, 64)], [2e-6]))
    path = tmp_path / "net.onnx"
    line = ["export", "johnson", "-o", str(path), "--weights", tiny("johnson")["weights"], "--json"]
    assert main(line) == 0
    facts = json.loads(capsys.readouterr().out)
    assert path.read_bytes() == b"a network"
    assert facts["difference"] == 2e-6
    assert facts["opset"] == onnx.OPSET
    assert main(line) == 5  # it exists
    assert main([*line, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["gatys"], 2, "gatys is not one pass of a network, so it cannot be exported: allowed: adain, "),
        (["adian"], 2, "did you mean 'adain'?"),
        (["adain", "-o", "net.pb"], 2, "must end in .onnx"),
        (["adain", "-o", "missing/net.onnx"], 5, "the folder 'missing' does not exist"),
        (["johnson"], 2, "johnson needs a network of one style"),
        (["adain", "--style", "missing.jpg"], 3, "'missing.jpg' does not exist"),
        (["nnst_d", "--style", "PAINTING"], 2, "nnst_d exports its decoder alone, which takes no style"),
        (
            ["johnson", "--weights", "WEIGHTS", "--style", "PAINTING"],
            2,
            "johnson does not take a style picture",
        ),
        (["adain", "-o", "page.html", "--runtime", "missing"], 3, "there is no folder 'missing'"),
        (["nnst_d", "-o", "page.html", "--runtime", "RUNTIME"], 2, "a page paints photos"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    words: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from PIL import Image

    from atelier.exports import web

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 40), (120, 80, 40)).save("painting.png")
    Path("runtime").mkdir()
    for part in web.PARTS:
        Path("runtime", part).write_bytes(b"")
    there = {"PAINTING": "painting.png", "WEIGHTS": tiny("johnson")["weights"], "RUNTIME": "runtime"}
    assert main(["export", *(there.get(word, word) for word in words)]) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx")) + list(tmp_path.glob("*.html"))


def test_without_the_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "adain", "-o", str(tmp_path / "net.onnx")]) == 6
    assert "pip install 'atelier[export]'" in capsys.readouterr().err


def test_a_style_becomes_part_of_the_network(tiny: Settings) -> None:
    settings = tiny("adain")
    free = networks.load("adain", settings=settings)
    baked = networks.load("adain", picture(40, 48), settings=settings)
    assert [one.name for one in free.portable.inputs] == ["content", "style"]
    assert [one.name for one in baked.portable.inputs] == ["content"]
    named = networks.load("cin", settings=tiny("cin") | {"style_name": ("noon",)})
    mixed = networks.load("cin", settings=tiny("cin"))
    assert [one.name for one in named.portable.inputs] == ["content"]
    assert mixed.portable.inputs[1].labels == ("dawn", "noon", "dusk")
    assert mixed.facts()["atelier.labels.shares"] == "dawn\nnoon\ndusk"


def test_the_call_raises_as_the_command_does(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be exported"):
        files.export("quilting", tmp_path / "net.onnx")
    with pytest.raises(InputError):
        files.export("adain", tmp_path / "net.onnx", style=tmp_path / "none.jpg")
