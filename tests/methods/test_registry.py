"""The registry: each file in a folder is a method, and a broken file is one clear error."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.core.errors import AtelierError, UsageError
from atelier.methods import registry

HALF = """
from atelier.core.knobs import Knobs, knob
from atelier.methods.base import Job, Method, Paper


class Half(Method):
    \"\"\"Mix the photo with the mean colour
    of the painting.

    More words that lists do not show.
    \"\"\"

    name = "half"
    paper = Paper("Nobody", 2024, "Halves", "https://example.org")

    class Knobs(Knobs):
        share: float = knob(0.5, "Share of the painting.", ge=0, le=1)

    qualities = {"draft": {"share": 0.25}, "good": {}, "best": {"share": 0.75}}

    def transfer(self, job, knobs):
        mean = job.styles[0].mean((2, 3), keepdim=True)
        picture = (1 - knobs.share) * job.content + knobs.share * mean
        for done in (1, 2):
            if not job.progress.report(done, 2, preview=lambda: picture):
                break
        return picture
"""

Add = Callable[[str, str], Path]
Floats = npt.NDArray[np.float32]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Writes a method file into a folder that the registry looks into."""
    folder = tmp_path / "home.made"
    folder.mkdir()
    monkeypatch.setenv("ATELIER_METHODS", str(folder))

    def write(name: str, code: str) -> Path:
        path = folder / name
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        registry.list_methods.cache_clear()
        return path

    registry.list_methods.cache_clear()
    yield write
    registry.list_methods.cache_clear()


def test_package_methods_are_listed() -> None:
    assert "gatys" in registry.list_methods()
    assert list(registry.list_methods()) == sorted(registry.list_methods())
    assert registry.find("gatys").family() == "optimise"


def test_a_dropped_file_is_listed(add: Add) -> None:
    add("half.py", HALF)
    half = registry.list_methods()["half"]
    assert half.family() == "home_made"
    assert half.summary() == "Mix the photo with the mean colour of the painting."
    assert atelier.list_methods()["half"] is half


def test_a_dropped_file_runs(add: Add, photo: Floats, painting: Floats) -> None:
    add("half.py", HALF)
    made = atelier.stylize(photo, painting, method="half", share=0.3, device="cpu")
    # The photo is smaller than the quality's size, so only the painting is resized.
    inside = (made.pixels - 0.7 * photo) / 0.3
    assert np.ptp(inside.reshape(-1, 3), axis=0).max() < 1e-5
    assert np.abs(inside[0, 0] - painting.mean((0, 1))).max() < 0.02
    assert made.recipe is not None
    assert made.recipe["knobs"] == {"share": 0.3}


def test_its_qualities_set_its_knobs(add: Add, photo: Floats, painting: Floats) -> None:
    add("half.py", HALF)
    for quality, share in (("draft", 0.25), ("good", 0.5), ("best", 0.75)):
        made = atelier.stylize(photo, painting, method="half", quality=quality)
        assert made.recipe is not None
        assert made.recipe["knobs"] == {"share": share}
    chosen = atelier.stylize(photo, painting, method="half", quality="best", share=0.1).recipe
    assert chosen is not None
    assert chosen["knobs"] == {"share": 0.1}


def test_shared_controls_work_for_it(add: Add, photo: Floats, painting: Floats) -> None:
    add("half.py", HALF)
    full = atelier.stylize(photo, painting, method="half").pixels
    weak = atelier.stylize(photo, painting, method="half", strength=0.25).pixels
    assert np.allclose(weak, photo + 0.25 * (full - photo), atol=1e-6)
    other = atelier.stylize(photo, 1 - painting, method="half").pixels
    both = atelier.stylize(photo, [painting, 1 - painting], method="half", style_weights=(1, 3)).pixels
    assert np.allclose(both, 0.25 * full + 0.75 * other, atol=1e-6)


def test_progress_counts_on_over_several_styles(add: Add, photo: Floats, painting: Floats) -> None:
    add("half.py", HALF)
    seen: list[tuple[int, int]] = []
    atelier.stylize(
        photo, [painting] * 3, method="half", progress=lambda event: seen.append((event.done, event.total))
    )
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_duplicate_name_is_an_error(add: Add) -> None:
    add("half.py", HALF)
    add("other.py", HALF)
    with pytest.raises(AtelierError, match=r"two methods are called 'half': .*half and .*other; rename one"):
        registry.list_methods()


def test_a_package_name_cannot_be_reused(add: Add) -> None:
    add("half.py", HALF.replace('"half"', '"gatys"'))
    with pytest.raises(
        AtelierError, match=r"two methods are called 'gatys': atelier\.methods\.optimise\.gatys"
    ):
        registry.list_methods()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def broken(:", "SyntaxError: "),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    ],
)
def test_a_broken_file_is_an_error(add: Add, code: str, reason: str) -> None:
    path = add("broken.py", code)
    with pytest.raises(AtelierError) as caught:
        registry.list_methods()
    assert str(caught.value).startswith(f"the method file {path} cannot be loaded: {reason}")
    assert "\n" not in str(caught.value)
    assert not [name for name in sys.modules if name.endswith(".broken")]


@pytest.mark.parametrize("needed", ["name", "paper"])
def test_a_method_without_required_attributes_is_an_error(add: Add, needed: str) -> None:
    add("half.py", HALF.replace(f"    {needed} =", f"    {needed}_of_old ="))
    with pytest.raises(AtelierError, match=rf"the method Half in .*half\.py has no '{needed}'"):
        registry.list_methods()


def test_base_classes_and_imports_are_not_methods(add: Add) -> None:
    add("_shared.py", "raise RuntimeError('not a method file')")
    add("half.py", HALF.replace("class Half", "class _Base(Method):\n    pass\n\n\nclass Half"))
    add("notes.txt", "not Python")
    assert set(registry.list_methods()) - {"half"} == _packaged()


def _packaged() -> set[str]:
    return {
        name
        for name, kind in registry.list_methods().items()
        if kind.__module__.startswith("atelier.methods.")
    }


def test_a_missing_folder_is_an_error(monkeypatch: pytest.MonkeyPatch, add: Add, tmp_path: Path) -> None:
    monkeypatch.setenv("ATELIER_METHODS", str(tmp_path / "gone"))
    with pytest.raises(AtelierError, match=r"ATELIER_METHODS names '.*gone', which is not a folder"):
        registry.list_methods()


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match="there is no method 'gatis': did you mean 'gatys'"):
        registry.find("gatis")
    with pytest.raises(UsageError, match="gatys has no quality 'god': did you mean 'good'"):
        registry.knobs_for(registry.find("gatys"), "god", {})


def test_listing_loads_no_torch(add: Add) -> None:
    add("half.py", HALF)
    code = (
        "import sys; from atelier.methods.registry import list_methods; "
        "schemas = [kind.Knobs.model_json_schema() for kind in list_methods().values()]; "
        "assert {'half', 'gatys'} <= set(list_methods()); "
        "heavy = {'torch', 'scipy', 'cv2', 'skimage', 'accelerate'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
