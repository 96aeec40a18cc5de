"""Train, LoRA files: looking into them, merging them into a pipeline, extracting them."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, UsageError
from atelier.studio import lora_files
from atelier.studio.page import parts, running

if TYPE_CHECKING:
    from atelier.studio.jobs import Job
    from atelier.studio.service import Studio

_EMPTY = "Files that were trained here, and those of the folder in atelier studio --weights FOLDER."


def tab(studio: Studio, tab: gr.Tab) -> None:
    """Build the part."""
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Look into a file", "Layout, layers, ranks, base model, words.")
                look = parts.part("form", "lora-look", _look(studio))
                inspect = gr.Button("Inspect", variant="primary", elem_id="lora-inspect")
            with gr.Column(elem_classes="at-card"):
                parts.title("Merge", "A pipeline with one or two LoRA files inside.")
                mix = parts.part("form", "lora-mix", _mix(studio))
                merge = gr.Button("Merge", elem_id="lora-merge")
            with gr.Column(elem_classes="at-card"):
                parts.title("Extract", "The difference of two pipelines as a LoRA.")
                cut = parts.part("form", "lora-cut", _cut(studio))
                extract = gr.Button("Extract", elem_id="lora-extract")
        with gr.Column(elem_classes="at-main"):
            note = parts.note("lora-note")
            facts = parts.note("lora-facts", _none())

    def looked(value: Any) -> tuple[Any, str]:
        try:
            return table(lora_files.inspected(studio, _values(value).get("file", ""))), ""
        except AtelierError as error:
            return _none(), parts.error(str(error))

    def merged(value: Any) -> Iterator[tuple[Any, ...]]:
        yield from told(studio, lambda: begin_merge(studio, _values(value)))

    def extracted(value: Any) -> Iterator[tuple[Any, ...]]:
        yield from told(studio, lambda: begin_extract(studio, _values(value)))

    forms = [look, mix, cut]
    tab.select(lambda: (_look(studio), _mix(studio), _cut(studio)), None, forms, show_progress="hidden")
    inspect.click(looked, look, [facts, note], show_progress="hidden")
    merge.click(merged, mix, [note, facts], show_progress="hidden")
    extract.click(extracted, cut, [note, facts], show_progress="hidden")


def _none() -> str:
    return f'<div class="at-empty"><p>{html.escape(_EMPTY)}</p></div>'


def _values(form: Mapping[str, Any]) -> dict[str, Any]:
    return dict(form.get("values", {}))


def _choice(name: str, label: str, names: list[str], help: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "kind": "list",
        "options": ["", *names],
        "names": ["choose" if names else "nothing here yet", *names],
        "default": "",
        "help": help,
    }


def _share(name: str, label: str) -> dict[str, Any]:
    return {
        "name": name, "label": label, "kind": "range", "minimum": -2, "maximum": 4, "step": 0.05,
        "default": 1.0, "help": "", "whole": False,
    }  # fmt: skip


def _name() -> dict[str, Any]:
    return {"name": "name", "label": "Name of the result", "kind": "text", "default": "", "help": ""}


def _look(studio: Studio) -> dict[str, Any]:
    return {"fields": [_choice("file", "File", studio.weights.names())], "values": {}}


def _mix(studio: Studio) -> dict[str, Any]:
    files = studio.weights.names()
    base = _choice("base", "Pipeline", lora_files.pipelines(studio), "Stable Diffusion 1.x.")
    one = [_choice("first", "LoRA", files), _share("first_share", "How strongly")]
    two = [_choice("second", "Another LoRA", files), _share("second_share", "How strongly")]
    return {"fields": [base, *one, *two, _name()], "values": {}}


def _cut(studio: Studio) -> dict[str, Any]:
    known = lora_files.pipelines(studio)
    rank = {
        "name": "rank", "label": "Rank", "kind": "number", "minimum": 1, "maximum": 512, "step": 1,
        "default": 32, "whole": True, "help": "More keeps more of the difference.",
    }  # fmt: skip
    more = {
        "name": "convolutions", "label": "Convolutions too", "kind": "switch", "default": False, "help": "",
    }  # fmt: skip
    pipelines = [_choice("tuned", "Tuned pipeline", known), _choice("base", "Its base", known)]
    return {"fields": [*pipelines, rank, more, _name()], "values": {}}


def begin_merge(studio: Studio, asked: Mapping[str, Any]) -> Job:
    """The job of the form. Raises UsageError."""
    pairs = [
        (str(asked[one]), float(asked.get(f"{one}_share", 1.0)))
        for one in ("first", "second")
        if asked.get(one)
    ]
    if not pairs:
        raise UsageError("there is nothing to merge: choose a LoRA")
    return lora_files.merged(studio, str(asked.get("base", "")), pairs, str(asked.get("name", "")))


def begin_extract(studio: Studio, asked: Mapping[str, Any]) -> Job:
    """The job of the form. Raises UsageError."""
    rank = int(asked.get("rank") or 32)
    if not 1 <= rank <= 512:
        raise UsageError(f"rank = {rank} is not allowed: it should be 1 to 512")
    return lora_files.extracted(
        studio, str(asked.get("tuned", "")), str(asked.get("base", "")), rank, str(asked.get("name", "")),
        convolutions=bool(asked.get("convolutions", False)),
    )  # fmt: skip


def told(studio: Studio, begin: Any) -> Iterator[tuple[Any, ...]]:
    """Updates of (note, facts) while a file is written, and a link to it."""
    before = set(studio.weights.names())
    try:
        job = begin()
    except AtelierError as error:
        yield parts.error(str(error)), gr.skip()
        return
    text = ""
    for note in running.follow(job):
        text = note.text or text
        yield running.line(studio, job, note), gr.skip()
    new = [name for name in studio.weights.names() if name not in before]
    if job.state != "done" or not new:
        yield running.ended(job), gr.skip()
        return
    said = next((note.text for note in job.notes() if note.text), text)
    files = [name for name in new if name.endswith(".safetensors")]
    links = parts.links([("Download", running.own_network(name), name) for name in files])
    yield parts.sentence(said) + links, gr.skip()


def table(facts: Mapping[str, Any]) -> str:
    """What a file says of itself as a table."""
    rows = ""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key}: {_number(count)}" for key, count in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(_number(one) for one in value)
        said = html.escape(str(value)) or "not said"
        rows += f"<tr><th>{html.escape(name.capitalize())}</th><td>{said}</td></tr>"
    return f'<table class="at-table">{rows}</table>'


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
