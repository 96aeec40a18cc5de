"""Compare: one photo and style by several methods and strengths, side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.atomic import atomic
from atelier.core.errors import AtelierError, UsageError
from atelier.methods import registry
from atelier.session.controls import Controls
from atelier.studio.limits import own_folder
from atelier.studio.page import controls, inputs, paint, parts, running
from atelier.studio.requests import Inputs, Settings
from atelier.studio.service import labels_of

if TYPE_CHECKING:
    from PIL import Image

    from atelier.studio.jobs import Job
    from atelier.studio.service import Studio

_EMPTY = "Choose a photo, a style and some methods: their pictures appear side by side, and zoom in step."
_CELL, _GAP, _TEXT = 512, 16, 26


def tab(studio: Studio) -> None:
    """Build the tab."""
    job_id = gr.State("")
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Photo")
                photo = inputs.photo_part(studio, "compare-photo", "Your photo")
            with gr.Column(elem_classes="at-card"):
                parts.title("Style")
                shelf = inputs.shelf_part(studio, "compare-shelf")
            with gr.Column(elem_classes="at-card"):
                parts.title("Methods")
                names = [one for one in inputs.method_choices() if one[1]]
                methods = gr.Dropdown(
                    names,
                    value=["adain", "nnst_d"],
                    multiselect=True,
                    label="Methods",
                    show_label=False,
                    elem_id="compare-methods",
                )
                form = parts.part("form", "compare-form", _form())
        with gr.Column(elem_classes="at-main"):
            with gr.Row(elem_classes="at-do"):
                go = gr.Button("Compare", variant="primary", elem_id="compare-go")
                stop = gr.Button("Stop", elem_id="compare-stop", elem_classes="at-stop")
                note = parts.note("compare-note")
            grid = parts.part("grid", "compare-grid", None, empty=_EMPTY)
            with gr.Row(elem_classes="at-do"):
                sheet = gr.DownloadButton("As one picture", visible=False, elem_id="compare-sheet")
                protocol = gr.DownloadButton(
                    "As a protocol for the bench", visible=False, elem_id="compare-protocol"
                )

    def compared(photo: Any, shelf: Any, methods: list[str], form: Any) -> Iterator[tuple[Any, ...]]:
        yield from run(studio, photo, shelf, methods, form)

    go.click(
        compared, [photo, shelf, methods, form], [grid, note, job_id, sheet, protocol], show_progress="hidden"
    )
    stop.click(lambda job: paint.stopped(studio, job), job_id, None, queue=False)


def _form() -> dict[str, Any]:
    strengths = {
        "name": "strengths", "label": "Strengths", "kind": "text", "default": "1",
        "help": "One or several, with commas between: 0.5, 1.",
    }  # fmt: skip
    return {
        "fields": [inputs.quality_field(["draft", "good", "best"]), strengths,
                   *controls.fields(Controls, only=("size", "seed"))],
        "values": {"quality": "draft"},
    }  # fmt: skip


def variants(methods: Sequence[str], values: Mapping[str, Any]) -> list[Settings]:
    """A setting for each method and strength. Raises UsageError."""
    if not methods:
        raise UsageError("nothing to compare: choose one or more methods")
    chosen = dict(values)
    quality, strengths = str(chosen.pop("quality", "good")), str(chosen.pop("strengths", "1"))
    try:
        several = [float(part) for part in strengths.split(",") if part.strip()] or [1.0]
    except ValueError:
        raise UsageError(f"strengths = '{strengths}' is not allowed: give numbers from 0 to 1") from None
    shared = {name: value for name, value in chosen.items() if value is not None}
    return [
        Settings(method, quality, {**shared, **({"strength": one} if len(several) > 1 or one != 1 else {})})
        for method in methods
        for one in several
    ]


def run(
    studio: Studio, photo: Any, shelf: Any, methods: Sequence[str], form: Mapping[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Updates of (grid, note, job id, sheet, protocol) while the pictures are painted."""
    hidden = gr.DownloadButton(visible=False)
    try:
        several = variants(methods, form.get("values", {}))
        what = _inputs(photo, shelf)
        job = studio.compare(what, several)
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error)), "", hidden, hidden
        return
    labels, shown = labels_of(several), -1
    for note in running.follow(job):
        view = cells(studio, job, labels) if len(job.made) != shown else gr.skip()
        shown = len(job.made)
        yield view, running.line(studio, job, note), job.id, hidden, hidden
    yield cells(studio, job, labels), running.ended(job), "", *_exports(studio, job, what, several)


def _inputs(photo: Any, shelf: Any) -> Inputs:
    if not (photo or {}).get("id"):
        raise UsageError("choose a photo first")
    return Inputs(content=photo["id"], styles=tuple(inputs.styles(shelf)[0]))


def cells(studio: Studio, job: Job, labels: Sequence[str]) -> dict[str, Any]:
    """The grid: what is painted, what failed, and what is waited for."""
    made = list(job.made)
    found = []
    for index, label in enumerate(labels):
        cell: dict[str, Any] = {"title": label}
        if index < len(made) and made[index].id:
            width, height = studio.gallery.get(made[index].id).size
            cell |= {
                "url": running.made(made[index].id),
                "width": width,
                "height": height,
                "detail": _cost(made[index]),
            }
        elif index < len(made):
            cell["error"] = made[index].error
        elif job.finished:
            cell["error"] = "not painted"
        found.append(cell)
    return {"cells": found, "columns": 2 if len(labels) in (2, 4) else min(3, len(labels))}


def _cost(one: Any) -> str:
    memory = f", {one.memory:,.0f} MiB" if one.memory else ""
    return running.duration(one.seconds) + memory


def _exports(studio: Studio, job: Job, what: Inputs, several: Sequence[Settings]) -> tuple[Any, Any]:
    """The two files, ready to be downloaded."""
    if not any(one.id for one in job.made):
        return gr.DownloadButton(visible=False), gr.DownloadButton(visible=False)
    folder = own_folder(studio.folder / "exports")
    sheet, protocol = folder / f"comparison-{job.id}.png", folder / f"comparison-{job.id}.toml"
    with atomic(sheet) as beside:
        contact_sheet(studio, job).save(beside, format="PNG")
    with atomic(protocol) as beside:
        beside.write_text(protocol_text(studio, what, several, job.id), encoding="utf-8")
    return gr.DownloadButton(value=str(sheet), visible=True), gr.DownloadButton(
        value=str(protocol), visible=True
    )


def contact_sheet(studio: Studio, job: Job) -> Image.Image:
    """The pictures of a comparison in one, with a line below each."""
    from PIL import Image, ImageDraw, ImageFont

    done = [(one, studio.gallery.open(one.id)) for one in job.made if one.id]
    columns = min(3, len(done))
    shapes = [picture.size for _, picture in done]
    scale = min(1.0, _CELL / max(width for width, _ in shapes))
    width, height = (max(round(side[i] * scale) for side in shapes) for i in (0, 1))
    rows = -(-len(done) // columns)
    size = (columns * (width + _GAP) + _GAP, rows * (height + _TEXT + _GAP) + _GAP)
    sheet = Image.new("RGB", size, (244, 244, 242))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (one, picture) in enumerate(done):
        left = _GAP + index % columns * (width + _GAP)
        top = _GAP + index // columns * (height + _TEXT + _GAP)
        sheet.paste(
            picture.pil().convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (left, top)
        )
        pen.text((left, top + height + 5), f"{one.label}   {_cost(one)}", fill=(40, 40, 38), font=font)
    return sheet


def protocol_text(studio: Studio, what: Inputs, several: Sequence[Settings], name: str) -> str:
    """A protocol for `atelier bench` that paints and measures the same: TOML."""
    usual = registry.find(str(several[0].method)).sizes.get(several[0].quality, 512)
    sizes = [int(one.values["size"]) for one in several if "size" in one.values]
    lines = [
        f'name = "comparison-{name}"',
        f"size = {max(sizes, default=usual)}",
        f"seed = {several[0].values.get('seed', 0)}",
        f"contents = [{_entry(studio, str(what.content))}]",
        f"styles = [{', '.join(_entry(studio, str(style)) for style in what.styles)}]",
        'metrics = ["gram", "structure", "content"]',
        "methods = [",
    ]
    for one, label in zip(several, labels_of(several), strict=True):
        values = {n: v for n, v in one.values.items() if n not in ("size", "seed")}
        knobs = ", ".join(f"{n} = {json.dumps(v)}" for n, v in values.items())
        lines.append(
            f'    {{ method = "{one.method}", name = {json.dumps(label)}, '
            f'quality = "{one.quality}", knobs = {{ {knobs} }} }},'
        )
    return "\n".join([*lines, "]", ""])


def _entry(studio: Studio, id: str) -> str:
    """A picture as a protocol names it: an example, or a file with its hash."""
    kind, _, rest = id.partition(":")
    if kind in ("photo", "style"):
        return f'"example:{rest}"'
    digest = rest if re.fullmatch(r"[0-9a-f]{64}", rest) else None
    name = json.dumps(Path(studio.pictures.name(id)).name, ensure_ascii=False)
    return f'{{ file = {name}, sha256 = "{digest}" }}' if digest else f"{{ file = {name} }}"
