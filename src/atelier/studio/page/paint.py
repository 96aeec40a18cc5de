"""Paint: a photo, styles, a few controls; a draft by itself, the full picture on demand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError
from atelier.studio.page import inputs, parts, running
from atelier.studio.requests import Inputs, Settings

if TYPE_CHECKING:
    from atelier.studio.jobs import Job
    from atelier.studio.service import Studio

#: Families whose drafts take longer than a moment: their preview is the usual draft.
_SLOW = frozenset({"optimise", "diffusion", "text", "gan"})
#: For `Paint.all`, where nothing is to be filled in.
UNCHANGED = [gr.skip()] * 8
_EMPTY = "Choose a photo. A draft appears here by itself; Paint makes the full picture."


class Window:
    """One browser window: the draft that it shows, and its paintings, to which drafts give way."""

    def __init__(self, group: str) -> None:
        self.group, self.painting, self.paintings, self._last = group, False, 0, ""

    def asks(self, key: str) -> bool:
        """Whether a draft is wanted: another than the last, and no painting goes on."""
        wanted = not self.painting and key != self._last
        self._last = key if wanted else self._last
        return wanted

    def __enter__(self) -> None:
        self.painting = True
        self.paintings += 1

    def __exit__(self, *error: object) -> None:
        self.painting = False


@dataclass(frozen=True)
class Paint:
    """The components that other tabs fill: "open in Paint" and "same again"."""

    photo: gr.HTML
    shelf: gr.HTML
    method: gr.Dropdown
    form: gr.HTML
    knobs: gr.HTML
    note: gr.HTML
    about: gr.HTML
    followed: gr.State

    @property
    def all(self) -> list[Any]:
        """The components in the order of `filled`."""
        mine = (self.photo, self.shelf, self.method, self.form, self.knobs)
        return [*mine, self.note, self.about, self.followed]


def tab(studio: Studio) -> Paint:
    """Build the tab."""
    job_id = gr.State("")
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Photo")
                photo = inputs.photo_part(studio, "paint-photo", "Your photo")
            with gr.Column(elem_classes="at-card"):
                parts.title("Style", "Drawn styles, and your own with +.")
                shelf = inputs.shelf_part(studio, "paint-shelf")
            with gr.Column(elem_classes="at-card"):
                form = parts.part("form", "paint-form", inputs.main_form())
            with gr.Accordion("Method and its knobs", open=False, elem_classes="at-card"):
                method, knobs, about, followed = method_part(studio, "paint", form)
            with gr.Accordion("Same again", open=False, elem_classes="at-card"):
                parts.title("", "Drop a picture that was made here: its receipt sets everything as it was.")
                again = parts.part("photo", "paint-again", None, prompt="A picture with a receipt")
        with gr.Column(elem_classes="at-main"):
            viewer = parts.part("viewer", "paint-viewer", None, empty=_EMPTY)
            with gr.Row(elem_classes="at-do"):
                go = gr.Button("Paint", variant="primary", elem_id="paint-go")
                stop = gr.Button("Stop", elem_id="paint-stop", elem_classes="at-stop")
                note = parts.note("paint-note")
            links = parts.note("paint-links")
    asked: list[Any] = [photo, shelf, method, form, knobs]

    windows: dict[str | None, Window] = {}

    def drafted(
        photo: Any, shelf: Any, method: str, form: Any, knobs: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        window = windows.setdefault(request.session_hash, Window(f"page {request.session_hash}"))
        if photo and not window.painting and set(inputs.styles(shelf)[0]) & set(studio.pictures.undrawn()):
            yield gr.skip(), parts.sentence("This style is being drawn."), gr.skip()
        yield draft(studio, window, photo, shelf, method, form, knobs)

    def painted(
        photo: Any, shelf: Any, method: str, form: Any, knobs: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        window = windows.setdefault(request.session_hash, Window(f"page {request.session_hash}"))
        with window:
            yield from full(studio, photo, shelf, method, form, knobs)

    gr.on(
        [one.change for one in asked], drafted, asked, [viewer, note, links],
        trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    go.click(painted, asked, [viewer, note, links, job_id], show_progress="hidden")
    stop.click(lambda job: stopped(studio, job), job_id, None, queue=False)
    page = Paint(photo, shelf, method, form, knobs, note, about, followed)
    again.input(lambda value: same_again(studio, value), again, [again, *page.all], show_progress="hidden")
    return page


def method_part(
    studio: Studio, name: str, form: gr.HTML, *, words: bool = False
) -> tuple[gr.Dropdown, gr.HTML, gr.HTML, gr.State]:
    """The list of methods, and the knobs of the chosen one, a sentence on it, and what these follow.

    Knobs and sentence follow the method and the quality; the last of the four holds both.
    """
    method = gr.Dropdown(
        inputs.method_choices(words=words),
        value="",
        label="Method",
        show_label=False,
        elem_id=f"{name}-method",
    )
    first = "draft" if words else "good"  # words at a good quality take a minute
    about = parts.note(f"{name}-about", inputs.about("", first, words=words))
    knobs = parts.part("form", f"{name}-knobs", inputs.knob_form(studio, "", first, words=words))
    state = gr.State(("", first))

    def follow(method: str, form: Mapping[str, Any], knobs: Mapping[str, Any], last: tuple[str, str]) -> Any:
        quality = str(form.get("values", {}).get("quality", "good"))
        if (method, quality) == tuple(last):
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        known = inputs.kind_of(method, quality, words=words).qualities
        now = quality if quality in known else "good"
        main = inputs.main_form(method, now, {**form.get("values", {}), "quality": now}, words=words)
        more = inputs.knob_form(studio, method, now, knobs.get("values", {}), words=words)
        return (
            inputs.about(method, now, words=words),
            inputs.since(main, form) if method != last[0] else gr.skip(),
            inputs.since(more, knobs), (method, now),
        )  # fmt: skip

    gr.on(
        [method.change, form.input], follow, [method, form, knobs, state], [about, form, knobs, state],
        show_progress="hidden", trigger_mode="always_last",
    )  # fmt: skip
    return method, knobs, about, state


def request(
    studio: Studio, photo: Any, shelf: Any, method: str, form: Any, knobs: Any, *, words: bool = False
) -> tuple[Inputs, Settings]:
    """The request that the components ask for. Raises AtelierError."""
    settings, files = inputs.settings(studio, method, form, knobs, words=words)
    kind = inputs.kind_of(method, settings.quality, words=words)
    styles, weights = inputs.styles(shelf) if "picture" in kind.takes.styles else ([], ())
    if weights:
        settings = settings.with_values(style_weights=weights)
    content = (photo or {}).get("id") if kind.takes.content != "none" else None
    return Inputs(content=content, styles=tuple(styles), files=files), settings


def before(photo: Any) -> Any:
    """What a viewer shows of a photo that is not painted yet; nothing to do for one that was refused."""
    if not photo:
        return None
    return {"before": photo["url"], **_sides(photo)} if photo.get("id") else gr.skip()


def draft(studio: Studio, window: Window, photo: Any, shelf: Any, method: str, form: Any, knobs: Any) -> Any:
    """The draft of what is set, with the photo for the divider; nothing where there is no photo."""
    if not (photo or {}).get("id"):
        return before(photo), "", ""
    shown = before(photo)
    try:
        what, how = as_draft(studio, photo, shelf, method, form, knobs)
        if not window.asks(repr((what, how))):
            return gr.skip(), gr.skip(), gr.skip()
        started = window.paintings
        job = studio.paint(what, how, preview=True, group=window.group)
        job.wait(60)
    except AtelierError as error:
        return shown, parts.error(str(error)), ""
    if window.paintings > started:  # there is something newer
        return gr.skip(), gr.skip(), gr.skip()
    if job.state == "failed":
        return shown, parts.error(job.error), ""
    if not job.made or job.made[0].picture is None:
        return gr.skip(), gr.skip(), gr.skip()
    made = job.made[0]
    assert made.picture is not None
    told = f"Draft by {how.method}, {running.duration(made.seconds)}"
    return {**shown, "after": running.data_url(made.picture), "note": told}, "", ""


def as_draft(
    studio: Studio, photo: Any, shelf: Any, method: str, form: Any, knobs: Any
) -> tuple[Inputs, Settings]:
    """The request of a draft: the method's own where that is quick, else the usual one."""
    kind = inputs.kind_of(method, "draft")
    main = {"values": {**form.get("values", {}), "quality": "draft"}}
    for name in ("size", "finish"):
        main["values"].pop(name, None)
    if method and kind.family() not in _SLOW:
        own = {n: v for n, v in knobs.get("values", {}).items() if n != "finish"}
        return request(studio, photo, shelf, method, main, {"values": own})
    return request(studio, photo, shelf, "", main, {"values": {}})


def full(
    studio: Studio, photo: Any, shelf: Any, method: str, form: Any, knobs: Any
) -> Iterator[tuple[Any, ...]]:
    """Paint the full picture, telling how far it is."""
    try:
        what, how = request(studio, photo, shelf, method, form, knobs)
        job = studio.paint(what, how)
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error)), "", ""
        return
    yield from told(studio, job, photo)


def told(studio: Studio, job: Job, photo: Any) -> Iterator[tuple[Any, ...]]:
    """A job as updates of (viewer, note, links, job id)."""
    yield gr.skip(), parts.progress("starting"), "", job.id
    seen = 0
    for note in running.follow(job):
        view: Any = gr.skip()
        if note.preview > seen and (made := running.preview_of(job)):
            seen = note.preview
            size = _sides(photo) if photo else {"width": made[1], "height": made[2]}
            view = {"before": (photo or {}).get("url"), "after": made[0], **size, "note": "in progress"}
        yield view, running.line(studio, job, note), gr.skip(), job.id
    ids = [one.id for one in job.made if one.id]
    if not ids:
        yield gr.skip(), running.ended(job), "", ""
        return
    view = {"before": (photo or {}).get("url"), **running.facts_of(studio, ids[0])}
    yield view, running.ended(job), running.downloads(studio, ids[0]), ""


def stopped(studio: Studio, id: str) -> None:
    """Stop the job that this page started."""
    if id:
        studio.cancel(id)


def same_again(studio: Studio, value: Any) -> list[Any]:
    """Everything set as in the receipt of a dropped picture."""
    if not value or "path" not in value:
        return [None, *UNCHANGED]
    try:
        what, how, missing = studio.request_in(*inputs.received(studio, value))
    except AtelierError as error:
        return [{"error": str(error)}, *UNCHANGED]
    return [None, *filled(studio, what, how, missing)]


def filled(studio: Studio, what: Inputs, how: Settings, missing: list[str]) -> list[Any]:
    """Values for `Paint.all` that ask for this request again."""
    values = dict(how.values)
    weights = values.pop("style_weights", None) or [1] * len(what.styles)
    photo = inputs.shown(studio, str(what.content)) if what.content else None
    chosen = [
        {"id": _kept(studio, str(id)), "weight": w} for id, w in zip(what.styles, weights, strict=False)
    ]
    files = {name: {"id": one, "name": _names(studio, one)} for name, one in what.files.items()}
    method = how.method or ""
    main = {n: v for n, v in values.items() if n in inputs.MAIN and v is not None} | {"quality": how.quality}
    gone = [*missing, *(f"the words '{text}' (tab Words)" for text in what.texts)]
    gone += ["its regions (tab Regions)"] if what.regions else []
    gone += ["its mask"] if what.mask else []
    told = "Set as it was." if not gone else f"Set as it was, without: {', '.join(gone)}."
    if gone:
        gr.Info(told)  # the line below goes with the next draft
    return [
        photo, inputs.shelf(studio, chosen), method, inputs.main_form(method, how.quality, main),
        inputs.knob_form(studio, method, how.quality, {**values, **files}), parts.sentence(told),
        inputs.about(method, how.quality), (method, how.quality),
    ]  # fmt: skip


def opened(studio: Studio, id: str) -> list[Any]:
    """Values for `Paint.all` that paint a picture of the gallery again, or paint on it where Paint cannot."""
    what, how = studio.request_of(id)
    if inputs.kind_of(how.method or "", how.quality).takes.mask != "required":
        return filled(studio, what, how, [])
    gr.Info("This picture is your photo now. Its object is placed in the tab Harmonise.")
    photo = {**inputs.shown(studio, f"made:{id}"), "name": studio.gallery.get(id).title}
    return [photo, *[gr.skip()] * 7]


def taken_over(studio: Studio, start: str) -> tuple[Any, Any]:
    """(photo, shelf) as chosen on the start page, which sends {photo: ID, styles: [{id, weight}]} as JSON."""
    if not start:
        return gr.skip(), gr.skip()
    try:
        sent = json.loads(start)
        photo = inputs.shown(studio, str(sent["photo"])) if sent["photo"] else gr.skip()
        styles = [
            {"id": _kept(studio, str(one["id"])), "weight": float(one["weight"])} for one in sent["styles"]
        ]
    except (AtelierError, ValueError, LookupError, TypeError):  # an address that was not made by that page
        return gr.skip(), gr.skip()
    return photo, inputs.shelf(studio, styles)


def with_network(studio: Studio, method: str, network: str) -> list[Any]:
    """Values for `Paint.all` that choose a method and a network that was trained for it."""
    kind = inputs.kind_of(method, "good")
    quality = "good" if "good" in kind.qualities else next(iter(kind.qualities), "good")
    return [
        gr.skip(), gr.skip(), method, inputs.main_form(method, quality),
        inputs.knob_form(studio, method, quality, {inputs.TRAINED: network}),
        parts.sentence(f"{method} paints with {network}."),
        inputs.about(method, quality), (method, quality),
    ]  # fmt: skip


def _names(studio: Studio, ids: Any) -> str:
    """The names of the file, or of the files, of a knob."""
    return ", ".join(studio.pictures.name(str(id)) for id in (ids if isinstance(ids, list) else [ids]))


def _kept(studio: Studio, id: str) -> str:
    """A style's id on the shelf; an upload is put there."""
    return id if id.partition(":")[0] in ("style", "shelf") else studio.pictures.keep(id).id


def _sides(photo: Mapping[str, Any]) -> dict[str, Any]:
    return {"width": photo["width"], "height": photo["height"]}
