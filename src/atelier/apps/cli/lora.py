"""Commands round LoRA: prepare pictures and captions, look into files, merge them, and extract them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry

if TYPE_CHECKING:
    from atelier.training.report import Report


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


# data


def data(
    folder: arguments.TrainingFolder,
    size: arguments.BucketSide = 512,
    upscale: arguments.Upscale = True,
    square: arguments.Square = False,
    as_json: arguments.Json = False,
) -> None:
    from atelier.apps.show import emit
    from atelier.training import report

    found = report.of(folder, _buckets(size, upscale, square))
    if as_json:
        emit(_facts(found))
        return
    for name, repeats, count in found.folders:
        typer.echo(f"{name:<24}  {count} pictures x {repeats}")
    typer.echo(f"{'an epoch':<24}  {found.epoch} pictures")
    for (width, height), count in found.sizes.items():
        typer.echo(f"{f'bucket {width} x {height}':<24}  {count}")
    if found.tags:
        typer.echo(f"{'tags':<24}  {_counts(found.tags.most_common(12))}")
    for remark in found.remarks():
        typer.echo(remark)


def _facts(found: Report) -> dict[str, Any]:
    return {
        "folders": [
            {"name": name, "repeats": repeats, "pictures": count} for name, repeats, count in found.folders
        ],
        "epoch": found.epoch,
        "buckets": [{"size": list(size), "pictures": count} for size, count in found.sizes.items()],
        "tags": dict(found.tags.most_common()),
        "damaged": [str(path) for path in found.damaged],
        "small": [str(path) for path in found.small],
        "blurred": [str(path) for path in found.blurred],
        "doubled": [[str(path) for path in group] for group in found.doubled],
        "uncaptioned": [str(path) for path in found.uncaptioned],
        "long": [str(path) for path in found.long],
        "left_out": [str(path) for path in found.left_out],
        "remarks": list(found.remarks()),
    }


def crop(
    folder: arguments.TrainingFolder,
    out: arguments.PreparedFolder,
    size: arguments.BucketSide = 512,
    upscale: arguments.Upscale = True,
    square: arguments.Square = False,
) -> None:
    from atelier.training import buckets

    made = list(buckets.prepare(folder, out, _buckets(size, upscale, square)))
    typer.echo(f"{out}  {len(made)} pictures")


def _buckets(size: int, upscale: bool, square: bool) -> Any:
    from atelier.training.buckets import Buckets

    return Buckets.of(size, upscale=upscale, single=square)


def tags(
    folder: arguments.TrainingFolder,
    trigger: arguments.TagsFirst = None,
    add: arguments.TagsAdded = None,
    remove: arguments.TagsRemoved = None,
    replace: arguments.TagsReplaced = None,
    find: arguments.TextReplaced = None,
    statistics: arguments.Statistics = False,
    dry_run: arguments.DryRun = False,
    as_json: arguments.Json = False,
) -> None:
    from atelier.apps.show import emit
    from atelier.training import captions

    edit = captions.Edit(
        tuple(trigger or ()), tuple(add or ()), tuple(remove or ()), _swaps(replace), _swaps(find)
    )
    changed = edit != captions.Edit()
    found = captions.changes(folder, edit) if changed else []
    if not dry_run:
        captions.write(found)
    if as_json:
        counts = dict(captions.statistics(folder).most_common())
        emit({"changed": {str(one.path): one.after for one in found}, "tags": counts})
        return
    for one in found if dry_run else ():
        typer.echo(f"{one.path.name}: {one.after}")
    if changed:
        typer.echo(f"{len(found)} captions {'would change' if dry_run else 'changed'}")
    if statistics or not changed:
        for tag, count in captions.statistics(folder).most_common():
            typer.echo(f"{count:>6}  {tag}")


def _swaps(given: Sequence[str] | None) -> dict[str, str]:
    """A=B as {A: B}. Raises UsageError for other text."""
    from atelier.core.errors import UsageError

    pairs = [one.partition("=") for one in given or ()]
    for old, equals, _ in pairs:
        if not (old.strip() and equals):
            raise UsageError(f"'{old}' is no replacement: use OLD=NEW, for example --replace sky='dark sky'")
    return {old: new for old, _, new in pairs}


def _counts(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts)


# files


def merge(base: arguments.Pipeline, output: arguments.NewFile, loras: arguments.Merged = None) -> None:
    from atelier.pipelines import lora_changes

    lora_changes.merge(base, [_share(one) for one in loras or ()], output)
    typer.echo(f"{output}")


def _share(given: str) -> tuple[str, float]:
    """FILE=SHARE as a name and a number; 1 without a number. Raises UsageError."""
    from atelier.core.errors import UsageError

    name, _, number = given.rpartition("=")
    if not name:
        return given, 1.0
    try:
        return name, float(number)
    except ValueError:
        raise UsageError(f"'{number}' is no share: use --lora FILE=NUMBER, for example style=0.8") from None


def extract(
    tuned: arguments.Tuned,
    base: arguments.Pipeline,
    output: arguments.NewFile,
    rank: arguments.Rank = 32,
    convolutions: arguments.Convolutions = False,
) -> None:
    from atelier.pipelines import lora_changes

    found = lora_changes.extract(tuned, base, rank, output, convolutions=convolutions)
    share = f"{100 * found['kept']:.1f}% of their change"
    typer.echo(f"{output}  {found['layers']:g} layers, {share} at rank {rank}")


COMMANDS = (
    Entry("data", "Report on pictures for a LoRA: folders, buckets, tags, doubles, blur.", data),
    Entry("tags", "Count the tags of captions, and add, remove and replace them.", tags),
    Entry("crop", "Write the pictures of a folder in the sizes of their buckets.", crop),
    Entry("inspect", "Say what a LoRA file is: layout, layers, ranks, base model, words.", inspect),
    Entry("merge", "Write a pipeline with LoRA files merged into it.", merge),
    Entry("extract", "Write the difference of two pipelines as a LoRA.", extract),
)
