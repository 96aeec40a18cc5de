"""`atelier train words`: from a folder of paintings and an index to a model that reads words."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier.apps import cli
from atelier.core.errors import TrainingError
from atelier.core.progress import Event, Progress
from atelier.features import style_vector
from atelier.features.words import load
from atelier.images import Picture, write
from atelier.lexicon import traits
from atelier.lexicon.words import WordsRun
from atelier.store import weights
from atelier.training.settings import WordsSettings

HUES = {"cubism": (0.8, 0.3, 0.2), "impressionism": (0.2, 0.4, 0.8)}


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 8 reddish pictures that are called cubist, 8 bluish ones, and their index."""
    folder = tmp_path_factory.mktemp("paintings")
    draw = np.random.default_rng(0)
    rows = []
    for place in range(16):
        style, hue = list(HUES.items())[place % 2]
        noise = draw.normal(0, 0.1, (24, 32, 3)) * draw.uniform(0.5, 1.5) + draw.normal(0, 0.04, 3)
        write(Picture.of((np.array(hue) + noise).clip(0, 1).astype(np.float32)), folder / f"{place}.png")
        rows.append({"file": f"{place}.png", "style": style, "artist": f"Painter {place // 2}"})
    with (folder / "index.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture
def settings(paintings: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> WordsSettings:
    monkeypatch.setattr(style_vector.layout_of, "__defaults__", ((32, 48),))  # small sizes are fast
    monkeypatch.setattr(traits, "SIDE", 48)
    return WordsSettings(
        pictures=str(paintings),
        index=str(paintings / "index.csv"),
        encoder=str(tiny_encoder),
        drawn=0,
        components=6,
        prototypes=6,
        ranks=(2, 2, 2, 2),
        device="cpu",
    )


def test_the_command_fits_a_model_that_the_other_commands_read(
    settings: WordsSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings.model_dump(exclude={"ranks"}).items()
    flags = [word for name, value in given for word in (f"--{name}", str(value))]
    assert cli.main(["train", "words", *flags, *["--ranks", "2"] * 4, "--out", str(tmp_path)]) == 0
    assert "16 pictures" in capsys.readouterr().err
    model = load(tmp_path / "words.safetensors")
    assert {"cubism", "impressionism", "blue"} <= model.known.keys()
    assert model.encoder == weights.fingerprint(settings.encoder)
    assert list(model.layout.sides) == [32, 48]
    assert model.known["cubism"].auc > 0.9
    red, blue = (model.predict(word).swatch.mean((0, 2, 3)) for word in ("cubism", "impressionism"))
    assert red[0] > red[2] + 0.3
    assert blue[2] > blue[0] + 0.3
    assert cli.main(["words", "--words", str(tmp_path / "words.safetensors")]) == 0
    assert "impressionism" in capsys.readouterr().out


def test_a_run_that_was_stopped_measures_only_the_rest(
    settings: WordsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def third(event: Event) -> bool:
        return event.done < 3

    assert WordsRun(settings, tmp_path).measured(Progress(third)) is None
    looked: list[Any] = []
    usual = style_vector.measure

    def counted(*given: Any) -> Any:
        looked.append(given)
        return usual(*given)

    monkeypatch.setattr(style_vector, "measure", counted)
    resumed = WordsRun(settings, tmp_path).measured(Progress())
    assert len(looked) == 16 - 3
    whole = WordsRun(settings, tmp_path / "other").measured(Progress())
    assert resumed is not None
    assert whole is not None
    assert np.array_equal(resumed.vectors, whole.vectors)
    assert np.array_equal(resumed.traits, whole.traits)
    assert WordsRun(settings, tmp_path).measured(Progress()) is not None
    assert len(looked) == 16 - 3 + 16


def test_another_encoder_measures_anew(settings: WordsSettings, tmp_path: Path) -> None:
    kept = WordsRun(settings, tmp_path)
    kept.measured(Progress(lambda event: event.done < 2))
    other = WordsRun(settings.model_copy(update={"encoder": "encoder.atelier"}), tmp_path)
    assert len(kept._kept()["vectors"]) == 2
    assert len(other._kept()["vectors"]) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ranks": (2, 2)}, "ranks needs 4 numbers"),
        ({"pictures": "elsewhere"}, "the index lists 0.png, and elsewhere has no such file"),
        ({"index": "absent.csv"}, "absent.csv cannot be read as CSV"),
    ],
)
def test_one_sentence(settings: WordsSettings, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        WordsRun(settings.model_copy(update=change), tmp_path)
