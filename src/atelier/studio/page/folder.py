"""Folder: many photos by one setting; errors by file; a zip file out."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, UsageError
from atelier.studio.page import inputs, paint, parts, running
from atelier.studio.pictures import Upload

if TYPE_CHECKING:
    from atelier.studio.jobs import Job
    from atelier.studio.service import Studio


def tab(studio: Studio) -> None:
    """Build the tab."""
    job_id = gr.State("")
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                photos = parts.part("form", "folder-photos", _photos())
            with gr.Column(elem_classes="at-card"):
                parts.title("Style", "One for all photos.")
                shelf = inputs.shelf_part(studio, "folder-shelf")
            with gr.Column(elem_classes="at-card"):
                form = parts.part("form", "folder-form", inputs.main_form())
            with gr.Accordion("Method and its knobs", open=False, elem_classes="at-card"):
                method, knobs, *_ = paint.method_part(studio, "folder", form)
        with gr.Column(elem_classes="at-main"):
            with gr.Row(elem_classes="at-do"):
                go = gr.Button("Paint all", variant="primary", elem_id="folder-go")
                stop = gr.Button("Stop", elem_id="folder-stop", elem_classes="at-stop")
                note = parts.note("folder-note")
            out = parts.note("folder-zip")
            table = parts.note("folder-table", _waiting())

    def painted(*values: Any) -> Iterator[tuple[Any, ...]]:
        yield from run(studio, *values)

    go.click(
        painted,
        [photos, shelf, method, form, knobs],
        [table, note, job_id, out, photos],
        show_progress="hidden",
    )
    stop.click(lambda job: paint.stopped(studio, job), job_id, None, queue=False)


def _photos() -> dict[str, Any]:
    field = {
        "name": "photos", "label": "Photos", "kind": "pictures", "default": None,
        "hint": "Drop or choose photos", "folder": True, "accept": "image/*,.tif,.tiff,.heic",
        "help": "All are painted in one style. A file that cannot be read is listed, and the others go on.",
    }  # fmt: skip
    return {"fields": [field], "values": {}}


def _waiting() -> str:
    text = "Each photo gets a line here, with its picture or with what was wrong."
    return f'<div class="at-empty"><p>{text}</p></div>'


def run(
    studio: Studio, photos: Mapping[str, Any], shelf: Any, method: str, form: Any, knobs: Any
) -> Iterator[tuple[Any, ...]]:
    """Updates of (lines, note, job id, zip, photos) while the photos are painted."""
    try:
        what, how = paint.request(studio, None, shelf, method, form, knobs)
        job = studio.folder_of(_received(studio, photos.get("values", {}).get("photos")), what, how)
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error)), "", "", gr.skip()
        return
    shown = -1
    for note in running.follow(job):
        view = rows(studio, job) if len(job.made) != shown else gr.skip()
        shown = len(job.made)
        yield view, running.line(studio, job, note), job.id, "", _photos()
    packed = ""
    if any(one.id for one in job.made):
        files = [(running.made(one.id), f"{Path(one.label).stem}.png") for one in job.made if one.id]
        whole = [("Download all as zip", running.zipped(job.id), "pictures.zip")]
        packed = parts.links(whole, parts.saver(files))
    yield rows(studio, job), running.ended(job), "", packed, _photos()


def _received(studio: Studio, sent: Any) -> list[Any]:
    """The uploaded photos; one that is refused stays in the list, to be told with its name."""
    if not sent:
        raise UsageError("there are no photos: drop or choose some first")
    found: list[Any] = []
    for one in sent:
        data, name = inputs.received(studio, one)
        found.append(Upload(name, data))
    return found


def rows(studio: Studio, job: Job) -> str:
    """A line for each photo that is finished."""
    lines = []
    for one in list(job.made):
        name = f'<span class="at-name" title="{html.escape(one.label)}">{html.escape(one.label)}</span>'
        if one.id:
            seconds = f'<span class="at-help">{running.duration(one.seconds)}</span>'
            picture = f'<img src="{running.made_thumbnail(one.id)}" alt="">'
            cells = picture + name + seconds + running.downloads(studio, one.id)
        else:
            cells = f'<span></span>{name}<span class="at-error">{html.escape(one.error)}</span>'
        lines.append(f'<div class="at-line" role="listitem">{cells}</div>')
    return f'<div class="at-lines" role="list">{"".join(lines)}</div>' if lines else ""
