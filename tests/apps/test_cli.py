"""The command as people use it: what it writes, says and returns."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atelier
from atelier.api import Controls
from atelier.apps.flags import flag
from atelier.images import Picture, read_recipe
from atelier.methods import registry
from atelier.methods.optimise.gatys import Gatys
from atelier.store import records

TINY = "--method gatys --encoder tiny.safetensors --size 32 --iterations 2 --device cpu --threads 1"
PAINT = f"stylize photo.png -s style.png -o out.png {TINY}"
COMMANDS = (
    *("stylize", "generate", "replay", "studio", "methods", "examples", "demo", "doctor"),
    *("weights", "style", "train"),
)

# A method that gets Ctrl-C at its first step and works on if nobody stops it.
HURRIED = '''
import os, signal
from atelier.core.knobs import Knobs, knob
from atelier.methods.base import Method, Paper

class Hurried(Method):
    """Is interrupted."""
    name = "hurried"
    paper = Paper("A", 2000, "B", "https://example.org")
    class Knobs(Knobs):
        presses: int = knob(1, "How often Ctrl-C is pressed.", ge=1)
    def transfer(self, job, knobs):
        for step in range(1, 6):
            if not job.progress.report(step, 5, stage="hurry"):
                break
            for _ in range(knobs.presses if step == 2 else 0):
                os.kill(os.getpid(), signal.SIGINT)
        return 1 - job.content
'''


@pytest.fixture
def hurried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "hurried.py").write_text(HURRIED)
    monkeypatch.setenv("ATELIER_METHODS", str(folder / "own"))


# stylize


def test_a_picture_with_its_recipe(run: Any, folder: Path) -> None:
    shown = run(PAINT)
    assert shown.code == 0
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith("out.png  32 x 23  ")
    recipe = read_recipe(folder / "out.png")
    assert recipe is not None
    assert recipe["method"] == "gatys"
    assert recipe["knobs"]["iterations"] == 2
    assert recipe["controls"]["size"] == 32
    assert recipe["content"]["name"] == "photo.png"
    assert list(recipe["weights"]) == ["tiny.safetensors"]


def test_the_name_comes_from_photo_and_style(run: Any, folder: Path) -> None:
    assert run(f"stylize photo.png -s style.png {TINY}").code == 0
    assert (folder / "photo-style.png").is_file()


def test_json_for_scripts(run: Any, folder: Path) -> None:
    shown = run(f"{PAINT} --json")
    assert shown.code == 0
    assert shown.out.count("\n") == 1
    facts = json.loads(shown.out)
    assert (facts["output"], facts["width"], facts["height"]) == ("out.png", 32, 23)
    assert facts["seconds"] >= 0
    assert facts["losses"].keys() == {"style", "content", "smoothness"}
    assert facts["interrupted"] is False
    assert facts["recipe"] == read_recipe(folder / "out.png")
    assert shown.err == ""


def test_json_of_a_failure(run: Any) -> None:
    shown = run(f"{PAINT} --strength 2 --json")
    assert shown.code == 2
    facts = json.loads(shown.out)
    assert facts["exit_code"] == 2
    assert shown.err == f"atelier: {facts['error']}\n"


def test_losses_of_every_50th_iteration(run: Any) -> None:
    lines = run(f"{PAINT} --iterations 110").err.splitlines()
    shown = [line.split()[0] for line in lines if " of 110 " in line]
    assert shown == ["1", "50", "100", "110"]
    assert all(" style " in line and " content " in line for line in lines if " of 110 " in line)


def test_all_controls_together(run: Any, folder: Path) -> None:
    mask = np.zeros((40, 56), np.uint8)
    mask[:, 28:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    line = f"{PAINT} -s photo.png --style-weights 3 --style-weights 1 --mask mask.png --feather 0"
    assert run(f"{line} --colour content --bits 16 --size 56 --seed 4").code == 0
    made, photo = Picture.open(folder / "out.png"), Picture.open(folder / "photo.png")
    np.testing.assert_array_equal(made.pixels[:, :28], photo.pixels[:, :28])
    assert np.abs(made.pixels[:, 28:] - photo.pixels[:, 28:]).max() > 0.01
    assert (folder / "out.png").read_bytes()[24] == 16
    recipe = read_recipe(folder / "out.png")
    assert recipe is not None
    assert recipe["controls"]["style_weights"] == [3.0, 1.0]
    assert [one["name"] for one in recipe["styles"]] == ["style.png", "photo.png"]


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("tif", "TIFF"), ("webp", "WEBP")])
def test_other_formats(run: Any, folder: Path, suffix: str, kind: str) -> None:
    assert run(f"stylize photo.png -s style.png -o out.{suffix} {TINY}").code == 0
    with Image.open(folder / f"out.{suffix}") as image:
        assert (image.format, image.size) == (kind, (32, 23))
    assert read_recipe(folder / f"out.{suffix}") is not None


@pytest.mark.parametrize("more", ["", " --no-metadata"])
def test_rights_of_the_photo_are_kept_unless_asked_otherwise(run: Any, folder: Path, more: str) -> None:
    exif = Image.Exif()
    exif[33432] = "(c) Ada"
    Image.open(folder / "photo.png").save(folder / "photo.png", exif=exif, dpi=(300, 300))
    assert run(PAINT + more).code == 0
    kept = Picture.open(folder / "out.png").metadata
    assert kept.source_type.endswith("/compositeWithTrainedAlgorithmicMedia")
    assert (kept.copyright, kept.dpi) == (("", None) if more else ("(c) Ada", (300.0, 300.0)))


def test_overwriting_when_asked(run: Any, folder: Path) -> None:
    (folder / "out.png").write_bytes(b"old")
    assert run(f"{PAINT} --overwrite").code == 0
    assert Picture.open(folder / "out.png").size == (32, 23)


def test_the_flags_of_another_method(run: Any, hurried: None) -> None:
    shown = run("stylize --help -mhurried")
    assert "Knobs of hurried:" in shown.out
    assert "--presses integer ≥1" in shown.out


# stopping


def test_ctrl_c_keeps_the_best_picture(run: Any, folder: Path, hurried: None) -> None:
    shown = run("stylize photo.png -s style.png -o out.png --method hurried")
    assert shown.code == 130
    assert shown.err.splitlines()[-1] == "stopped after step 3 of 5; the best picture so far is in out.png"
    photo, made = Picture.open(folder / "photo.png"), Picture.open(folder / "out.png")
    np.testing.assert_allclose(made.pixels, 1 - photo.pixels, atol=1 / 255)
    assert made.recipe is not None
    assert made.recipe["stopped_after"] == 3


def test_a_second_ctrl_c_ends_it_at_once(run: Any, folder: Path, hurried: None) -> None:
    shown = run("stylize photo.png -s style.png -o out.png --method hurried --presses 2")
    assert shown.code == 130
    assert shown.err.splitlines()[-1] == "atelier: stopped; nothing was written"
    assert not (folder / "out.png").exists()


def test_ctrl_c_at_the_terminal(folder: Path) -> None:
    command = [*(sys.executable, "-m", "atelier"), *f"{PAINT} --iterations 1000000".split()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_one_thread()) as started:
        try:
            assert started.stderr is not None
            first = started.stderr.readline()
            started.send_signal(signal.SIGINT)
            _, rest = started.communicate(timeout=120)
        finally:
            started.kill()
    assert " of 1000000 " in first
    assert started.returncode == 130
    assert rest.splitlines()[-1].startswith("stopped after step ")
    assert rest.endswith(" of 1000000; the best picture so far is in out.png\n")
    assert Picture.open(folder / "out.png").size == (32, 23)


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


# replay


def test_replay_gives_the_same_pixels(run: Any, folder: Path) -> None:
    assert run(f"{PAINT} --strength 0.6 --start noise --seed 5 --bits 16").code == 0
    assert run("replay out.png --bits 16").code == 0
    first, second = Picture.open(folder / "out.png"), Picture.open(folder / "out-replay.png")
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.recipe == second.recipe


def test_replay_with_inputs_that_have_moved(run: Any, folder: Path) -> None:
    assert run(PAINT).code == 0
    (folder / "photo.png").rename(folder / "moved.png")
    assert run("replay out.png -o again.png").code == 3
    assert run("replay out.png -o again.png --content moved.png").code == 0
    first, second = Picture.open(folder / "out.png"), Picture.open(folder / "again.png")
    np.testing.assert_array_equal(first.pixels, second.pixels)


def test_replay_tells_of_other_versions(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(PAINT).code == 0
    monkeypatch.setattr("atelier.core.recipe.versions", lambda: {"torch": "0.1"})
    shown = run("replay out.png")
    assert shown.code == 0
    assert shown.err.splitlines()[0].startswith("note: the pixels may differ")
    assert "→ 0.1" in shown.err


# lists


def test_methods_are_listed(run: Any, hurried: None) -> None:
    shown = run("methods")
    assert shown.code == 0
    names = [line.split()[0] for line in shown.out.splitlines()[1:] if line[0] != " "]
    assert names == list(registry.list_methods())
    assert {"gatys", "hurried"} < set(names)


def test_one_method_with_its_knobs(run: Any) -> None:
    shown = run("methods gatys")
    assert "Gatys, Ecker & Bethge (2016)" in shown.out
    for name in Gatys.Knobs.model_fields:
        assert flag(name) in shown.out


def test_methods_as_json(run: Any) -> None:
    (gatys,) = (one for one in json.loads(run("methods --json").out) if one["name"] == "gatys")
    assert gatys["knobs"]["type"] == "object"
    assert gatys["knobs"]["properties"].keys() == Gatys.Knobs.model_fields.keys()
    assert gatys["knobs"]["properties"]["step_size"]["maximum"] == 1
    assert gatys["qualities"]["draft"]["iterations"] > 0


def test_weights_are_listed(run: Any) -> None:
    rows = json.loads(run("weights list --json").out)
    assert {row["name"] for row in rows} == {record.name for record in records.records()}
    single = [row for row in rows if row["kind"] == "tensors"]
    assert all(row["path"].endswith(".safetensors") for row in single)
    table = run("weights list").out
    assert all(record.name in table for record in records.records())


def test_weights_are_added_and_verified(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(folder / "home"))
    path = run("weights path vgg19.imagenet").out.strip()
    assert path.startswith(str(folder / "home"))
    assert not Path(path).exists()
    assert run("weights verify vgg19.imagenet").out == "missing    vgg19.imagenet\n"
    added = run("weights add vgg19.imagenet tiny.safetensors --force")
    assert (added.code, added.out.strip()) == (0, path)
    assert Path(path).is_file()
    # It is not the published file, and is never said to be.
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert added.err == f"note: vgg19.imagenet is unverified: it matches no known hash; sha256 {sha256}\n"
    assert run("weights verify vgg19.imagenet").out == "unverified vgg19.imagenet\n"
    rows = {row["name"]: row for row in json.loads(run("weights list --json").out)}
    assert (rows["vgg19.imagenet"]["here"], rows["vgg19.imagenet"]["condition"]) == (True, "unverified")
    assert rows["encoder.atelier"]["condition"] == "verified"
    assert rows["wct.published"]["condition"] == "missing"
    assert run("weights verify encoder.atelier").out == "verified   encoder.atelier\n"


def test_doctor(run: Any) -> None:
    facts = json.loads(run("doctor --json").out)
    keys = {"versions", "device", "computes_in", "cores", "threads", "convolution_gflops", "memory_gib"}
    assert facts.keys() == keys | {"cache", "cache_writable", "weights"}
    assert facts["cache_writable"] is True
    assert facts["versions"]["atelier"] == atelier.__version__
    assert facts["convolution_gflops"]["float32"] > 0


def test_the_doctor_speaks(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atelier.apps.doctor.convolution_rate", lambda *_: 3e9)
    lines = run("doctor").out.splitlines()
    assert lines[0].startswith("versions     python ")
    assert "convolution  float32 3.0 GFLOP/s  bfloat16 3.0 GFLOP/s" in lines


def test_examples(run: Any, folder: Path) -> None:
    shown = run("examples new --size 64")
    written = sorted(path.relative_to(folder) for path in (folder / "new").rglob("*.png"))
    assert shown.code == 0
    assert sorted(map(Path, shown.out.split())) == written
    assert len([path for path in written if path.parent.name == "styles"]) >= 8
    assert Picture.open(folder / written[-1]).size == (64, 64)


def test_demo(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atelier.apps.demo.PAIRS", (("chelsea", "ink"), ("rocket", "woodcut")))
    monkeypatch.setattr("atelier.apps.demo.api.stylize", lambda photo, style, **_: photo.resized(64))
    shown = run("demo new")
    assert (shown.code, shown.out) == (0, "new/contact-sheet.jpg\n")
    made = sorted(path.name for path in (folder / "new").iterdir())
    assert made == ["chelsea-ink.png", "contact-sheet.jpg", "rocket-woodcut.png"]
    assert Picture.open(folder / "new" / "contact-sheet.jpg").size == (3 * 384 + 4 * 12, 2 * 384 + 3 * 12)


# the frame


def test_version_and_debug(run: Any) -> None:
    assert run("--version").out == f"{atelier.__version__}\n"
    shown = run(f"{PAINT} --strength 2 --debug")
    assert shown.code == 2
    assert "Traceback" in shown.err
    assert shown.err.splitlines()[-1].startswith("atelier: --strength 2 is not allowed")


def test_help_lists_the_commands_in_order(run: Any) -> None:
    shown = run("--help")
    assert shown.code == 0
    listed = [line.split()[0] for line in shown.out.splitlines() if line[:2] == "  " and line[2:3].isalpha()]
    assert [word for word in listed if word in COMMANDS] == list(COMMANDS)
    nothing = run("")
    assert (nothing.code, nothing.out.split()) == (2, shown.out.split())


@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_of_stylize_is_grouped_and_whole(
    run: Any, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = run("stylize --method gatys --help").out
    places = [text.index(f"\n{title}:\n") for title in ("Options", "Controls", "Knobs of gatys")]
    assert places == sorted(places)
    controls = text[places[1] : places[2]]
    assert all(f"  {flag(name)} " in controls for name in Controls.model_fields)
    assert all(f"  {flag(name)} " in text[places[2] :] for name in Gatys.Knobs.model_fields)
    assert max(map(len, text.splitlines())) <= int(columns)


LIGHT = [
    "import atelier",
    "import atelier; atelier.list_methods()",
    "from atelier.apps.cli import main; main(['--help'])",
    "from atelier.apps.cli import main; main(['methods'])",
    "from atelier.apps.cli import main; main(['stylize', '--help'])",
    "from atelier.apps.cli import main; main(['weights', 'list'])",
]


def test_torch_is_not_loaded_for_lists_and_help() -> None:
    checks = inspect.cleandoc("""
        import sys
        for line in {lines!r}:
            exec(line)
            assert 'torch' not in sys.modules, line
    """)
    command = [sys.executable, "-c", checks.format(lines=LIGHT)]
    done = subprocess.run(command, capture_output=True, text=True, env=_one_thread(), check=False)
    assert done.returncode == 0, done.stderr


def test_help_loads_little() -> None:
    line = "import sys; from atelier.apps.cli import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1][2:-2].split("', '"))
    assert not loaded & {"torch", "numpy", "PIL", "rich", "scipy", "pydantic"}
    assert not [name for name in loaded if name.startswith(("atelier.methods", "atelier.session"))]


def test_nobody_reads_the_list() -> None:
    """`atelier methods --json | head -1`: no complaint of a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "atelier", "methods", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=_one_thread(), check=False)
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 5


# styles to use again


def test_a_saved_style_paints_the_same_picture(run: Any, folder: Path, monkeypatch: Any) -> None:
    from safetensors.torch import save_file

    from atelier.methods.feedforward.nnst_d import NNSTD

    save_file(dict(NNSTD.tiny()["weights"]), folder / "decoder.safetensors")
    tiny = "--method nnst_d --encoder tiny.safetensors --weights decoder.safetensors --device cpu --threads 1"
    monkeypatch.setenv("ATELIER_HOME", str(folder / "one"))
    saved = run(f"style save style.png -o kept.safetensors --size 48 {tiny}")
    assert saved.code == 0, saved.err
    assert saved.err.startswith("kept.safetensors  0.")
    assert run(f"stylize photo.png -s style.png -o a.png --size 48 {tiny}").code == 0
    # Another machine: nothing is in its cache but what the file brings.
    monkeypatch.setenv("ATELIER_HOME", str(folder / "two"))
    looked = []
    monkeypatch.setattr(
        "atelier.methods.feedforward.nnst_d.Styles._seen", lambda *given: looked.append(given)
    )
    assert run(f"stylize photo.png -s kept.safetensors -o b.png --size 48 {tiny}").code == 0
    assert not looked
    assert np.array_equal(Picture.open("a.png").pixels, Picture.open("b.png").pixels)
