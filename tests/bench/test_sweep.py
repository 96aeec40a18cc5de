"""Sweeps: one knob over its values, resumed picture by picture, with two metrics and their plot."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atelier.apps.cli.root import main
from atelier.bench import sweep as sweeps
from atelier.bench.sweep import Point, Sweep, plot
from atelier.core.errors import InputError, UsageError
from atelier.core.progress import Progress
from atelier.images import Picture, write

GUIDANCE = sweeps.read(sweeps.SHIPPED / "drawbench-style.toml")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two prompts, and three pictures of a style."""
    (tmp_path / "prompts.txt").write_text("red paint\n\nblue art\n")
    (tmp_path / "style").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).random((48, 48, 3), dtype=np.float32)
        write(Picture.of(noise), tmp_path / "style" / f"{number}.png")
    return tmp_path


def filters(data: Path, **more: Any) -> Path:
    """A sweep that needs no weights."""
    given = {"name": "small", "method": "quilting", "knob": "patch", "values": [4, 6.0]} | more
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in given.items()]
    lines += ['prompts = "prompts.txt"', 'style = "style"', 'metrics = ["frechet", "kernel"]']
    (data / "small.toml").write_text("\n".join(lines))
    return data / "small.toml"


def test_the_shipped_sweep_is_the_published_one() -> None:
    assert GUIDANCE.values == (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20)
    assert (GUIDANCE.images, GUIDANCE.size, GUIDANCE.metrics) == (4, 512, ("fid", "clip_text"))


@pytest.mark.xdist_group("transformers")
def test_guidance_over_prompts(
    data: Path, tiny_pipeline: Path, tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    mean = 0.3 * torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(0))
    save_file({"mu": mean, "sigma": 1 + 0.2 * mean}, data / "style.safetensors")
    (data / "prompts.txt").write_text("red paint\n")
    text = (sweeps.SHIPPED / "drawbench-style.toml").read_text()
    text = re.sub(r"values = .*", "values = [1, 3.5]", text).replace("images = 4", "images = 2")
    text = text.replace("size = 512", "size = 64").replace('"fid"', '"frechet"')
    more = f'"style.safetensors", pipeline = "{tiny_pipeline}", steps = 2'
    text = text.replace('"style.safetensors"', more) + f'[features]\n"clip_vit_b32.openai" = "{tiny_clip}"\n'
    (data / "mine.toml").write_text(text)
    words = ["bench", "sweep", str(data / "mine.toml"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "0 pictures were made before, 4 now" in capsys.readouterr().out
    made = sorted((tmp_path / "out" / "pictures").rglob("*.png"))
    assert [path.parent.name for path in made] == ["1"] * 2 + ["3.5"] * 2
    assert len({path.read_bytes() for path in made}) == 4
    with (tmp_path / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["guidance"] for row in rows] == ["1", "3.5"]
    assert all(float(row["frechet"]) > 0 and -1 <= float(row["clip_text"]) <= 1 for row in rows)
    assert all(row["pictures"] == "2" and "compare only sets" in row["note"] for row in rows)
    # What is there is not made again; what is lost comes back as it was.
    lost = made[2].read_bytes()
    made[2].unlink()
    assert main(words) == 0
    assert "3 pictures were made before, 1 now" in capsys.readouterr().out
    assert np.array_equal(Picture.open(made[2]).pixels, Picture.open(_file(tmp_path, lost)).pixels)


def _file(folder: Path, content: bytes) -> Path:
    (folder / "lost.png").write_bytes(content)
    return folder / "lost.png"


def test_a_stopped_sweep_measures_nothing_and_goes_on(data: Path, tmp_path: Path) -> None:
    sweep = sweeps.read(filters(data, method="diffusion_in_style", knob="guidance"))
    done: list[float] = []
    maker = sweeps._Maker(sweep, data, tmp_path / "out", ["a"], Progress(lambda event: False))
    maker._picture = lambda value, *_: done.append(value) or maker.progress.report(1, 2)  # type: ignore
    assert len(maker.pictures(4.0)) == 1
    assert maker.pictures(6.0) == []
    assert done == [4.0]


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"knob": "guidence"}, UsageError, "has no knob 'guidence': did you mean 'guidance'"),
        ({"values": [1]}, UsageError, "wrong entry 'values'"),
        ({"metric": 3}, UsageError, "wrong entry 'metric'"),
    ],
)
def test_a_wrong_sweep_is_one_sentence(
    data: Path, change: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    given = {"method": "diffusion_in_style", "knob": "guidance"} | change
    with pytest.raises(kind, match=sentence):
        sweeps.read(filters(data, **given))


def test_missing_data_is_one_sentence(data: Path, tmp_path: Path) -> None:
    def run(**more: Any) -> None:
        sweeps.run(GUIDANCE.model_copy(update=more), data, tmp_path / "out")

    with pytest.raises(UsageError, match=r"weights pull inception\.fid"):
        run()
    with pytest.raises(InputError, match="must hold at least two pictures of the style"):
        run(style="nothing")
    (data / "prompts.txt").write_text("\n")
    with pytest.raises(InputError, match="are empty: write one prompt a line"):
        run()
    with pytest.raises(InputError, match="cannot be read"):
        run(prompts="none.txt")
    with pytest.raises(UsageError, match="there is no sweep 'drawbench': did you mean 'drawbench-style'"):
        sweeps.find("drawbench")
    assert not (tmp_path / "out").exists()


def test_the_protocol_by_its_name_says_what_it_lacks(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    (data / "prompts.txt").unlink()
    assert main(["bench", "check", "drawbench-style"]) == 3
    told = capsys.readouterr().out
    assert told.startswith("12 values of guidance, 4 images of each prompt, 512 px\n")
    for reason in (
        "prompts.txt' cannot be read",
        "no file 'style.safetensors'",
        "metric fid",
        "metric clip_text",
    ):
        assert reason in told.replace("\n", " "), told
    assert main(["bench", "drawbench-style"]) == 3
    assert "prompts.txt' cannot be read" in capsys.readouterr().err
    assert main(["bench", "drawbench-style", "--jobs", "2"]) == 2
    assert "varies one knob" in capsys.readouterr().err
    assert told.count("missing:") == 5  # the network itself, too
    (data / "prompts.txt").write_text("a red sea\n")
    (data / "style.safetensors").touch()
    assert main(["bench", "check", "drawbench-style"]) == 3
    assert capsys.readouterr().out.count("missing:") == 3
    assert main(["bench", "list"]) == 0
    assert "drawbench-style" in capsys.readouterr().out


def test_both_axes_of_the_plot() -> None:
    """Every dot stands where its own axis says; the largest number of each metric is its highest dot."""
    fid, likeness = (90.0, 40.0, 60.0), (0.21, 0.27, 0.29)
    points = [Point(value, pair, 8) for value, *pair in zip((1, 7.5, 20), fid, likeness, strict=True)]  # type: ignore[arg-type]
    text = plot(Sweep.model_validate(GUIDANCE.model_dump()), points)
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert [x for x, _ in dots[:3]] == [x for x, _ in dots[3:]]
    assert dots[1][0] - dots[0][0] == pytest.approx(6.5 / 19 * (dots[2][0] - dots[0][0]), abs=0.1)
    for numbers, places in ((fid, dots[:3]), (likeness, dots[3:])):
        assert numbers.index(max(numbers)) == min(range(3), key=lambda row, at=places: at[row][1])
    # The number at a tick of the left axis is that of a dot at its height.
    ticks = {
        float(n): float(y) - 4 for y, n in re.findall(r'y="([\d.]+)" fill="#1f5fa8"[^>]*>([\d.]+)<', text)
    }
    assert {40, 60, 90} <= ticks.keys()
    assert ticks[60] == pytest.approx(dots[2][1], abs=0.11)
    assert "fid (lower is better)" in text
    assert "clip_text (higher is better)" in text
