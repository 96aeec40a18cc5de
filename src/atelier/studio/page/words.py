"""Words: a style described in words, with or without a photo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, UsageError
from atelier.studio.page import inputs, paint, parts

if TYPE_CHECKING:
    from atelier.studio.service import Studio

_EMPTY = "Choose a photo and say in words how it should look: van gogh, ink wash, stained glass."
#: Kinds of words in the order in which they are offered.
_KINDS = {
    "artist": "Artists", "movement": "Movements", "technique": "Techniques", "subject": "Subjects",
    "colour": "Colours", "light": "Light", "mark": "Marks of the brush",
}  # fmt: skip

#: A new photo takes the place of the last picture and its links. In the browser: an answer of the server
#: could come after that to "Paint", and wipe out the finished picture.
_CHOSEN = """(photo, viewer) => {
  if (photo && !photo.id) return [viewer, "", ""];
  const {url, width, height} = photo || {};
  return [photo ? {before: url, width, height} : null, "", ""];
}"""


def tab(studio: Studio, tab: gr.Tab) -> None:
    """Build the tab."""
    job_id = gr.State("")
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Photo")
                photo = inputs.photo_part(studio, "words-photo", "Your photo")
            with gr.Column(elem_classes="at-card"):
                parts.title(
                    "Style in words", "Words on one line say one thing together; each line is a style."
                )
                words = parts.part("words", "words-text", None, prompt="van gogh, warm")
                gr.HTML(parts.sentence(models()), elem_id="words-models", apply_default_css=False)
            with gr.Column(elem_classes="at-card"):
                form = parts.part(
                    "form", "words-form", inputs.main_form("", "draft", {"quality": "draft"}, words=True)
                )
            with gr.Accordion("Method and its knobs", open=False, elem_classes="at-card"):
                method, knobs, *_ = paint.method_part(studio, "words", form, words=True)
        with gr.Column(elem_classes="at-main"):
            viewer = parts.part("viewer", "words-viewer", None, empty=_EMPTY)
            with gr.Row(elem_classes="at-do"):
                go = gr.Button("Paint", variant="primary", elem_id="words-go")
                stop = gr.Button("Stop", elem_id="words-stop", elem_classes="at-stop")
                note = parts.note("words-note")
            links = parts.note("words-links")

    def painted(*values: Any) -> Iterator[tuple[Any, ...]]:
        yield from run(studio, *values)

    photo.change(None, [photo, viewer], [viewer, note, links], js=_CHOSEN, show_progress="hidden")
    # Not before the tab is opened: reading the model takes a second or two.
    tab.select(lambda value: value or vocabulary(), words, words, show_progress="hidden")
    go.click(
        painted, [photo, words, method, form, knobs], [viewer, note, links, job_id], show_progress="hidden"
    )
    stop.click(lambda job: paint.stopped(studio, job), job_id, None, queue=False)


def vocabulary() -> dict[str, Any]:
    """The words that the bundled model knows, by kind."""
    from atelier.features.words import load

    groups: dict[str, list[str]] = {}
    for word in load().known.values():
        groups.setdefault(word.kind, []).append(word.name)
    order = [*(kind for kind in _KINDS if kind in groups), *(kind for kind in groups if kind not in _KINDS)]
    return {"text": "", "groups": [{"name": _KINDS.get(kind, kind), "words": groups[kind]} for kind in order]}


def models() -> str:
    """What reads words here, and how to bring what is missing."""
    from atelier.store import records, weights

    installed = []
    for record in records.records():
        if record.name.startswith("clip_vit"):
            try:
                weights.locate(record.name)
            except AtelierError:
                continue
            installed.append(record.name)
    known = "The words above are read without CLIP."
    if installed:
        return f"{known} Any sentence is read by methods with CLIP: {', '.join(installed)} is installed."
    return (
        f"{known} For any other sentence, bring a CLIP: pip install 'atelier[text]', then "
        "atelier weights pull clip_vit_b32.openai, and choose the method clipstyler."
    )


def run(
    studio: Studio, photo: Any, words: Mapping[str, Any], method: str, form: Any, knobs: Any
) -> Iterator[tuple[Any, ...]]:
    """Updates of (viewer, note, links, job id) while it is painted."""
    texts = [line.strip(" ,") for line in str(words.get("text", "")).splitlines() if line.strip(" ,")]
    try:
        if not texts:
            raise UsageError("say in words how it should look: type some, or click on words")
        what, how = paint.request(studio, photo, None, method, form, knobs, words=True)
        job = studio.paint(replace(what, texts=tuple(texts)), how)
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error)), "", ""
        return
    yield from paint.told(studio, job, photo)
