"""The way of the data: imports follow it, and no room grows a driver.

apps → studio/page → studio → bench, video, exports → api, lexicon → session, training → methods
     → strokes, looks, patches, networks, translators, pipelines, losses
     → features, filtering → colour → images → maths, store, core
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "atelier"
FILES = sorted(SOURCE.rglob("*.py"))

#: The rooms from the bottom up: a file imports its own room and those below, never one beside or above.
FLOORS = (
    ("core",),
    ("maths", "store"),
    ("images",),
    ("colour", "examples"),
    ("features", "filtering"),
    ("strokes", "looks", "patches", "networks", "translators", "pipelines", "losses"),
    ("methods", "metrics"),
    ("session", "training"),
    ("api", "lexicon"),
    ("bench", "video", "exports"),
    ("studio",),
    ("studio/page",),
    ("apps",),
    ("__main__",),
)
ALLOWED = {
    room: {below for lower in FLOORS[:floor] for below in lower}
    for floor, rooms in enumerate(FLOORS)
    for room in rooms
}

ids = [str(path.relative_to(SOURCE)) for path in FILES]
every_file = pytest.mark.parametrize("path", FILES, ids=ids)


#: A room within a room: large enough to be one of its own, and above the rest of the outer one.
INNER = {"studio/page"}


def room(path: Path) -> str:
    return room_of(path.relative_to(SOURCE).parts)


def room_of(parts: Sequence[str]) -> str:
    inner = "/".join(parts[:2])
    return inner if inner in INNER else parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Rooms of atelier that a file imports, anywhere in it; the package itself counts as `atelier`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "atelier":
            names = [f"atelier.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            names = [node.module or ""]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "atelier" and parts[1:2] != ["__version__"]:
                yield room_of(parts[1:]) if len(parts) > 1 else "atelier"


@every_file
def test_imports_follow_the_data(path: Path) -> None:
    if path == SOURCE / "__init__.py":
        return
    mine = room(path)
    assert mine in ALLOWED, f"the room {mine} is new: say here what it may import"
    wrong = {other for other in imported(ast.parse(path.read_text())) if other not in {mine, *ALLOWED[mine]}}
    assert not wrong, f"{mine} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import atelier.core.knobs as k", ["core"]),
        ("from atelier import features, losses", ["features", "losses"]),
        ("from atelier import __version__", []),
        ("def late():\n    from atelier.apps.cli import main", ["apps"]),
        ("from atelier.studio.page.parts import tab", ["studio/page"]),
        ("import torch", []),
    ],
)
def test_imports_are_seen(code: str, rooms: list[str]) -> None:
    assert list(imported(ast.parse(code))) == rooms


@every_file
def test_functions_and_files_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@every_file
def test_the_library_never_prints(path: Path) -> None:
    if room(path) == "apps":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}"


@every_file
def test_annotations_stay_text(path: Path) -> None:
    tree = ast.parse(path.read_text())
    code = [node for node in tree.body if not isinstance(node, ast.Expr)]
    bare = path.name in {"__init__.py", "__main__.py"}
    first = code[0] if code else None
    assert bare or (isinstance(first, ast.ImportFrom) and first.module == "__future__")


@pytest.mark.parametrize("path", [path for path in FILES if room(path) == "core"], ids=lambda path: path.name)
def test_core_loads_torch_late(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        module = node.module if isinstance(node, ast.ImportFrom) else None
        assert "torch" not in {name.split(".")[0] for name in [*names, module or ""]}


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_file_imports_in_a_circle() -> None:
    modules = {module_of(path): path for path in FILES}
    arrows = {name: set(files_imported(path, modules)) - {name} for name, path in modules.items()}
    while leaves := [name for name, others in arrows.items() if not others & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"these import one another, or are imported by files that do: {sorted(arrows)}"


def files_imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of atelier that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "atelier":
            continue
        package = (node.module or "").partition(".")[2]
        for alias in node.names:
            inner = f"{package}.{alias.name}".lstrip(".")
            if (found := inner if inner in modules else package) in modules and found:
                yield found


#: Methods are many small files by nature; any other room that grows beyond this holds two things.
LARGEST_ROOM = 4000


def holder(path: Path) -> str:
    """The room of a file; the studio's page is a room by itself, because nothing but the server knows it."""
    return "studio/page" if path.is_relative_to(SOURCE / "studio" / "page") else room(path)


@pytest.mark.parametrize("name", sorted({holder(path) for path in FILES} - {"methods"}))
def test_no_room_holds_too_much(name: str) -> None:
    lines = sum(len(path.read_text().splitlines()) for path in FILES if holder(path) == name)
    assert lines <= LARGEST_ROOM
