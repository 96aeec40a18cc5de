"""Train, pictures: sets to train on, their captions, and what is to be known before a training."""

from __future__ import annotations

import html
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, UsageError
from atelier.studio.jobs import Job
from atelier.studio.page import inputs, parts, running

if TYPE_CHECKING:
    from pathlib import Path

    from atelier.studio.service import Studio
    from atelier.training.buckets import Buckets
    from atelier.training.captions import Edit
    from atelier.training.report import Report

_EMPTY = "Drop pictures on the left, with a .txt file of the same name for each caption if you have some."
_EDIT = (
    ("first", "Trigger word", "Goes in front of every caption."),
    ("last", "Add tags", "Behind every caption; several with commas between."),
    ("removed", "Remove tags", "Several with commas between."),
    ("replaced", "Replace a tag", "As old = new."),
    ("substituted", "Find text", "As old = new, anywhere in a caption."),
)
#: What a report finds, and the mark of a picture.
_MARKS = {
    "damaged": "damaged", "doubled": "double", "small": "small", "blurred": "blurred",
    "long": "long caption",
}  # fmt: skip
_TAGS = 60


def tab(studio: Studio, tab: gr.Tab) -> None:
    """Build the part."""
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Set of pictures", "What is added goes into the chosen set.")
                chosen = gr.Dropdown(
                    _choices(studio), value="", label="Set", show_label=False, elem_id="data-set"
                )
                name = gr.Textbox(
                    label="Name of a new set",
                    placeholder="Name of a new set",
                    show_label=False,
                    container=False,
                    elem_id="data-name",
                )
                sent = parts.part("form", "data-files", _files())
            with gr.Column(elem_classes="at-card"):
                parts.title("All captions at once")
                words = parts.part("form", "data-words", _edits())
                with gr.Row(elem_classes="at-do"):
                    edit = gr.Button("Change", variant="primary", elem_id="data-edit")
                    look = gr.Button("Show changes", elem_id="data-dry")
            with gr.Column(elem_classes="at-card"):
                parts.title("Sizes", "Pictures are trained in buckets of about one area.")
                sizes = parts.part("form", "data-sizes", _sizes())
                with gr.Row(elem_classes="at-do"):
                    report = gr.Button("Report", variant="primary", elem_id="data-report")
                    crop = gr.Button("Crop into a new set", elem_id="data-crop")
            delete = gr.Button("Delete this set", elem_id="data-delete")
        with gr.Column(elem_classes="at-main"):
            note = parts.note("data-note")
            facts = parts.note("data-facts")
            pictures = parts.part("dataset", "data-pictures", None, empty=_EMPTY)
    marks = gr.State({})
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    do = _Actions(studio)
    tab.select(lambda: gr.Dropdown(choices=_choices(studio)), None, chosen, **quiet)
    chosen.change(do.show, chosen, [pictures, marks, facts, note], **quiet)
    sent.input(do.add, [chosen, name, sent], [chosen, name, pictures, sent, note], **quiet)
    pictures.input(do.act, [chosen, pictures, marks], [pictures, note], **quiet)
    edit.click(do.edit, [chosen, words, marks], [pictures, note], **quiet)
    look.click(do.look, [chosen, words, marks], [pictures, note], **quiet)
    report.click(do.report, [chosen, sizes], [pictures, marks, facts, note], **quiet)
    crop.click(do.crop, [chosen, sizes], [chosen, note], **quiet)
    delete.click(do.delete, chosen, [chosen, note], **quiet)


class _Actions:
    """What the components of the part ask for."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def show(self, id: str) -> tuple[Any, ...]:
        return view(self.studio, id, {}), {}, "", ""

    def add(self, id: str, name: str, value: Any) -> tuple[Any, ...]:
        try:
            made = add(self.studio, id, name, value)
        except AtelierError as error:
            return gr.skip(), gr.skip(), gr.skip(), _files(), parts.error(str(error))
        sets = gr.Dropdown(choices=_choices(self.studio), value=made)
        return sets, "", view(self.studio, made, {}), _files(), ""

    def act(self, id: str, value: Any, marks: Any) -> tuple[Any, str]:
        return acted(self.studio, id, value, marks)

    def edit(self, id: str, value: Any, marks: Any) -> tuple[Any, str]:
        return in_bulk(self.studio, id, value, marks, dry=False)

    def look(self, id: str, value: Any, marks: Any) -> tuple[Any, str]:
        return in_bulk(self.studio, id, value, marks, dry=True)

    def report(self, id: str, value: Any) -> Iterator[tuple[Any, ...]]:
        yield from told(self.studio, id, value)

    def crop(self, id: str, value: Any) -> Iterator[tuple[Any, ...]]:
        yield from copied(self.studio, id, value)

    def delete(self, id: str) -> tuple[Any, str]:
        try:
            self.studio.trainings.data.delete(_id(id))
        except AtelierError as error:
            return gr.skip(), parts.error(str(error))
        return gr.Dropdown(choices=_choices(self.studio), value=""), ""


def _choices(studio: Studio) -> list[tuple[str, str]]:
    sets = [(f"{one.name} · {one.count} pictures", f"data:{one.id}") for one in studio.trainings.data.all()]
    return [("A new set", ""), *sets]


# forms


def _files() -> dict[str, Any]:
    field = {
        "name": "files",
        "label": "Pictures and captions",
        "kind": "pictures",
        "folder": True,
        "default": None,
        "help": "",
    }
    return {"fields": [field], "values": {}}


def _edits() -> dict[str, Any]:
    made = [
        {"name": name, "label": label, "help": help, "kind": "text", "default": ""}
        for name, label, help in _EDIT
    ]
    return {"fields": made, "values": {}}


def _sizes() -> dict[str, Any]:
    side = {
        "name": "side", "label": "Side", "kind": "number", "default": 512, "minimum": 64, "maximum": 2048,
        "step": 64, "whole": True, "help": "Of the square whose area the buckets have, in pixels.",
    }  # fmt: skip
    square = {"name": "square", "label": "Square", "kind": "switch", "default": False, "help": ""}
    upscale = {
        "name": "upscale",
        "label": "Enlarge small ones",
        "kind": "switch",
        "default": True,
        "help": "",
    }
    return {"fields": [side, square, upscale], "values": {}}


def _buckets(value: Mapping[str, Any]) -> Buckets:
    from atelier.training.buckets import Buckets

    asked = value.get("values", {})
    side = int(asked.get("side") or 512)
    if not 64 <= side <= 2048:
        raise UsageError(f"side = {side} is not allowed: it should be 64 to 2048 pixels")
    return Buckets.of(side, upscale=asked.get("upscale", True), single=asked.get("square", False))


def _edit(value: Mapping[str, Any]) -> Edit:
    """The change that the form asks for. Raises UsageError."""
    from atelier.training.captions import Edit, tags

    asked = {name: str(text) for name, text in value.get("values", {}).items() if text}
    swaps: dict[str, Any] = {}
    for name in ("replaced", "substituted"):
        old, equals, new = asked.get(name, "").partition("=")
        if asked.get(name) and not (old.strip() and equals):
            raise UsageError(f"'{old.strip()}' is no replacement: write old = new")
        swaps[name] = {old.strip(): new.strip()} if equals else {}
    lists: dict[str, Any] = {name: tuple(tags(asked.get(name, ""))) for name in ("first", "last", "removed")}
    if not any((*lists.values(), *swaps.values())):
        raise UsageError("there is nothing to change: fill in a field first")
    return Edit(**lists, **swaps)


# what is done


def _id(chosen: str) -> str:
    """The id of the chosen set. Raises UsageError."""
    if not chosen:
        raise UsageError("no set is chosen: choose one, or drop pictures for a new one")
    return chosen.removeprefix("data:")


def add(studio: Studio, chosen: str, name: str, value: Mapping[str, Any]) -> str:
    """Put uploaded pictures and captions into a set, a new one where none is chosen; its name."""
    data = studio.trainings.data
    sent = [inputs.received(studio, one) for one in value.get("values", {}).get("files") or ()]
    pictures = [(content, file) for content, file in sent if not file.endswith(".txt")]
    texts = {file[:-4]: content.decode("utf-8", "replace") for content, file in sent if file.endswith(".txt")}
    if not (pictures or (chosen and texts)):
        raise UsageError("there is no picture among the files: drop pictures, with their captions")
    id = _id(chosen) if chosen else data.create(name or "pictures").id
    try:
        for content, file in pictures:
            data.add(id, content, file, texts.pop(file.rpartition(".")[0], ""))
    except AtelierError:
        if not chosen:
            data.delete(id)
        raise
    stems = {one.name.rpartition(".")[0]: one.name for one in data.items(id)}
    for stem, text in texts.items():  # captions that come after their pictures
        if stem in stems:
            data.caption(id, stems[stem], text)
    return f"data:{id}"


def view(studio: Studio, chosen: str, marks: Mapping[str, list[str]]) -> dict[str, Any]:
    """The pictures of a set as the component takes them; `marks` are those of the last report by name."""
    from atelier.training.captions import tags

    if not chosen:
        return {"items": [], "tags": []}
    id = _id(chosen)
    items = studio.trainings.data.items(id)
    counts = Counter(tag.lower() for one in items for tag in tags(one.caption))
    shown = [
        {
            "name": one.name, "caption": one.caption, "detail": "",
            "url": f"/api/data/{id}/thumbnail?name={urllib.parse.quote(one.name)}",
            "marks": [*marks.get(one.name, ()), *([] if one.caption else ["no caption"])],
        }
        for one in items
    ]  # fmt: skip
    return {"items": shown, "tags": [list(pair) for pair in counts.most_common(_TAGS)]}


def acted(studio: Studio, chosen: str, value: Mapping[str, Any], marks: Any) -> tuple[Any, str]:
    """A caption was written, or a picture taken out."""
    data, name = studio.trainings.data, str(value.get("name", ""))
    try:
        if value.get("action") == "remove":
            data.remove(_id(chosen), name)
        elif value.get("action") == "caption":
            data.caption(_id(chosen), name, str(value.get("text", "")))
        return view(studio, chosen, marks), ""
    except AtelierError as error:
        return gr.skip(), parts.error(str(error))


def in_bulk(studio: Studio, chosen: str, value: Any, marks: Any, *, dry: bool) -> tuple[Any, str]:
    """All captions changed, or the first of those that would change."""
    try:
        found = studio.trainings.data.edit(_id(chosen), _edit(value), dry=dry)
    except AtelierError as error:
        return gr.skip(), parts.error(str(error))
    count = f"{len(found)} {'caption' if len(found) == 1 else 'captions'}"
    if not dry:
        return view(studio, chosen, marks), parts.sentence(f"{count} changed.")
    rows = "".join(
        f"<tr><td>{html.escape(one.path.stem)}</td><td>{html.escape(one.after)}</td></tr>"
        for one in found[:12]
    )
    return gr.skip(), parts.sentence(f"{count} would change.") + f'<table class="at-table">{rows}</table>'


def told(studio: Studio, chosen: str, value: Any) -> Iterator[tuple[Any, ...]]:
    """Updates of (pictures, marks, facts, note) while the pictures are looked at."""
    found: list[Report] = []
    try:
        id, buckets = _id(chosen), _buckets(value)
        data = studio.trainings.data
        job = _queued(studio, "looking", lambda seen: found.append(data.report(id, buckets, seen)))
    except AtelierError as error:
        yield gr.skip(), gr.skip(), gr.skip(), parts.error(str(error))
        return
    for note in running.follow(job):
        yield gr.skip(), gr.skip(), gr.skip(), running.line(studio, job, note)
    if not found:
        yield gr.skip(), gr.skip(), gr.skip(), parts.error(job.error)
        return
    marks = marks_of(found[0])
    yield view(studio, chosen, marks), marks, facts_of(found[0]), ""


def marks_of(found: Report) -> dict[str, list[str]]:
    """What a report finds at each picture, by its name."""
    marks: dict[str, list[str]] = {}
    for attribute, mark in _MARKS.items():
        several: list[Any] = list(getattr(found, attribute))
        paths: list[Path] = [one for group in several for one in group] if mark == "double" else several
        for path in paths:
            marks.setdefault(path.name, []).append(mark)
    return marks


def facts_of(found: Report) -> str:
    """The buckets with their numbers of pictures, and a sentence for each problem."""
    most = max(found.sizes.values(), default=1)
    rows = "".join(
        f"<span>{width} × {height}</span>"
        f'<meter max="{most}" value="{count}" aria-label="{count} pictures"></meter><span>{count}</span>'
        for (width, height), count in sorted(found.sizes.items(), key=lambda one: -one[1])
    )
    remarks = "".join(f"<li>{html.escape(one)}</li>" for one in found.remarks())
    buckets = "1 bucket" if len(found.sizes) == 1 else f"{len(found.sizes)} buckets"
    head = parts.sentence(f"{found.pictures} pictures in {buckets}.")
    return f'{head}<div class="at-report">{rows}</div>' + (
        f'<ul class="at-remarks">{remarks}</ul>' if remarks else ""
    )


def copied(studio: Studio, chosen: str, value: Any) -> Iterator[tuple[Any, ...]]:
    """Updates of (sets, note) while a new set of cropped pictures is made."""
    made: list[Any] = []
    try:
        id, buckets = _id(chosen), _buckets(value)
        data = studio.trainings.data
        job = _queued(studio, "cropping", lambda seen: made.append(data.cropped(id, buckets, seen)))
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error))
        return
    for note in running.follow(job):
        yield gr.skip(), running.line(studio, job, note)
    if not made:
        yield gr.skip(), parts.error(job.error)
        return
    yield gr.Dropdown(choices=_choices(studio), value=f"data:{made[0].id}"), ""


def _queued(studio: Studio, stage: str, work: Any) -> Job:
    """A job that tells how many pictures of how many are done."""
    from atelier.core.progress import Event

    def run(job: Job) -> None:
        work(lambda done, total: job.listen(Event(done, total, stage)))

    return studio.queue.put(Job("data", f"{stage} at pictures", run))
