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
    _say_unverified(name)


def add(
    name: arguments.Record,
    file: arguments.Brought,
    force: arguments.Force = False,
) -> None:
    from atelier.store import weights

    typer.echo(weights.add(name, file, force=force))
    _say_unverified(name)


def verify(name: arguments.AnyRecord = None) -> None:
    from atelier.store import weights

    found = weights.verify(name)
    for known, state in found:
        typer.echo(f"{state:10} {known}")
    damaged = [known for known, state in found if state == "damaged"]
    if damaged:
        ways = " and ".join(_remedy(known) for known in damaged)
        raise WeightsError(f"damaged: {', '.join(damaged)}; install again with {ways}")


def path(name: arguments.Record) -> None:
    from atelier.store import weights

    typer.echo(weights.where(name))


def _remedy(name: str) -> str:
    from atelier.store import records

    fetched = all(part.sources for part in records.record(name).parts)
    return f"'atelier weights pull {name}'" if fetched else f"'atelier weights add {name} FILE'"


def _say_unverified(name: str) -> None:
    from atelier.apps.show import say
    from atelier.store import weights

    if weights.recorded(name) == "unverified":
        say(f"note: {name} is unverified: it matches no known hash; sha256 {weights.fingerprint(name)}")


#: Name, sentence and function of each command. Sentences are not docstrings, which `python -OO` removes.
COMMANDS: dict[str, tuple[str, Callable[..., None]]] = {
    "list": ("List the known weights, and which of them are installed.", every),
    "pull": ("Download published weights, check their hashes and store them.", pull),
    "add": ("Install weights that you downloaded yourself: a file, or a folder for several files.", add),
    "verify": (
        "Hash the installed weights again: verified, unverified (no published hash), missing or damaged.",
        verify,
    ),
    "path": ("Print the path where the weights are, or would be, installed.", path),
}
