"""The `atelier` command. Flags come from declarations; errors leave one sentence and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atelier import __version__
from atelier.apps import arguments
from atelier.apps.failures import INTERRUPTED, Asked, failed
from atelier.apps.layout import Command, Group
from atelier.apps.weights import COMMANDS as SHELF
from atelier.core.allocator import keep_freed_memory

if TYPE_CHECKING:
    from atelier.apps.show import Watch
    from atelier.images import Picture
    from atelier.methods.base import Method


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error too; goes anywhere.")
    ] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def stylize(
    photo: arguments.Photo,
    style: arguments.Styles = None,
    text: arguments.Texts = None,
    output: arguments.Output = None,
    method: arguments.MethodName = None,
    quality: arguments.Quality = "good",
    mask: arguments.Mask = None,
    region: arguments.Regions = None,
    bits: arguments.Bits = None,
    no_receipt: arguments.NoReceipt = False,
    no_metadata: arguments.NoMetadata = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    """Paint a photo in the style of a painting."""
    from atelier import api

    styles = style or []
    target = output or Path(f"{photo.stem}-{Path(styles[0]).stem if styles else method or quality}.png")
    _write(
        lambda watch: api.stylize(
            photo,
            styles,
            text=text or None,
            method=method,
            quality=quality,
            mask=mask,
            regions=region or [],
            progress=watch,
            **_settings(settings, no_receipt),
        ),
        target,
        bits=bits,
        metadata=not no_metadata,
        overwrite=overwrite,
        as_json=as_json,
    )


def generate(
    method: arguments.Generator,
    style: arguments.Styles = None,
    text: arguments.Texts = None,
    size: arguments.GeneratedSize = None,
    output: arguments.Output = None,
    quality: arguments.Quality = "good",
    bits: arguments.Bits = None,
    no_receipt: arguments.NoReceipt = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    """Make a picture without a photo: a texture from a sample, for instance."""
    from atelier import api

    _write(
        lambda watch: api.generate(
            method,
            style or [],
            text=text or None,
            size=_size(size),
            quality=quality,
            progress=watch,
            **_settings(settings, no_receipt),
        ),
        output or Path(f"{method}.png"),
        bits=bits,
        overwrite=overwrite,
        as_json=as_json,
    )


def _settings(settings: dict[str, Any], no_receipt: bool) -> dict[str, Any]:
    from atelier.apps.flags import given

    return given(settings) | ({"receipt": "none"} if no_receipt else {})


def _size(words: str | None) -> int | tuple[int, int] | None:
    """A side, or width and height as WxH. Raises UsageError for anything else."""
    from atelier.core.errors import UsageError

    sides = [] if words is None else words.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise UsageError(f"size = '{words}' is not a size: give a side (512) or width x height (640x480)")
    return None if not sides else int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _write(
    make: Callable[[Watch], Picture],
    target: Path,
    *,
    bits: int | None,
    overwrite: bool,
    as_json: bool,
    metadata: bool = True,
) -> None:
    """Make a picture, write it, and say so."""
    from atelier.apps.show import Clock, watching
    from atelier.images import check_writable, write

    check_writable(target, overwrite=overwrite, bits=bits)
    clock = Clock()
    with watching(quiet=as_json) as watch:
        picture = make(watch)
        write(picture, target, overwrite=overwrite, bits=bits, metadata=metadata)
    _finished(picture, target, clock.seconds, watch, as_json)


def _finished(picture: Picture, target: Path, seconds: float, watch: Watch, as_json: bool) -> None:
    """Say what was written; exit with 130 when it was stopped early."""
    from atelier.apps.show import emit, say

    width, height = picture.size
    last = watch.last
    if as_json:
        facts = {"output": str(target), "width": width, "height": height, "seconds": seconds}
        losses = dict(last.losses) if last else {}
        emit({**facts, "interrupted": watch.interrupted, "losses": losses, "recipe": picture.recipe})
    elif watch.interrupted and last:
        say(f"stopped: the best picture so far ({last.done} of {last.total} steps) is in {target}")
    else:
        say(f"{target}  {width} x {height}  {seconds:.1f} s")
    if watch.interrupted:
        raise typer.Exit(INTERRUPTED)


def replay(
    made: arguments.Made,
    output: arguments.Output = None,
    content: arguments.MovedContent = None,
    style: arguments.MovedStyles = None,
    mask: arguments.MovedMask = None,
    region: arguments.MovedRegions = None,
    max_pixels: arguments.MaxPixels = None,
    bits: arguments.Bits = None,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
) -> None:
    """Make a picture again from the recipe inside it: the same pixels on the same machine."""
    from atelier import api
    from atelier.apps.show import say
    from atelier.core import recipe as recipes
    from atelier.images import read_recipe

    recipe = recipes.parse(read_recipe(made), str(made))
    if different := recipes.changes(recipe, recipes.versions()):
        say(f"note: pixels may differ, because versions have changed: {', '.join(different)}")
    _write(
        lambda watch: api.replay(
            made,
            content=content,
            style=style or None,
            mask=mask,
            regions=region,
            max_pixels=max_pixels,
            progress=watch,
        ),
        output or made.with_name(f"{made.stem}-replay{made.suffix}"),
        bits=bits,
        overwrite=overwrite,
        as_json=as_json,
    )


def methods(
    name: arguments.Listed = None,
    as_json: arguments.Json = False,
) -> None:
    """List the methods, or one method's knobs."""
    from atelier.apps import catalogue
    from atelier.methods import registry

    chosen = [registry.find(name)] if name else list(registry.list_methods().values())
    if as_json:
        typer.echo(catalogue.as_json(chosen))
    elif name:
        typer.echo(catalogue.one(chosen[0]))
    else:
        typer.echo(catalogue.many(chosen))


def doctor(as_json: arguments.Json = False) -> None:
    """Tell what this machine has: versions, device, measured speed, memory, weights."""
    from atelier.apps import doctor as clinic
    from atelier.apps.show import emit

    facts = clinic.examine()
    if as_json:
        emit(facts)
    else:
        typer.echo(clinic.report(facts))


def examples(
    folder: arguments.Folder,
    size: arguments.Side = 640,
    overwrite: arguments.Overwrite = False,
) -> None:
    """Write the bundled example photos and drawn styles into a folder."""
    from atelier import examples as bundled

    for path in bundled.write(folder, size=size, overwrite=overwrite):
        typer.echo(path)


def demo(
    folder: arguments.DemoFolder = Path("out/demo"),
    quality: arguments.Quality = "good",
) -> None:
    """Make four pictures from the bundled examples and a contact sheet of them."""
    from atelier.apps import demo as show

    sheet, whole = show.run(folder, quality)
    typer.echo(sheet)
    if not whole:
        raise typer.Exit(INTERRUPTED)


def save_style(
    painting: arguments.Painting,
    output: arguments.StyleOutput,
    method: arguments.MethodName = None,
    overwrite: arguments.Overwrite = False,
    **settings: Any,
) -> None:
    """Keep a painting, and what a method sees in it, in a file that --style takes."""
    from atelier import api
    from atelier.apps.flags import given
    from atelier.apps.show import say

    api.save_style(painting, output, method=method, overwrite=overwrite, **given(settings))
    say(f"{output}  {output.stat().st_size / 2**20:.1f} MiB")


def train_encoder(
    out: arguments.RunFolder = None,
    fresh: arguments.Fresh = False,
    threads: arguments.Threads = None,
    **settings: Any,
) -> None:
    """Train the bundled encoder; goes on from the last checkpoint in the folder."""
    from atelier.apps.flags import given
    from atelier.apps.training import accelerated, run
    from atelier.core.knobs import parse

    accelerated()
    from atelier.training.encoder import EncoderTask
    from atelier.training.settings import EncoderSettings

    chosen = parse(EncoderSettings, given(settings), what="setting")
    folder = out or Path("runs/encoder")
    if run(EncoderTask(chosen), chosen, folder, fresh=fresh, threads=threads).interrupted:
        raise typer.Exit(INTERRUPTED)


def train_method(
    out: arguments.RunFolder = None,
    fresh: arguments.Fresh = False,
    threads: arguments.Threads = None,
    **settings: Any,
) -> None:
    """Train a method's networks; goes on from the last checkpoint in the folder."""
    from atelier.apps.flags import given
    from atelier.apps.training import accelerated, run
    from atelier.core.knobs import parse

    accelerated()
    from atelier.training.settings import settings_of
    from atelier.training.task import MethodTask

    kind = settings.pop("method")
    chosen = parse(settings_of(kind), given(settings), what="setting")
    folder = out or Path("runs") / kind.name
    if run(MethodTask(kind, chosen), chosen, folder, fresh=fresh, threads=threads).interrupted:
        raise typer.Exit(INTERRUPTED)


def application(args: Sequence[str]) -> typer.Typer:
    """All commands. `stylize` and the trainers get their declared flags when `args` ask for them.

    Reading every method and trainer for each `atelier --help` would make it slow.
    """
    from atelier.apps.flags import with_parameters

    words = [word for word in args if not word.startswith("-")]
    app = _typer("atelier", "Image style transfer: every technique behind one command.")
    app.callback(invoke_without_command=True)(_root)
    painting = _painting_flags(args) if words[:1] == ["stylize"] else []
    app.command(cls=Command)(with_parameters(stylize, painting))
    making = _painting_flags(["--method", *words[1:2]], generates=True) if words[:1] == ["generate"] else []
    app.command(cls=Command)(with_parameters(generate, making))
    others: tuple[Callable[..., None], ...] = (replay, methods, examples, demo, doctor)
    for function in others:
        app.command(cls=Command)(function)
    shelf = _typer("weights", "Pretrained weights: see, fetch, add and check them.")
    for name, function in SHELF.items():
        shelf.command(name, cls=Command)(function)
    styles = _typer("style", "Styles to use again.")
    flags = _painting_flags(args) if words[:2] == ["style", "save"] else []
    styles.command("save", cls=Command)(with_parameters(save_style, flags))
    app.add_typer(shelf)
    app.add_typer(styles)
    app.add_typer(_trainers(words))
    return app


def _trainers(words: Sequence[str]) -> typer.Typer:
    """A command for the encoder and one for each method with a network of its own."""
    from atelier.apps.flags import with_parameters
    from atelier.methods import registry

    trainers = _typer("train", "Train networks on your own pictures.")
    asked = words[1:2] if words[:1] == ["train"] else None
    flags = _training_flags(None) if asked == ["encoder"] else []
    trainers.command("encoder", cls=Command)(with_parameters(train_encoder, flags))
    if asked is None:
        return trainers
    for kind in registry.list_methods().values():
        if kind.Training is not None:
            name = kind.name.replace("_", "-")
            flags = _training_flags(kind) if asked == [name] else []
            command = with_parameters(train_method, flags, method=kind)
            command.__doc__ = f"Train the network of {kind.name}; goes on from the last checkpoint."
            trainers.command(name, cls=Command)(command)
    return trainers


def _typer(name: str, sentence: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        cls=Group,
        help=sentence,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def _painting_flags(args: Sequence[str], *, generates: bool = False) -> list[Parameter]:
    from atelier.api import Controls, by_quality
    from atelier.apps.flags import parameters
    from atelier.methods import registry

    quality = _value(args, "--quality", "-q") or "good"
    kind = registry.find(_value(args, "--method", "-m") or by_quality(quality))
    skip = GENERATED if generates else ()
    return [*parameters(Controls, "Controls", skip), *parameters(kind.Knobs, f"Knobs of {kind.name}")]


#: Controls that have no meaning without a photo; the size is a flag of its own.
GENERATED = ("size", "strength", "colour", "feather")


def _training_flags(kind: type[Method] | None) -> list[Parameter]:
    """The settings of the encoder's training, or of a method's."""
    from atelier.apps.flags import parameters

    if kind is None:
        from atelier.training.settings import EncoderSettings

        return parameters(EncoderSettings, "Training")
    from atelier.training.settings import settings_of

    return parameters(settings_of(kind), "Training")


def _value(args: Sequence[str], *names: str) -> str | None:
    """The last value given to a flag, as `--flag VALUE`, `--flag=VALUE` or `-fVALUE`."""
    found = None
    for position, word in enumerate(args):
        if word in names and position + 1 < len(args):
            found = args[position + 1]
        elif "=" in word and word.split("=", 1)[0] in names:
            found = word.split("=", 1)[1]
        elif word[:2] in names and len(word) > 2:
            found = word[2:]
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `atelier.core.errors` for the codes."""
    given = list(sys.argv[1:] if args is None else args)
    words = [word for word in given if word != "--debug"]
    command: Any = None
    if args is None:  # a process of its own
        keep_freed_memory()
        if words == given and not sys.warnoptions:
            warnings.simplefilter("ignore")  # what libraries tell programmers helps nobody at the terminal
    try:
        command = typer.main.get_command(application(words))
        # Not `command(words)`: typer would answer Ctrl-C and a closed pipe itself, without a sentence.
        with command.make_context("atelier", words) as context:
            command.invoke(context)
    except typer.Exit as error:
        return error.exit_code
    except BaseException as error:  # the last place where it can become a sentence
        asked = Asked.of(command, words)
        code = failed(error, asked, debug=words != given, as_json="--json" in words)
        if isinstance(error, BrokenPipeError):
            _deafen()
        return code
    return 0


def _deafen() -> None:
    """Nobody reads the output stream any more: without this, Python complains when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
