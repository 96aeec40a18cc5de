"""Commands of a human study: serve its page, and score its votes."""

from __future__ import annotations

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry


def serve(
    folder: arguments.GridFolder,
    question: arguments.Questions = None,
    trials: arguments.Trials = 40,
    host: arguments.Host = "127.0.0.1",
    port: arguments.Port = 8733,
) -> None:
    from atelier.apps import study
    from atelier.apps.show import say

    for line in study.serve(folder, question or ["overall"], trials, host, port):
        say(line)


def score(
    folder: arguments.GridFolder,
    as_json: arguments.Json = False,
) -> None:
    from atelier.apps import study
    from atelier.apps.show import emit

    found = study.scores(folder)
    if as_json:
        emit(study.facts(found))
    else:
        typer.echo(study.told(found))


COMMANDS = (
    Entry("serve", "Serve the page of a study on a grid: `atelier study FOLDER` for short.", serve),
    Entry("score", "Score the votes: Bradley-Terry strengths with 95% intervals.", score),
)
#: What `atelier study WORD` means where WORD is no command.
USUAL = "serve"
