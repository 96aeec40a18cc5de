"""Commands that train: the encoder, the model of words, and each method with a network of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry, Flags
from atelier.apps.failures import INTERRUPTED

if TYPE_CHECKING:
    from atelier.methods.base import Method


def encoder(
    out: arguments.RunFolder = None,
    fresh: arguments.Fresh = False,
    threads: arguments.Threads = None,
    **settings: Any,
) -> None:
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


def _encoder_flags(words: Sequence[str]) -> Flags:
    from atelier.apps.flags import parameters
    from atelier.training.settings import EncoderSettings

    return Flags(parameters(EncoderSettings, "Training"))


def words(
    out: arguments.RunFolder = None,
    threads: arguments.Threads = None,
    **settings: Any,
) -> None:
    from atelier.apps.flags import given
    from atelier.apps.training import fit_words
    from atelier.core.knobs import parse
    from atelier.training.settings import WordsSettings

    chosen = parse(WordsSettings, given(settings), what="setting")
    if fit_words(chosen, out or Path("runs/words"), threads=threads).interrupted:
        raise typer.Exit(INTERRUPTED)


def _words_flags(line: Sequence[str]) -> Flags:
    from atelier.apps.flags import parameters
    from atelier.training.settings import WordsSettings

    return Flags(parameters(WordsSettings, "Training"))


def _of(kind: type[Method]) -> Entry:
    """The command that trains a method's network."""

    def method(
        out: arguments.RunFolder = None,
        fresh: arguments.Fresh = False,
        threads: arguments.Threads = None,
        **settings: Any,
    ) -> None:
        from atelier.apps.flags import given
        from atelier.apps.training import accelerated, run
        from atelier.core.knobs import parse

        accelerated()
        from atelier.training.settings import settings_of
        from atelier.training.task import MethodTask

        chosen = parse(settings_of(kind), given(settings), what="setting")
        folder = out or Path("runs") / kind.name
        if run(MethodTask(kind, chosen), chosen, folder, fresh=fresh, threads=threads).interrupted:
            raise typer.Exit(INTERRUPTED)

    def flags(words: Sequence[str]) -> Flags:
        from atelier.apps.flags import parameters
        from atelier.training.settings import settings_of

        return Flags(parameters(settings_of(kind), "Training"))

    sentence = f"Train the networks of {kind.name}; resumes from the last checkpoint in the folder."
    return Entry(kind.name.replace("_", "-"), sentence, method, flags)


def commands(line: Sequence[str]) -> list[Entry]:
    """The commands of the encoder and the words, and those of methods where the line asks for training."""
    sentence = "Train the bundled encoder; resumes from the last checkpoint in the folder."
    fitted = "Fit the words of --text to your own paintings and an index of them."
    entries = [
        Entry("encoder", sentence, encoder, _encoder_flags),
        Entry("words", fitted, words, _words_flags),
    ]
    if line[:1] == ["train"]:
        from atelier.methods import registry

        entries += [_of(kind) for kind in registry.list_methods().values() if kind.Training is not None]
    return entries
