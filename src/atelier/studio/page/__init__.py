"""The studio's page: one page on 127.0.0.1 for those who never type a command, made with Gradio.

`mount(app, studio)` puts it at the root of the studio's FastAPI application. Everything that it shows comes
from the registry and from `Studio`; nothing comes from the network.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from atelier.core.privacy import keep_private

if TYPE_CHECKING:
    from fastapi import FastAPI

    from atelier.studio.service import Studio

__all__ = ["mount"]


def mount(app: FastAPI, studio: Studio) -> FastAPI:
    """Serve the page of `studio` at `/` of `app`."""
    keep_private()
    import gradio as gr

    from atelier.studio.page import inputs, parts, shell

    os.environ["GRADIO_TEMP_DIR"] = str(inputs.incoming(studio))
    shutil.rmtree(inputs.incoming(studio), ignore_errors=True)  # what an earlier page did not take in
    gr.mount_gradio_app(
        app,
        shell.build(studio),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=studio.limits.upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=shell.theme(),
        css=parts.style_sheet(),
        head=parts.scripts(),
    )
    return app
