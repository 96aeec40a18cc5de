"""The generated tables leave nothing out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from atelier.api import Controls
from atelier.apps.catalogue import takes
from atelier.apps.flags import flag
from atelier.core import errors
from atelier.methods import registry
from atelier.metrics import METRICS
from atelier.store import records
from atelier.training.settings import EncoderSettings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.pages())


def test_every_method_and_knob_is_there(pages: dict[str, str]) -> None:
    for name, kind in registry.list_methods().items():
        assert f"## {name}\n" in pages["methods.md"]
        assert kind.paper.url in pages["methods.md"]
        assert f"Takes: {takes(kind)}\n" in pages["methods.md"]
        for knob in kind.Knobs.model_fields:
            assert f"`{flag(knob)}`" in pages["methods.md"]


def test_every_control_setting_and_weight_is_there(pages: dict[str, str]) -> None:
    assert all(f"`{flag(name)}`" in pages["controls.md"] for name in Controls.model_fields)
    assert all(f"`{flag(name)}`" in pages["training.md"] for name in EncoderSettings.model_fields)
    assert all(f"`{known.name}`" in pages["weights.md"] for known in records.records())
    assert all(f"| `{name}` |" in pages["metrics.md"] for name in METRICS)


def test_every_exit_code_is_told_once(pages: dict[str, str]) -> None:
    codes = {
        errors.AtelierError.exit_code,
        *(kind.exit_code for kind in errors.AtelierError.__subclasses__()),
    }
    rows = pages["errors.md"].splitlines()[2:]
    assert sorted(int(row.split("|")[1]) for row in rows) == sorted(codes)


def test_every_row_has_as_many_cells_as_its_head(pages: dict[str, str]) -> None:
    for text in pages.values():
        rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
        head = 0
        for line, following in zip(rows, [*rows[1:], ""], strict=True):
            head = line.count("|") if following.startswith("| ---") else head
            assert line.count("|") == head, line


def test_every_page_of_the_index_exists_and_includes_what_is_made(pages: dict[str, str]) -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    names = index.split("```{toctree}")[1].split("```")[0].split("\n")[3:]
    for name in filter(None, names):
        assert (DOCS / f"{name}.md").is_file(), name
    included = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    assert all(f"_generated/{name}" in included for name in pages)
