"""LoRA files in the studio: extracted, looked into, merged, and named in requests like other weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier.core.errors import UsageError
from atelier.studio import lora_files
from atelier.studio.service import Studio

pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")

UNET = "unet/diffusion_pytorch_model.safetensors"
LAYER = "up_blocks.1.attentions.0.proj_in.weight"


@pytest.fixture
def pipelines(studio: Studio, tiny_pipeline: Path) -> Studio:
    """The studio with two pipelines, "base" and "tuned", that differ in one layer by a matrix of rank 2."""
    shutil.copytree(tiny_pipeline, studio.networks / "base")
    tuned = shutil.copytree(tiny_pipeline, studio.networks / "tuned")
    state = load_file(tuned / UNET)
    made = torch.Generator().manual_seed(0)
    shape = state[LAYER].shape
    change = torch.randn(shape[0], 2, generator=made) @ torch.randn(2, shape[1], generator=made)
    state[LAYER] += 0.05 * change.view(shape[0], shape[1], *[1] * (len(shape) - 2))
    save_file(state, tuned / UNET)
    return studio


def done(job: Any) -> str:
    assert job.wait(120)
    assert job.state == "done", job.error
    return next(note.text for note in job.notes() if note.text)


def test_what_is_extracted_can_be_looked_into_and_merged_back(pipelines: Studio) -> None:
    studio = pipelines
    told = done(lora_files.extracted(studio, "tuned", "base", 2, "my/change", convolutions=False))
    assert "change.safetensors, 1 layers, 100.0% of their change at rank 2" in told
    assert "change.safetensors" in studio.weights.names()
    facts = lora_files.inspected(studio, "change.safetensors")
    assert (facts["ranks"], facts["layers"]) == ({"2": 1}, {"unet": 1, "text encoder": 0})

    done(lora_files.merged(studio, "base", [("change.safetensors", 1.0)], "back"))
    states = {name: load_file(studio.networks / name / UNET) for name in ("base", "tuned", "back")}
    far = (states["base"][LAYER] - states["tuned"][LAYER]).abs().max()
    assert (states["back"][LAYER] - states["tuned"][LAYER]).abs().max() < 0.01 * far

    again = lora_files.merged(studio, "base", [("change.safetensors", 0.5)], "back")
    assert "back-2" in done(again)
    assert again.kind == "weights"


@pytest.mark.parametrize("name", ["../change.safetensors", "/etc/passwd", "", "change.pt"])
def test_only_names_that_are_here_are_read(name: str, studio: Studio) -> None:
    with pytest.raises(UsageError):
        lora_files.inspected(studio, name)
    with pytest.raises(UsageError):
        lora_files.merged(studio, name, [("change.safetensors", 1.0)], "out")
    assert not list(studio.networks.iterdir())
