"""Sphinx: the pages, and the tables that are made from the code's own declarations."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import generate

import atelier

project, author, release = "atelier", "the atelier authors", atelier.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
# What is made is included by pages and is none itself.
exclude_patterns = ["_build", "_generated"]
default_role = "code"  # docstrings write code in single backticks
html_theme = "furo"
html_title = "atelier"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
myst_heading_anchors = 2

generate.write(Path(__file__).parent / "_generated")
