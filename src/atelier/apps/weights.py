"""The commands below `atelier weights`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from atelier.apps import arguments
from atelier.core.errors import WeightsError


def every(as_json: arguments.Json = False) -> None:
    """Every known weights file: where it comes from and whether it is here."""
    from atelier.apps import catalogue

    typer.echo(catalogue.weights_as_json() if as_json else catalogue.weights_table())


def pull(name: arguments.Record) -> None:
    """Fetch published weights, check their hash and keep them as safetensors."""
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
    """Install a weights file that you fetched yourself."""
    from atelier.store import weights

    typer.echo(weights.add(name, file, force=force))


def verify(name: arguments.AnyRecord = None) -> None:
    """Hash the installed weights anew and say which are damaged."""
    from atelier.store import weights

    found = weights.verify(name)
    for known, state in found:
        typer.echo(f"{state:8} {known}")
    damaged = [known for known, state in found if state == "damaged"]
    if damaged:
        ways = " and ".join(f"'atelier weights pull {known}'" for known in damaged)
        raise WeightsError(f"{', '.join(damaged)}: the file is damaged, so fetch it again with {ways}")


def path(name: arguments.Record) -> None:
    """Print where the weights lie or would lie."""
    from atelier.store import weights

    typer.echo(weights.where(name))


COMMANDS: dict[str, Callable[..., None]] = {
    "list": every,
    "pull": pull,
    "add": add,
    "verify": verify,
    "path": path,
}
