"""The command that looks into LoRA files."""

from __future__ import annotations

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry


def inspect(file: arguments.LoraFile, as_json: arguments.Json = False) -> None:
    from atelier.apps.show import emit
    from atelier.pipelines import lora

    facts = lora.inspect(file)
    if as_json:
        emit(facts)
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {count}" for key, count in value.items())
        elif isinstance(value, list):
            value = ", ".join(f"{one:g}" for one in value)
        typer.echo(f"{name:<12}  {value or 'not said'}")


COMMANDS = (Entry("inspect", "Say what a LoRA file is: layout, layers, ranks, base model, words.", inspect),)
