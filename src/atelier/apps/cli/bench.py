"""Commands of the bench: run a protocol, check what it needs, list what there is, make a report."""

from __future__ import annotations

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry
from atelier.apps.failures import INTERRUPTED


def run(
    protocol: arguments.ProtocolName,
    out: arguments.BenchFolder = None,
    data: arguments.DataFolder = None,
    jobs: arguments.Jobs = None,
    retry: arguments.Retry = False,
    engine: arguments.EngineName = "local",
    as_json: arguments.Json = False,
) -> None:
    from atelier.apps import bench
    from atelier.apps.show import emit, watching
    from atelier.bench.sweep import is_sweep
    from atelier.core.errors import UsageError

    if is_sweep(protocol):
        if (jobs, retry, engine) != (None, False, "local"):
            raise UsageError(f"'{protocol}' varies one knob: --jobs, --retry and --engine are for grids")
        sweep(protocol, out, data, as_json)
        return
    place = bench.Place.of(protocol, out, data)
    with watching(quiet=as_json) as watch:
        outcome = bench.run(place, jobs, retry, engine, watch, quiet=as_json)
    if as_json:
        emit(bench.facts(place, outcome))
    else:
        typer.echo(bench.told(place, outcome))
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED)


def sweep(
    sweep: arguments.SweepName = "drawbench-style",
    out: arguments.BenchFolder = None,
    data: arguments.DataFolder = None,
    as_json: arguments.Json = False,
) -> None:
    from dataclasses import asdict

    from atelier.apps import bench
    from atelier.apps.show import emit, watching

    with watching(quiet=as_json) as watch:
        outcome, folder = bench.sweep(sweep, out, data, watch, quiet=as_json)
    if as_json:
        emit(asdict(outcome) | {"folder": str(folder)})
    else:
        typer.echo(bench.swept(outcome, folder))
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED)


def check(
    protocol: arguments.ProtocolName,
    out: arguments.BenchFolder = None,
    data: arguments.DataFolder = None,
) -> None:
    from atelier.apps import bench

    text, whole = bench.check(protocol, out, data)
    typer.echo(text)
    if not whole:
        raise typer.Exit(3)


def report(
    folder: arguments.GridFolder,
    site: arguments.SiteFolder = None,
) -> None:
    from atelier.apps.show import watching
    from atelier.bench.report import build

    with watching() as watch:
        typer.echo(build(folder, site, progress=watch))


def listing() -> None:
    from atelier.apps import bench

    typer.echo(bench.listing())


COMMANDS = (
    Entry(
        "run", "Do the cells of a protocol that are not done yet: `atelier bench PROTOCOL` for short.", run
    ),
    Entry("check", "Say which pictures, weights and programs of a protocol are missing.", check),
    Entry("report", "Write the report of a grid: a page with its table, plots and pictures.", report),
    Entry("sweep", "Vary one knob of a method on your prompts, and plot two metrics over it.", sweep),
    Entry("list", "List the protocols that come with atelier, and the metrics.", listing),
)
#: What `atelier bench WORD` means where WORD is no command.
USUAL = "run"
