"""Methods as data: what lists, documents, pages and the HTTP interface say of them."""

from __future__ import annotations

from typing import Any

from atelier.methods.base import Method

_CONTENT = {
    "required": "a photo",
    "optional": "optionally a photo",
    "size": "optionally a photo, for its size alone",
    "none": "no photo",
}
_STYLES = {"picture": "pictures", "text": "words", "trained": "names"}


def takes(kind: type[Method]) -> str:
    """What a method takes, in one line.

    >>> from atelier.methods import registry
    >>> takes(registry.find("gatys"))
    'a photo; 1 or more styles (pictures or words)'
    """
    rules = kind.takes
    if rules.most is None:
        count = f"{rules.least} or more"
    else:
        count = str(rules.most) if rules.least == rules.most else f"{rules.least} to {rules.most}"
    noun = "style" if rules.most == 1 else "styles"
    kinds = " or ".join(_STYLES[one] for one in sorted(rules.styles))
    parts = [_CONTENT[rules.content], f"{count} {noun} ({kinds})" if kinds else "no style"]
    return "; ".join([*parts, "a mask"] if rules.mask == "required" else parts)


def facts(kind: type[Method]) -> dict[str, Any]:
    """A method as data: paper, inputs, qualities, and the JSON schemas of its knobs and training."""
    return {
        "name": kind.name,
        "family": kind.family(),
        "summary": kind.summary(),
        "paper": vars(kind.paper),
        "takes": {**vars(kind.takes), "styles": sorted(kind.takes.styles)},
        "native": sorted(kind.native),
        "extra": kind.extra,
        "multiple": kind.multiple,
        "training": None if kind.Training is None else kind.Training.model_json_schema(),
        "qualities": {name: dict(knobs) for name, knobs in kind.qualities.items()},
        "sizes": dict(kind.sizes),
        "knobs": kind.Knobs.model_json_schema(),
    }
