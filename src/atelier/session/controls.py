"""The controls that every method has, and the method that each quality selects."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError, did_you_mean
from atelier.methods import registry
from atelier.methods.base import Method

#: The default method of each quality.
BY_QUALITY = {"draft": "adain", "good": "nnst_d", "best": "nnst", "painterly": "nnst"}
#: The default method of each quality where a style is in words.
BY_QUALITY_IN_WORDS = {"draft": "adain", "good": "gatys", "best": "gatys"}


class Controls(knob_rules.Knobs):
    """The settings that every method takes, with the same meaning everywhere.

    >>> Controls(size=512, strength=0.8).strength
    0.8
    """

    size: int | None = Field(
        None,
        ge=1,
        le=32768,
        description="Long side of the result in pixels; by default the quality's size, at most the photo's.",
    )
    strength: float = Field(1.0, ge=0, le=1, description="0 keeps the photo, 1 applies the full style.")
    colour: Literal["style", "content"] = Field(
        "style", description="The colours of the style, or those of the photo (content)."
    )
    style_weights: tuple[float, ...] = Field(
        (),
        description="Weight of each style: pictures, then texts, then trained styles; equal by default.",
    )
    style_scale: float = Field(
        1.0,
        gt=0,
        le=8,
        description="Size of the style picture relative to the photo; larger values give larger strokes.",
    )
    finish: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Noise that a small diffusion network removes from the finished picture: it replaces the "
        "grids of other networks with the surface of paint; 0 is off, 0.1 is light, 0.3 is strong.",
    )
    feather: float = Field(8.0, ge=0, description="Width of the mask's soft edge in pixels.")
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Random seed: another number gives another picture where a method draws at random.",
    )
    device: str = Field("auto", description="Device to run on: auto, cpu, cuda, cuda:N or mps.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Number of CPU threads; one per core by default."
    )
    max_pixels: int | None = Field(
        None, ge=1, description="Largest input picture to read, in pixels; 100 million by default."
    )
    receipt: Literal["names", "paths", "none"] = Field(
        "names",
        description="How the receipt names input files: by file name or full path, or none for no receipt.",
    )


#: Controls that affect only the receipt, never the pixels.
UNRECORDED = frozenset({"receipt"})


def by_quality(quality: str, *, words: bool = False) -> str:
    """The default method of a quality, for style pictures or, with `words`, where a style is in words.

    Raises UsageError for a quality that only some methods have.
    """
    usual = BY_QUALITY_IN_WORDS if words else BY_QUALITY
    if quality in usual:
        return usual[quality]
    known = did_you_mean(quality, usual)
    if quality in BY_QUALITY:
        raise UsageError(f"quality '{quality}' needs a style picture, not words: {known}")
    raise UsageError(
        f"unknown quality '{quality}': {known}; a quality that belongs to one method also needs the "
        "method's name"
    )


def settle(
    kind: type[Method], quality: str, settings: dict[str, Any]
) -> tuple[Controls, knob_rules.Knobs, dict[str, Any]]:
    """The validated controls, the method's knobs, and the in-memory values given for file knobs.

    Raises UsageError, with the nearest name, for a setting that is neither a control nor a knob.
    """
    mine = {name: value for name, value in settings.items() if name in Controls.model_fields}
    chosen = {name: value for name, value in settings.items() if name not in mine}
    known = [*Controls.model_fields, *kind.Knobs.model_fields]
    for name in chosen:
        if name not in known:
            raise UsageError(f"{kind.name} has no knob '{name}': {did_you_mean(name, known)}")
    controls = knob_rules.parse(Controls, mine, what="control")
    chosen, files = _from_memory(kind, chosen)
    return controls, knob_rules.parse(kind.Knobs, registry.knobs_for(kind, quality, chosen)), files


def _from_memory(kind: type[Method], chosen: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate in-memory pictures and arrays from the file knobs; the knob keeps only a name."""
    files: dict[str, Any] = {}
    plain = dict(chosen)
    for name in knob_rules.files_of(kind.Knobs).keys() & chosen.keys():
        value = chosen[name]
        several = value if isinstance(value, (list, tuple)) else (value,)
        if any(not _is_name(one) for one in several):
            files[name] = value
            names = tuple(getattr(one, "name", "") or MEMORY for one in several)
            plain[name] = names if isinstance(value, (list, tuple)) else names[0]
        else:
            names = tuple(str(one) for one in several)
            plain[name] = names if isinstance(value, (list, tuple)) else names[0]
    return plain, files


#: The value of a file knob whose input has no name.
MEMORY = "memory"


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, Path))
