"""The words that an index gives its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.core.errors import TrainingError
from atelier.lexicon.labels import DRAWN, LEAST, artists, drawn, read_index, surname

HEAD = "file,kind,style,title,artist,source_path\n"


def words(folder: Path, row: str) -> dict[str, str]:
    path = folder / "index.csv"
    path.write_text(HEAD + row + "\n", encoding="utf-8")
    (only,) = read_index(path)
    return dict(only.words)


@pytest.mark.parametrize(
    ("style", "folder", "carried"),
    [
        ("impressionism", "", {"impressionism", "oil"}),
        ("post-impressionism", "", {"post-impressionism", "oil"}),
        ("x", "JPEGImages/Post_Impressionism", {"post-impressionism", "oil"}),
        ("cubism", "JPEGImages/Cubo-Futurism", {"cubism", "futurism", "oil"}),
        ("abstract", "JPEGImages/AnalyticalRealism", {"abstract", "oil"}),
        ("ukiyo-e", "JPEGImages/Ukiyo-e", {"ukiyo-e"}),
        ("ukiyo-e", "JPEGImages/Shin-hanga", {"shin-hanga"}),
        ("renaissance", "JPEGImages/HighRenaissance", {"renaissance", "high renaissance"}),
        ("ink-wash", "wiki/static/img", {"ink wash"}),
        ("drawing-etching", "src/images", {"drawing"}),
    ],
)
def test_movements_and_techniques(tmp_path: Path, style: str, folder: str, carried: set[str]) -> None:
    found = words(tmp_path, f"a.jpg,painting,{style},,,{folder}/a.jpg")
    assert set(found) == carried


def test_subjects_come_from_titles(tmp_path: Path) -> None:
    found = words(tmp_path, "a.jpg,painting,x,A Boat on the Sea at Night,,")
    assert found == {"sea": "subject", "night": "subject"}
    assert not words(tmp_path, "a.jpg,painting,x,The Seated Knight,,")


def test_artists_with_enough_pictures_are_words(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    rows = "".join(f"{n}.jpg,painting,x,,Vincent van Gogh,\n" for n in range(LEAST))
    path.write_text(HEAD + rows + "m.jpg,painting,x,,Claude Monet,\np.jpg,photo,x,,,\n", encoding="utf-8")
    found = read_index(path)
    assert [one.words.get("van gogh") for one in found] == ["artist"] * LEAST + [None]
    assert found[-1].artist == "Claude Monet"


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("Claude Monet", "monet"),
        ("Vincent van Gogh", "van gogh"),
        ("Paul Cézanne", "cezanne"),
        ("J. M. W. Turner", "turner"),
        ("Marianne North", "marianne north"),
        ("Wang Ximeng (王希孟)", "wang ximeng"),
        ("Shitao (石涛), attributed", "shitao"),
        ("Giotto", "giotto"),
    ],
)
def test_artists_go_by_the_name_that_they_are_known_by(name: str, known_as: str) -> None:
    assert surname(name) == known_as


def test_unknown_artists_are_no_words() -> None:
    assert artists(["unknown (Ming dynasty)"] * 99) == {}


def test_drawn_examples_carry_their_technique() -> None:
    found = drawn(3)
    assert len(found) == 3 * len(DRAWN)
    assert {one.drawn for one in found} == set(DRAWN.values())
    assert {one.artist for one in found} == {"drawn 0", "drawn 1", "drawn 2"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"title,artist\nA,B\n", "needs a column 'file'"),
        (b"", "lists no paintings"),
        (b"file,kind\na.jpg,photo\n", "lists no paintings"),
        (b"file,kind\n\xff\xfe\xfa,painting\n", "cannot be read as CSV"),
    ],
)
def test_a_bad_index_is_one_sentence(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "index.csv").write_bytes(data)
    with pytest.raises(TrainingError, match=says):
        read_index(tmp_path / "index.csv")


def test_a_missing_index_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read as CSV"):
        read_index(tmp_path / "none.csv")
