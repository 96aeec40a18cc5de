"""The command that writes a method's network for other programs and for the browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry, Flags

_Method = Annotated[
    str,
    typer.Argument(metavar="METHOD", help="A method that is one pass of a network.", show_default=False),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        readable=False,
        help="A network (.onnx), or a page that paints in the browser (.html). [default: METHOD.onnx]",
    ),
]
_Style = Annotated[
    Path | None,
    typer.Option(
        "--style",
        "-s",
        metavar="FILE",
        readable=False,
        help="A style picture that becomes part of the network. [default: the style stays an input]",
    ),
]
_Size = Annotated[
    int | None,
    typer.Option(
        "--size", metavar="PIXELS", min=32, help="Long side of that style picture. [default: the method's]"
    ),
]
_Seed = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of a random look, where the method has such looks.")
]
_Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Compare the file with torch before it is written.")
]
_Runtime = Annotated[
    Path | None,
    typer.Option(
        "--runtime",
        metavar="FOLDER",
        readable=False,
        help="The package onnxruntime-web, for a page. [default: fetched from npm, once]",
    ),
]


def export(
    method: _Method,
    output: _Output = None,
    style: _Style = None,
    size: _Size = None,
    seed: _Seed = 0,
    check: _Check = True,
    runtime: _Runtime = None,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    from atelier.apps.flags import given
    from atelier.apps.show import emit, say
    from atelier.exports import files

    made = files.export(
        method,
        output or Path(f"{method}.onnx"),
        style=style,
        size=size,
        check=check,
        runtime=runtime,
        overwrite=overwrite,
        settings=given(settings) | {"seed": seed},
    )
    if as_json:
        emit(made.facts())
    else:
        for line in made.lines():
            say(line)


def _flags(words: Sequence[str]) -> Flags:
    from atelier.apps.flags import parameters
    from atelier.exports import networks
    from atelier.methods import registry

    names = networks.names()
    named = next((word for word in words if word in names), None)
    if named is None:
        rows = [(name, registry.find(name).summary()) for name in names]
        return Flags(sections=[("Methods", rows)])
    kind = registry.find(named)
    return Flags(parameters(kind.Knobs, f"Knobs of {named}", skip=kind.apart))


COMMANDS = (
    Entry(
        "export", "Write a network for other programs (.onnx), or a page (.html) that paints.", export, _flags
    ),
)
