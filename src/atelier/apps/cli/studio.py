"""The command that serves the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry


def studio(
    host: arguments.Host = "127.0.0.1",
    port: arguments.Port = 7860,
    folder: arguments.StudioFolder = None,
    weights: arguments.OwnWeights = None,
    token: arguments.Token = None,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="The page, or the HTTP interface alone.")
    ] = True,
) -> None:
    from atelier.apps.show import say
    from atelier.core.errors import ResourceError
    from atelier.core.extras import is_installed
    from atelier.studio.page.opening import Opening
    from atelier.studio.serving import serve

    if page and not is_installed("gradio"):
        missing = "the studio's page needs the package gradio, which is not installed"
        raise ResourceError(f"{missing}: pip install 'atelier[studio]'")
    made = Opening if page else None
    for line in serve(folder or _usual(), host=host, port=port, weights=weights, token=token, page=made):
        say(line)


def _usual() -> Path:
    import platformdirs

    return Path(platformdirs.user_pictures_dir()) / "atelier"


COMMANDS = (Entry("studio", "Open the studio: a page, and an HTTP interface.", studio),)
