"""The page's own components, for what Gradio has none; their code is in `assets/`."""

from __future__ import annotations

import html
import json
from typing import Any

import gradio as gr


def part(kind: str, elem_id: str, value: Any = None, **props: Any) -> gr.HTML:
    """One of our components: `form`, `photo`, `shelf`, `viewer`, `grid`, `gallery`, `mask` or `place`.

    Its value is described at the head of its script. A user's change arrives as the event `input`.
    """
    return gr.HTML(
        value,
        html_template='<div class="at"></div>',
        js_on_load=f"atelier.{kind}(element, trigger, props, upload, watch); // 'input'",
        elem_id=elem_id,
        apply_default_css=False,
        **props,
    )


def title(text: str, sentence: str = "") -> gr.HTML:
    """The heading of a card."""
    below = f"<p>{html.escape(sentence)}</p>" if sentence else ""
    return gr.HTML(f"<h2>{html.escape(text)}</h2>{below}", elem_classes="at-title", apply_default_css=False)


def note(elem_id: str, value: str = "") -> gr.HTML:
    """A place for a line of progress, an error or a hint, which screen readers announce."""
    return gr.HTML(
        value,
        html_template='<div class="at" role="status" aria-live="polite">${value}</div>',
        elem_id=elem_id,
        apply_default_css=False,
    )


def error(sentence: str) -> str:
    """An error sentence for a `note`."""
    return f'<p class="at-error" role="alert">{html.escape(sentence)}</p>'


def links(pairs: list[tuple[str, str, str]], more: str = "") -> str:
    """Download links for a `note`, from (label, address, file name), and `more` buttons behind them."""
    buttons = "".join(
        f'<a class="at-button" href="{html.escape(address)}" download="{html.escape(name)}">'
        f"{html.escape(label)}</a>"
        for label, address, name in pairs
    )
    return f'<div class="at-actions">{buttons}{more}</div>'


def saver(files: list[tuple[str, str]]) -> str:
    """A button that writes files, given as (address, file name), into a folder that the user chooses."""
    told = html.escape(json.dumps([{"url": address, "name": name} for address, name in files]))
    return f'<button type="button" class="at-button at-save" data-save="{told}">Save into a folder</button>'


def progress(text: str, share: float | None = None) -> str:
    """A bar with a line of text for a `note`; without a share, the bar moves by itself."""
    value = "" if share is None else f' value="{max(0.0, min(1.0, share)):.4f}"'
    return (
        f'<div class="at-progress"><progress max="1"{value} aria-label="progress"></progress>'
        f"<span>{html.escape(text)}</span></div>"
    )


def sentence(text: str) -> str:
    """A line of text for a `note`."""
    return f'<p class="at-help">{html.escape(text)}</p>'
