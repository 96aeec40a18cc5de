"""The `atelier` command, one file for each group of commands."""

from atelier.apps.cli.root import main

__all__ = ["main"]
