"""The `atelier` command. Flags come from declarations; errors leave one sentence and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from atelier import __version__
from atelier.core.errors import AtelierError, InputError, OutputError, ResourceError

INTERRUPTED = 130
Json = Annotated[bool, typer.Option("--json", help="One JSON object on the output stream, for scripts.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]

app = typer.Typer(
    name="atelier",
    help="Image style transfer: every technique behind one command.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="Pretrained weights: see, fetch, add and check them.", no_args_is_help=True)
train_app = typer.Typer(help="Train networks on your own pictures.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(train_app, name="train")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error too.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def stylize(
    photo: Annotated[Path, typer.Argument(help="The picture to paint anew.", show_default=False)],
    style: Annotated[
        list[Path] | None,
        typer.Option("--style", "-s", help="The painting whose style it gets; repeat for several.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write: .png, .jpg, .tif or .webp. [PHOTO-STYLE.png]"),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="See 'atelier methods'.")] = "gatys",
    quality: Annotated[str, typer.Option("--quality", "-q", help="draft, good, best, or one of the method's own.")] = "good",
    mask: Annotated[Path | None, typer.Option("--mask", help="Style only where this picture is white.")] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="8 or 16 bits a channel (PNG and TIFF).")] = None,
    max_pixels: Annotated[int | None, typer.Option("--max-pixels", help="Largest picture to decode, in pixels.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Paint a photo in the style of a painting."""
    from atelier import api
    from atelier.apps.flags import given
    from atelier.apps.show import Clock, watching
    from atelier.images import check_writable, write

    styles = style or []
    target = output or Path(f"{photo.stem}-{styles[0].stem if styles else method}.png")
    check_writable(target, overwrite=overwrite)
    clock = Clock()
    with watching(quiet=as_json) as watch:
        picture = api.stylize(
            *(_opened(photo, max_pixels), [_opened(one, max_pixels) for one in styles]),
            method=method,
            quality=quality,
            mask=mask,
            progress=watch,
            **given(settings),
        )
        write(picture, target, overwrite=overwrite, bits=bits)
    _finished(picture, target, clock.seconds, watch, as_json)


def _opened(path: Path, max_pixels: int | None) -> Any:
    from atelier.images import MAX_PIXELS, Picture

    return Picture.open(path, max_pixels=max_pixels or MAX_PIXELS)


def _finished(picture: Any, target: Path, seconds: float, watch: Any, as_json: bool) -> None:
    """Say what was written; exit with 130 when it was stopped early."""
    from atelier.apps.show import emit, say

    width, height = picture.size
    if as_json:
        facts = {"output": str(target), "width": width, "height": height, "seconds": seconds}
        losses = dict(watch.last.losses) if watch.last else {}
        emit({**facts, "interrupted": watch.interrupted, "losses": losses, "recipe": picture.recipe})
    elif watch.interrupted:
        say(f"stopped: the best picture so far ({watch.last.done} of {watch.last.total} steps) is in {target}")
    else:
        say(f"{target}  {width} x {height}  {seconds:.1f} s")
    if watch.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def replay(
    made: Annotated[Path, typer.Argument(help="A picture that atelier wrote.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write. [MADE-replay.png]")] = None,
    content: Annotated[Path | None, typer.Option("--content", help="The photo, where it has moved.")] = None,
    style: Annotated[list[Path] | None, typer.Option("--style", "-s", help="The styles, where they have moved.")] = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="The mask, where it has moved.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a picture again from the recipe inside it: the same pixels on the same machine."""
    from atelier import api
    from atelier.apps.show import Clock, say, watching
    from atelier.core import recipe as recipes
    from atelier.images import check_writable, read_recipe, write

    recipe = recipes.parse(read_recipe(made), str(made))
    target = output or made.with_name(f"{made.stem}-replay{made.suffix}")
    check_writable(target, overwrite=overwrite)
    if different := recipes.changes(recipe, recipes.versions()):
        say(f"note: pixels may differ, for since then changed: {', '.join(different)}")
    clock = Clock()
    with watching(quiet=as_json) as watch:
        picture = api.replay(made, content=content, style=style or None, mask=mask, progress=watch)
        write(picture, target, overwrite=overwrite)
    _finished(picture, target, clock.seconds, watch, as_json)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with all its knobs.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or one method's knobs."""
    from atelier.apps import catalogue
    from atelier.core import registry

    chosen = [registry.find(name)] if name else list(registry.methods().values())
    if as_json:
        typer.echo(catalogue.as_json(chosen))
    elif name:
        typer.echo(catalogue.one(chosen[0]))
    else:
        typer.echo(catalogue.many(chosen))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has: versions, device, measured speed, memory, weights."""
    from atelier.apps import doctor as clinic
    from atelier.apps.show import emit

    facts = clinic.examine()
    if as_json:
        emit(facts)
    else:
        typer.echo(clinic.report(facts))


@app.command()
def examples(
    folder: Annotated[Path, typer.Argument(help="Where to put them; made if it is not there.")],
    size: Annotated[int, typer.Option("--size", help="Long side of the drawn styles in pixels.", min=64, max=4096)] = 640,
    overwrite: Overwrite = False,
) -> None:
    """Write the bundled example photos and drawn styles into a folder."""
    from atelier import examples as bundled

    for path in bundled.write(folder, size=size, overwrite=overwrite):
        typer.echo(path)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the pictures.")] = Path("out/demo"),
    quality: Annotated[str, typer.Option("--quality", "-q", help="draft, good or best.")] = "draft",
) -> None:
    """Make four pictures from the bundled examples and a contact sheet of them."""
    from atelier.apps import demo as show

    typer.echo(show.run(folder, quality))


@weights_app.command("list")
def weights_list(as_json: Json = False) -> None:
    """Every known weights file: where it comes from and whether it is here."""
    from atelier.apps import catalogue

    typer.echo(catalogue.weights_as_json() if as_json else catalogue.weights_table())


@weights_app.command()
def pull(name: Annotated[str, typer.Argument(help="A name from 'atelier weights list'.")]) -> None:
    """Fetch published weights, check their hash and keep them as safetensors."""
    from atelier.apps.show import downloading
    from atelier.core import weights

    with downloading(name) as progress:
        path = weights.pull(name, progress)
    typer.echo(path)


@weights_app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name from 'atelier weights list'.")],
    file: Annotated[Path, typer.Argument(help="The file that you brought.")],
    force: Annotated[bool, typer.Option("--force", help="Take it although its hash is another.")] = False,
) -> None:
    """Install a weights file that you fetched yourself."""
    from atelier.core import weights

    typer.echo(weights.add(name, file, force=force))


@weights_app.command()
def verify(name: Annotated[str | None, typer.Argument(help="One name, or all.")] = None) -> None:
    """Hash the installed weights anew and say which are damaged."""
    from atelier.core import weights
    from atelier.core.errors import WeightsError

    found = weights.verify(name)
    for known, state in found:
        typer.echo(f"{state:8} {known}")
    damaged = [known for known, state in found if state == "damaged"]
    if damaged:
        raise WeightsError(f"damaged: {', '.join(damaged)}; fetch them again with 'atelier weights pull NAME'")


@weights_app.command("path")
def weights_path(name: Annotated[str, typer.Argument(help="A name from 'atelier weights list'.")]) -> None:
    """Print where the weights lie or would lie."""
    from atelier.core import weights

    typer.echo(weights.where(name))


def train_encoder(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run: checkpoints, log, the encoder.")] = Path("runs/encoder"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew although the folder holds checkpoints.")] = False,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.")] = None,
    **settings: Any,
) -> None:
    """Train the bundled encoder; goes on from the last checkpoint in the folder."""
    from atelier.apps.flags import given
    from atelier.apps.training import run
    from atelier.core.knobs import parse
    from atelier.training.encoder import EncoderSettings, EncoderTask

    chosen = parse(EncoderSettings, given(settings), what="setting")
    if run(EncoderTask(chosen), chosen, out, fresh=fresh, threads=threads).interrupted:
        raise typer.Exit(INTERRUPTED)


def _complete(args: Sequence[str]) -> None:
    """Give the commands whose flags are declared elsewhere their flags, when they are asked for.

    Reading every method and trainer for each `atelier --help` would make it slow.
    """
    from inspect import Parameter

    from atelier.apps.flags import parameters, with_parameters

    words = [word for word in args if not word.startswith("-")]
    more: list[Parameter] = []
    if words[:1] == ["stylize"]:
        from atelier.api import Controls
        from atelier.core import registry

        kind = registry.find(_value(args, "--method", "-m") or "gatys")
        more = [*parameters(Controls, "Controls"), *parameters(kind.Knobs, f"Knobs of {kind.name}")]
    app.command(rich_help_panel=None)(with_parameters(stylize, more))
    more = []
    if words[:2] == ["train", "encoder"]:
        from atelier.training.encoder import EncoderSettings

        more = parameters(EncoderSettings, "Training")
    train_app.command("encoder")(with_parameters(train_encoder, more))


def _value(args: Sequence[str], *names: str) -> str | None:
    """The last value given to a flag, as `--flag VALUE` or `--flag=VALUE`."""
    found = None
    for position, word in enumerate(args):
        if word in names and position + 1 < len(args):
            found = args[position + 1]
        elif "=" in word and word.split("=", 1)[0] in names:
            found = word.split("=", 1)[1]
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `atelier.core.errors` for the codes."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        _complete(args)
        result = typer.main.get_command(app)(args, prog_name="atelier", standalone_mode=False)
    except BaseException as error:  # the last place where it can become a sentence
        return _failed(error, args)
    return result if isinstance(result, int) else 0


def _failed(error: BaseException, args: Sequence[str]) -> int:
    """One sentence on the error stream (JSON where that was asked for) and the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    sentence, code = _explained(error)
    if "--debug" in args or (code == 1 and not isinstance(error, AtelierError)):
        traceback.print_exception(error)
    if "--json" in args:
        from atelier.apps.show import emit

        emit({"error": sentence, "exit_code": code})
    if sentence:
        sys.stderr.write(f"atelier: {sentence}\n")
    return code


def _explained(error: BaseException) -> tuple[str, int]:
    """An error's sentence and exit code."""
    if isinstance(error, AtelierError):
        return str(error), error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return _plain(error.format_message()), int(error.exit_code)
    if type(error).__name__ == "Exit":
        return "", int(getattr(error, "exit_code", 0))
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "stopped; nothing was written", INTERRUPTED
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return "the memory is not enough for this: use a smaller --size", ResourceError.exit_code
    if isinstance(error, BrokenPipeError):
        return "", OutputError.exit_code
    if isinstance(error, FileNotFoundError):
        return f"the file {error.filename} is not there", InputError.exit_code
    return f"an error that should not happen: {type(error).__name__}: {error}; please report it", 1


def _plain(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
