"""The page as a whole: its tabs and its look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.studio.page import compare, folder, gallery, harmonise, inputs, paint, regions, train, words

if TYPE_CHECKING:
    from atelier.studio.service import Studio

#: Handlers that may run at the same time; the work itself is queued by the studio.
_HANDLERS = 32


def theme() -> gr.themes.Base:
    """System fonts only; the colours are in the style sheet."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Base(font=sans, font_mono=["ui-monospace", "monospace"], spacing_size="sm")


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    page: gr.Blocks
    with gr.Blocks(title="atelier studio", analytics_enabled=False, fill_width=True) as page:
        gr.HTML("<h1>atelier</h1>", elem_classes="at-head", apply_default_css=False)
        with gr.Tabs(selected="paint", elem_id="tabs") as tabs:
            with gr.Tab("Paint", id="paint"):
                target = paint.tab(studio)
            with gr.Tab("Gallery", id="gallery") as tab:
                gallery.tab(studio, tabs, tab, target)
            with gr.Tab("Compare", id="compare"):
                compare.tab(studio)
            with gr.Tab("Regions", id="regions"):
                regions.tab(studio)
            with gr.Tab("Folder", id="folder"):
                folder.tab(studio)
            with gr.Tab("Words", id="words") as tab:
                words.tab(studio, tab)
            with gr.Tab("Harmonise", id="harmonise"):
                harmonise.tab(studio)
            with gr.Tab("Train", id="train") as tab:
                train.tab(studio, page, tabs, tab, target)
        page.load(lambda: inputs.sweep(studio), None, None, show_progress="hidden")

        def taken(request: gr.Request) -> Any:
            return paint.taken_over(studio, request.query_params.get("start", ""))

        page.load(taken, None, [target.photo, target.shelf], show_progress="hidden").then(
            None, None, None, js="() => { history.replaceState(null, '', location.pathname); }"
        )
    page.queue(default_concurrency_limit=_HANDLERS, max_size=None, api_open=False)
    return page
