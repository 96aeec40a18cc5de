"""Commands that list and show: methods, words, examples, demo, doctor."""

from __future__ import annotations

from pathlib import Path

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry
from atelier.apps.failures import INTERRUPTED


def methods(
    name: arguments.Listed = None,
    as_json: arguments.Json = False,
) -> None:
    from atelier.apps import catalogue
    from atelier.methods import registry

    chosen = [registry.find(name)] if name else list(registry.list_methods().values())
    if as_json:
        typer.echo(catalogue.as_json(chosen))
    elif name:
        typer.echo(catalogue.one(chosen[0]))
    else:
        typer.echo(catalogue.many(chosen))


def words(
    model: arguments.WordsModel = None,
    as_json: arguments.Json = False,
) -> None:
    from atelier.apps import catalogue
    from atelier.features.words import NAME, load

    known = list(load(model or NAME).known.values())
    typer.echo(catalogue.words_as_json(known) if as_json else catalogue.words_table(known))


def examples(
    folder: arguments.Folder,
    size: arguments.Side = 640,
    overwrite: arguments.Overwrite = False,
) -> None:
    from atelier import examples as bundled

    for path in bundled.write(folder, size=size, overwrite=overwrite):
        typer.echo(path)


def demo(
    folder: arguments.DemoFolder = Path("out/demo"),
    quality: arguments.Quality = "good",
) -> None:
    from atelier.apps import demo as show

    sheet, whole = show.run(folder, quality)
    typer.echo(sheet)
    if not whole:
        raise typer.Exit(INTERRUPTED)


def doctor(as_json: arguments.Json = False) -> None:
    from atelier.apps import doctor as clinic
    from atelier.apps.show import emit

    facts = clinic.examine()
    if as_json:
        emit(facts)
    else:
        typer.echo(clinic.report(facts))


COMMANDS = (
    Entry("methods", "List the methods, or the knobs of one method.", methods),
    Entry("words", "List the words that --text knows without CLIP.", words),
    Entry("examples", "Write the bundled example photos and drawn styles into a folder.", examples),
    Entry("demo", "Make four pictures from the bundled examples, and a contact sheet.", demo),
    Entry("doctor", "Report versions, device, measured speed, memory and weights of this machine.", doctor),
)
