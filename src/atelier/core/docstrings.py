"""Docstrings for display in lists, available even under `python -OO`, which removes them."""

from __future__ import annotations

import ast
import inspect
from functools import lru_cache
from pathlib import Path


def first_paragraph(kind: type) -> str:
    """The first paragraph of a class's own docstring on one line; empty if it has none.

    >>> first_paragraph(ValueError)
    'Inappropriate argument value (of correct type).'
    """
    text = inspect.cleandoc(kind.__doc__ or _in_source(kind))
    return " ".join(text.split("\n\n")[0].split())


def _in_source(kind: type) -> str:
    """The docstring in the source file, for `python -OO`, which keeps none in the compiled code."""
    try:
        path = inspect.getsourcefile(kind)
    except TypeError:  # built in
        return ""
    return "" if path is None else _docstrings(path).get(kind.__qualname__, "")


@lru_cache(maxsize=64)
def _docstrings(path: str) -> dict[str, str]:
    """The docstrings of a file's top-level classes, by name."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}
