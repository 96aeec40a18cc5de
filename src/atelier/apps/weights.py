"""The commands below `atelier weights`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from atelier.apps import arguments
from atelier.core.errors import WeightsError


def every(as_json: arguments.Json = False) -> None:
    from atelier.apps import catalogue

    typer.echo(catalogue.weights_as_json() if as_json else catalogue.weights_table())


def pull(name: arguments.Record) -> None:
    from atelier.apps.show import downloading
    from atelier.store import weights

    with downloading(name) as progress:
        installed = weights.pull(name, progress)
    typer.echo(installed)


def add(
    name: arguments.Record,
    file: arguments.Brought,
    force: arguments.Force = False,
) -> None:
    from atelier.store import weights

    typer.echo(weights.add(name, file, force=force))


def verify(name: arguments.AnyRecord = None) -> None:
    from atelier.store import weights

    found = weights.verify(name)
    for known, state in found:
        typer.echo(f"{state:8} {known}")
    damaged = [known for known, state in found if state == "damaged"]
    if damaged:
        ways = " and ".join(f"'atelier weights pull {known}'" for known in damaged)
        raise WeightsError(f"{', '.join(damaged)}: the file is damaged, so fetch it again with {ways}")


def path(name: arguments.Record) -> None:
    from atelier.store import weights

    typer.echo(weights.where(name))


#: Name, sentence and function of each command. Sentences are not docstrings, which `python -OO` removes.
COMMANDS: dict[str, tuple[str, Callable[..., None]]] = {
    "list": ("List the known weights, and which of them are installed.", every),
    "pull": ("Download published weights, check their hash and store them as safetensors.", pull),
    "add": ("Install a weights file that you have downloaded yourself.", add),
    "verify": ("Hash the installed weights again and report damaged files.", verify),
    "path": ("Print the path where the weights are, or would be, installed.", path),
}
