"""Resolution, rights and origin go from every format to every format, and nothing else with them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atelier.images import WRITABLE, Picture, metadata, read, write
from atelier.images.metadata import SOURCE_TYPES, Metadata, of_xmp, strongest, xmp

TRAINED = SOURCE_TYPES + "trainedAlgorithmicMedia"
COMPOSITE = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
ENHANCED = SOURCE_TYPES + "algorithmicallyEnhanced"
CAPTURE = SOURCE_TYPES + "digitalCapture"
FULL = Metadata(
    dpi=(300.0, 240.0),
    copyright="© 2026 Ada <Lovelace> & Söhne",
    artist="Ada Lovelace; 歌川広重",
    credit="Museum of Machines",
    source_type=COMPOSITE,
)


def picture(about: Metadata = FULL, channels: int = 3, **more: Any) -> Picture:
    made = Picture.of(np.random.default_rng(0).integers(0, 256, (12, 16, channels), dtype=np.uint8))
    return replace(made, metadata=about, **more)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("recipe", [None, {"seed": 1}])
def test_metadata_survives_in_every_format(
    tmp_path: Path, suffix: str, channels: int, recipe: dict[str, Any] | None
) -> None:
    path = tmp_path / f"a{suffix}"
    write(picture(channels=channels, recipe=recipe), path)
    again = read(path)
    assert again.metadata == FULL
    assert again.recipe == recipe


@pytest.mark.parametrize("suffix", WRITABLE)
def test_other_programs_find_it_where_they_look(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(picture(), path)
    with Image.open(path) as image:
        image.load()
        exif, packet = image.getexif(), image.info["xmp"]
        assert [round(float(side)) for side in (exif[282], exif[283])] == [300, 240]
        if suffix != ".webp":  # which has no resolution of its own
            assert [round(float(side)) for side in image.info["dpi"]] == [300, 240]
        assert exif[33432].encode("latin-1").decode() == FULL.copyright
        text = packet.decode() if isinstance(packet, bytes) else packet
    assert f"<Iptc4xmpExt:DigitalSourceType>{COMPOSITE}</Iptc4xmpExt:DigitalSourceType>" in text


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_picture_without_metadata_gets_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(picture(Metadata()), path)
    assert read(path).metadata == Metadata()
    assert b"DigitalSourceType" not in path.read_bytes()
    assert b"xmpmeta" not in path.read_bytes()


@pytest.mark.parametrize("suffix", WRITABLE)
def test_metadata_and_receipt_are_left_out_on_demand(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(picture(recipe={"seed": 1}), path, metadata=False, receipt=False)
    again = read(path)
    assert again.recipe is None
    # What says that a picture is synthetic is no private matter of the photographer.
    assert again.metadata == Metadata(source_type=COMPOSITE)
    assert b"Ada" not in path.read_bytes()
    assert b"atelier-recipe" not in path.read_bytes()


def photo(path: Path) -> Path:
    """A JPEG as cameras and phones write them, with what is nobody's business."""
    exif = Image.Exif()
    exif[270], exif[271], exif[272] = "SECRET description", "SECRET maker", "SECRET model"
    exif[315], exif[33432] = "Ada", "(c) Ada"
    exif[282], exif[283], exif[296] = 118.11, 118.11, 3  # 300 dpi in centimetres
    exif.get_ifd(0x8769)[0xA431] = "SECRET serial"
    exif.get_ifd(0x8825)[29] = "SECRET place"
    packet = xmp(Metadata(source_type=CAPTURE)).replace(
        b"</rdf:Description>", b"<photoshop:City>SECRET city</photoshop:City></rdf:Description>"
    )
    Image.new("RGB", (16, 12), (90, 120, 60)).save(path, exif=exif, xmp=packet, comment=b"SECRET comment")
    return path


@pytest.mark.parametrize("suffix", WRITABLE)
def test_only_rights_resolution_and_origin_leave_a_photo(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"b{suffix}"
    write(read(photo(tmp_path / "a.jpg")), target)
    assert read(target).metadata == Metadata((300.0, 300.0), "(c) Ada", "Ada", "", CAPTURE)
    assert b"SECRET" not in target.read_bytes()


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        ("", COMPOSITE, COMPOSITE),
        (CAPTURE, ENHANCED, ENHANCED),
        (ENHANCED, COMPOSITE, COMPOSITE),
        (TRAINED, COMPOSITE, TRAINED),
        (COMPOSITE, ENHANCED, COMPOSITE),
        (TRAINED, "", TRAINED),
        (CAPTURE, "", CAPTURE),
    ],
)
def test_a_mark_is_never_weakened(tmp_path: Path, suffix: str, before: str, now: str, after: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(picture(Metadata(source_type=before), recipe={"source_type": now}), path)
    assert read(path).metadata.source_type == after
    write(picture(Metadata(source_type=before)), path, source_type=now, overwrite=True)
    assert read(path).metadata.source_type == after


def test_the_strongest_of_marks() -> None:
    assert strongest() == strongest("", "") == ""
    assert strongest("https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia/") == TRAINED
    assert strongest("compositeSynthetic", "algorithmicallyEnhanced").endswith("/compositeSynthetic")
    assert strongest("negativeFilm", "humanEdits").endswith("/humanEdits")


def test_the_resolution_turns_with_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (16, 12)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 150))
    assert read(tmp_path / "a.jpg").metadata.dpi == (150.0, 300.0)
    assert read(tmp_path / "a.jpg").size == (12, 16)


def test_a_resolution_that_no_file_names_is_not_invented(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[315] = "Ada"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").metadata == Metadata(artist="Ada")


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"), 72), (1e9, 1e9)])
def test_impossible_resolutions_are_none(dpi: tuple[float, float]) -> None:
    assert metadata.of_exif({282: dpi[0], 283: dpi[1], 296: 2}).dpi is None


@pytest.mark.parametrize("form", ["element", "attribute", "resource"])
def test_xmp_of_other_programs(form: str) -> None:
    where = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    inner = {
        "element": ("", f"<e:DigitalSourceType>{TRAINED}</e:DigitalSourceType>"),
        "attribute": (f'e:DigitalSourceType="{TRAINED}"', ""),
        "resource": ("", f'<e:DigitalSourceType rdf:resource="{TRAINED}"/>'),
    }[form]
    packet = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"/>'
        f'<rdf:Description xmlns:e="{where}" {inner[0]}>{inner[1]}</rdf:Description></rdf:RDF></x:xmpmeta>'
    )
    assert of_xmp(packet).source_type == TRAINED
    assert of_xmp(packet.encode()).source_type == TRAINED


BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize("packet", [None, 3, b"", b"<", b"\xff\xfe", BOMB, "<a/>", b"<a b='&#0;'/>"])
def test_broken_xmp_is_empty(packet: object) -> None:
    assert of_xmp(packet) == Metadata()


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_or_is_cleaned(rights: str, name: str) -> None:
    once = metadata.of_exif({33432: rights.encode("utf-8", "replace"), 315: name.encode("utf-8", "replace")})
    packet = xmp(once)
    again = of_xmp(packet) if packet else Metadata()
    assert " ".join(again.copyright.split()) == " ".join(once.copyright.split())
    assert "\0" not in again.copyright + again.artist


def test_photographer_and_editor_and_latin_1() -> None:
    assert metadata.of_exif({33432: "Ada\0Bob\0"}).copyright == "Ada; Bob"
    assert metadata.of_exif({33432: b"\xa9 Ada"}).copyright == "© Ada"
    assert metadata.of_exif({33432: "\xc2\xa9 Ada"}).copyright == "© Ada"


def test_long_texts_still_fit_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[33432] = "&" * 50_000
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", exif=exif)
    write(read(tmp_path / "a.png"), tmp_path / "b.jpg")
    assert len(read(tmp_path / "b.jpg").metadata.copyright) == 4000


def test_png_text_keywords_count(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Author", "Ada")
    info.add_text("Copyright", "(c) Ada")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    assert read(tmp_path / "a.png").metadata == Metadata(copyright="(c) Ada", artist="Ada")


def test_opened_pil_images_keep_it() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG", dpi=(200, 200), xmp=xmp(FULL))
    about = Picture.of(Image.open(buffer)).metadata
    assert (about.dpi, about.copyright, about.source_type) == ((200.0, 200.0), FULL.copyright, COMPOSITE)
