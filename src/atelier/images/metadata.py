"""Metadata that a result inherits from its photo: resolution, rights, and digital source type.

Everything else is dropped: locations, serial numbers, thumbnails, histories.

Read from and written to EXIF (Copyright, Artist), XMP (dc:rights, dc:creator, photoshop:Credit,
Iptc4xmpExt:DigitalSourceType), and each format's own resolution.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# From the weakest claim of synthesis to the strongest; unlisted types are weaker still.
_STRENGTHS = (
    "algorithmicallyEnhanced",
    "algorithmicMedia",
    "compositeSynthetic",
    "compositeWithTrainedAlgorithmicMedia",
    "trainedAlgorithmicMedia",
)
#: Longer texts are cut: JPEG holds 64 kB.
_LONGEST = 4000
ARTIST, COPYRIGHT = 315, 33432
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_INCH, _CENTIMETRE = 2, 3
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "copyright": ("http://purl.org/dc/elements/1.1/", "rights"),
    "artist": ("http://purl.org/dc/elements/1.1/", "creator"),
    "credit": ("http://ns.adobe.com/photoshop/1.0/", "Credit"),
    "source_type": ("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "DigitalSourceType"),
}


@dataclass(frozen=True)
class Metadata:
    """Resolution, rights and origin of a picture; unknown fields are None or empty.

    `dpi` is (horizontal, vertical) pixels per inch. Several artists are separated by "; ". `source_type` is
    a URI of IPTC's digital source types.

    >>> Metadata(artist="Ada", dpi=(300, 300)).artist
    'Ada'
    """

    dpi: tuple[float, float] | None = None
    copyright: str = ""
    artist: str = ""
    credit: str = ""
    source_type: str = ""

    def marked(self, source_type: str) -> Metadata:
        """A copy with the stronger of its own and another digital source type."""
        return replace(self, source_type=strongest(self.source_type, source_type))

    def filled(self, other: Metadata) -> Metadata:
        """A copy with each empty field filled from `other`."""
        mine = {one.name: getattr(self, one.name) or getattr(other, one.name) for one in fields(self)}
        return Metadata(**mine)


NO_METADATA = Metadata()


def strongest(*source_types: str) -> str:
    """The digital source type with the strongest claim of synthesis, as a URI; empty if none is given.

    >>> strongest("trainedAlgorithmicMedia", SOURCE_TYPES + "algorithmicallyEnhanced")
    'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia'
    """
    words = [word for one in source_types if (word := one.strip().rstrip("/").rpartition("/")[2])]
    if not words:
        return ""
    # Ties go to the last one, which is the most recent.
    return SOURCE_TYPES + max(reversed(words), key=_strength)


def _strength(word: str) -> int:
    return _STRENGTHS.index(word) if word in _STRENGTHS else -1


def of_image(image: Image.Image) -> Metadata:
    """The metadata of an image that Pillow has opened."""
    try:
        exif = dict(image.getexif())
    except Exception:  # Pillow raises many things over broken EXIF, and none matters to the picture.
        exif = {}
    return _found(image.info, exif)


def of_info(info: dict[Any, Any]) -> Metadata:
    """The metadata in the `info` of Pillow or pillow-heif, with EXIF as bytes."""
    exif = Image.Exif()
    try:
        exif.load(info.get("exif") or b"")
        return _found(info, dict(exif))
    except Exception:  # as above
        return _found(info, {})


def _found(info: dict[Any, Any], exif: dict[int, Any]) -> Metadata:
    texts = Metadata(copyright=_clean(info.get("Copyright")), artist=_clean(info.get("Author")))
    own = Metadata(dpi=_density(info)).filled(of_xmp(info.get("xmp"))).filled(of_exif(exif))
    return own.filled(texts)


def of_exif(exif: dict[int, Any]) -> Metadata:
    """The metadata in EXIF or TIFF tags."""
    sides = [_number(exif.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    factor = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(exif.get(RESOLUTION_UNIT, _INCH), 0.0)
    # Photographer and editor are separated by a zero byte (EXIF 2.32, 4.6.4).
    rights = _text(exif.get(COPYRIGHT)).strip("\0 ").replace("\0", "; ")
    return Metadata(
        dpi=_sensible(sides[0] * factor, sides[1] * factor),
        copyright=_clean(rights),
        artist=_clean(exif.get(ARTIST)),
    )


def exif_fields(metadata: Metadata) -> dict[int, Any]:
    """EXIF tags of `metadata`, for Pillow; texts are UTF-8."""
    fields: dict[int, Any] = {}
    if metadata.dpi is not None:
        fields |= {X_RESOLUTION: metadata.dpi[0], Y_RESOLUTION: metadata.dpi[1], RESOLUTION_UNIT: _INCH}
    for tag, words in ((ARTIST, metadata.artist), (COPYRIGHT, metadata.copyright)):
        if words:
            fields[tag] = words.encode()
    return fields


def _density(info: dict[Any, Any]) -> tuple[float, float] | None:
    """The resolution in a format's own header. Pillow invents 72 for some JPEG files that have none."""
    if "jfif" in info and info.get("jfif_unit") not in (1, 2):
        return None
    if "jfif" not in info and "exif" in info and info.get("dpi") == (72, 72):
        return None
    dpi = info.get("dpi")
    return _sensible(*map(_number, dpi)) if isinstance(dpi, tuple) and len(dpi) == 2 else None


def _sensible(x: float, y: float) -> tuple[float, float] | None:
    fine = math.isfinite(x) and math.isfinite(y) and 1 <= x <= 100_000 and 1 <= y <= 100_000
    # PNG stores pixels per metre, so 300 dpi is read back as 299.9994.
    return (_rounded(x), _rounded(y)) if fine else None


def _rounded(value: float) -> float:
    return float(round(value)) if abs(value - round(value)) < 0.02 else round(value, 4)


def _number(value: Any) -> float:
    try:
        return float(value[0]) / float(value[1]) if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return 0.0


def _text(value: Any) -> str:
    """EXIF text: ASCII by the standard, UTF-8 in practice; Pillow decodes it as Latin-1."""
    data = value.encode("latin-1", "replace") if isinstance(value, str) and _is_latin(value) else value
    if isinstance(data, bytes):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")
    return data if isinstance(data, str) else ""


def _is_latin(value: str) -> bool:
    return all(ord(letter) < 256 for letter in value)


def _clean(value: Any) -> str:
    """The text on one line, without characters that XML does not allow."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+", " ", _text(value)).strip()[:_LONGEST]


def of_xmp(packet: Any) -> Metadata:
    """The metadata in an XMP packet, bytes or text; broken packets count as empty."""
    data = packet.encode() if isinstance(packet, str) else packet
    if not isinstance(data, bytes) or b"<!" in data.replace(b"<!--", b""):  # no entities, so no expansion
        return Metadata()
    try:
        root = ElementTree.fromstring(data.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return Metadata()
    found = {name: _property(root, *where) for name, where in _NAMESPACES.items()}
    return Metadata(
        copyright=found["copyright"],
        artist=found["artist"],
        credit=found["credit"],
        source_type=strongest(found["source_type"]),
    )


def _property(root: ElementTree.Element, namespace: str, name: str) -> str:
    """An XMP property, from an attribute or element: the first of alternatives, or all items of a list."""
    key = f"{{{namespace}}}{name}"
    for node in root.iter(f"{{{_RDF}}}Description"):
        if key in node.attrib:
            return _clean(node.attrib[key])
        if (found := node.find(key)) is None:
            continue
        resource = found.get(f"{{{_RDF}}}resource")
        if resource:
            return _clean(resource)
        items = [_clean(item.text) for item in found.iter(f"{{{_RDF}}}li")]
        if found.find(f"{{{_RDF}}}Alt") is not None:
            items = items[:1]
        return "; ".join(item for item in items if item) if items else _clean(found.text)
    return ""


def xmp(metadata: Metadata) -> bytes:
    """An XMP packet with the texts of `metadata`; empty if it has none."""
    lines = []
    if metadata.source_type:
        uri = escape(metadata.source_type)
        lines.append(f"<Iptc4xmpExt:DigitalSourceType>{uri}</Iptc4xmpExt:DigitalSourceType>")
    if metadata.copyright:
        item = f'<rdf:li xml:lang="x-default">{escape(metadata.copyright)}</rdf:li>'
        lines.append(f"<dc:rights><rdf:Alt>{item}</rdf:Alt></dc:rights>")
    if metadata.artist:
        items = "".join(f"<rdf:li>{escape(one)}</rdf:li>" for one in metadata.artist.split("; "))
        lines.append(f"<dc:creator><rdf:Seq>{items}</rdf:Seq></dc:creator>")
    if metadata.credit:
        lines.append(f"<photoshop:Credit>{escape(metadata.credit)}</photoshop:Credit>")
    return _PACKET.format("\n".join(lines)).encode() if lines else b""


_PACKET = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="{_RDF}">
<rdf:Description rdf:about=""
 xmlns:dc="{_NAMESPACES["copyright"][0]}"
 xmlns:photoshop="{_NAMESPACES["credit"][0]}"
 xmlns:Iptc4xmpExt="{_NAMESPACES["source_type"][0]}">
{{}}
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
