"""Gallery: what was made, newest first, with receipts; search, downloads, delete, open in Paint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError
from atelier.studio.page import paint, parts, running

if TYPE_CHECKING:
    from atelier.studio.service import Studio

#: Pictures that are shown at first, and those that "More" adds.
_PAGE = 60
_EMPTY = "Pictures that you paint are kept here, with everything that is needed to paint them again."


def tab(studio: Studio, tabs: gr.Tabs, tab: gr.Tab, target: paint.Paint) -> None:
    """Build the tab; `target` is filled by "Open in Paint"."""
    with gr.Row(elem_classes="at-do"):
        search = gr.Textbox(
            label="Search",
            placeholder="Search: name, method, words",
            show_label=False,
            container=False,
            elem_id="gallery-search",
        )
    shown = gr.State(_PAGE)
    made = parts.part("gallery", "gallery-made", None, empty=_EMPTY)

    def done(value: Mapping[str, Any], words: str, count: int) -> list[Any]:
        count += _PAGE if value.get("action") == "more" else 0
        return [count, *acted(studio, value, words, count)]

    gr.on(
        [tab.select, search.change], lambda words, count: listed(studio, words, count), [search, shown], made,
        show_progress="hidden", trigger_mode="always_last",
    )  # fmt: skip
    made.input(done, [made, search, shown], [shown, made, tabs, *target.all], show_progress="hidden")


def listed(studio: Studio, words: str, count: int) -> dict[str, Any]:
    """The newest pictures that fit the words, for the component."""
    found = studio.gallery.list(search=words, limit=count + 1)
    items = [
        {
            "id": one.id, "title": one.title, "url": running.made_thumbnail(one.id),
            "detail": ("stopped, " if one.stopped else "") + _facts(one.size, one.created),
        }
        for one in found[:count]
    ]  # fmt: skip
    return {"items": items, "more": len(found) > count}


def acted(studio: Studio, value: Mapping[str, Any], words: str, count: int) -> list[Any]:
    """What the user asked for: more pictures, or one to show, to delete, or to open in Paint."""
    action, id, rest = value.get("action"), str(value.get("id", "")), paint.UNCHANGED
    now = listed(studio, words, count)
    try:
        if action == "more":
            return [now, gr.skip(), *rest]
        if action == "show":
            return [{**now, "open": detail(studio, id)}, gr.skip(), *rest]
        if action == "delete":
            studio.gallery.delete(id)
            return [listed(studio, words, count), gr.skip(), *rest]
        return [now, gr.Tabs(selected="paint"), *paint.opened(studio, id)]
    except AtelierError as error:
        gr.Warning(str(error))
        return [now, gr.skip(), *rest]


def detail(studio: Studio, id: str) -> dict[str, Any]:
    """A picture with its receipt, as it is shown when it is opened."""
    entry, receipt = studio.gallery.get(id), studio.gallery.receipt(id) or {}
    styles = [studio.pictures.name(one) for one in entry.inputs.get("styles", ())]
    facts = {
        "Method": entry.method,
        "Quality": entry.quality,
        "Styles": ", ".join([*styles, *entry.inputs.get("texts", ())]),
        "Time": running.duration(entry.seconds),
        **{
            name.replace("_", " ").capitalize(): value
            for name, value in entry.settings.get("values", {}).items()
        },
        "Seed": receipt.get("controls", {}).get("seed", ""),
        "Weights": ", ".join(receipt.get("weights", {})),
    }
    return {
        "id": id, "title": entry.title, "url": running.made(id), "links": running.made_links(studio, id),
        "detail": _facts(entry.size, entry.created),
        "facts": [[name, str(fact)] for name, fact in facts.items() if fact not in ("", None, [], {})],
    }  # fmt: skip


def _facts(size: tuple[int, int], created: float) -> str:
    then, year = time.localtime(created), time.localtime().tm_year
    when = time.strftime("%d %b, %H:%M" if then.tm_year == year else "%d %b %Y", then).lstrip("0")
    return f"{when} · {size[0]} × {size[1]}"
