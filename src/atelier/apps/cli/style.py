"""The command that keeps a style in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry, Flags


def save(
    painting: arguments.Painting,
    output: arguments.StyleOutput,
    method: arguments.MethodName = None,
    overwrite: arguments.Overwrite = False,
    **settings: Any,
) -> None:
    from atelier import api
    from atelier.apps.flags import given
    from atelier.apps.show import say

    api.save_style(painting, output, method=method, overwrite=overwrite, **given(settings))
    say(f"{output}  {output.stat().st_size / 2**20:.1f} MiB")


def _flags(words: Sequence[str]) -> Flags:
    from atelier.apps.cli.declared import method_of, settings

    return Flags(settings(method_of(words)))


COMMANDS = (Entry("save", "Save a style picture and its features in a file for --style.", save, _flags),)
