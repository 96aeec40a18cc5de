"""Names of files and folders from any text."""

from __future__ import annotations


def slug(text: str) -> str:
    """Letters, digits, dots and underscores of a text; the rest become single dashes.

    >>> slug("adain: draft / 2")
    'adain-draft-2'
    """
    plain = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in text)
    return "-".join(part for part in plain.split("-") if part).lstrip(".") or "unnamed"
