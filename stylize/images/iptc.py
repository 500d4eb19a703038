"""IPTC (IIM) blocks: where files hold them, and their fields as XMP for formats that hold no IPTC."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from html import escape, unescape

_RESOURCE = 0x0404  # of Photoshop's image resources: IPTC
_SIGNATURES = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")  # of resources, by Photoshop and others of Adobe
_FIELDS: dict[int, tuple[str, str]] = {  # dataset of record 2 -> property in XMP, and its kind
    5: ("dc:title", "Alt"),
    10: ("photoshop:Urgency", ""),
    15: ("photoshop:Category", ""),
    20: ("photoshop:SupplementalCategories", "Bag"),
    25: ("dc:subject", "Bag"),
    40: ("photoshop:Instructions", ""),
    55: ("photoshop:DateCreated", ""),
    80: ("dc:creator", "Seq"),
    85: ("photoshop:AuthorsPosition", ""),
    90: ("photoshop:City", ""),
    92: ("Iptc4xmpCore:Location", ""),
    95: ("photoshop:State", ""),
    100: ("Iptc4xmpCore:CountryCode", ""),
    101: ("photoshop:Country", ""),
    103: ("photoshop:TransmissionReference", ""),
    105: ("photoshop:Headline", ""),
    110: ("photoshop:Credit", ""),
    115: ("photoshop:Source", ""),
    116: ("dc:rights", "Alt"),
    120: ("dc:description", "Alt"),
    122: ("photoshop:CaptionWriter", ""),
}
_PLACES = frozenset((26, 27, 90, 92, 95, 100, 101))  # datasets that tell where
NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
}


def resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Photoshop's image resources: their numbers and contents."""
    position = 0
    while block[position : position + 4] in _SIGNATURES and position + 12 <= len(block):
        (number,) = struct.unpack_from(">H", block, position + 4)
        name = block[position + 6] + 1
        at = position + 6 + name + name % 2
        (length,) = struct.unpack_from(">I", block, at)
        yield number, block[at + 4 : at + 4 + length]
        position = at + 4 + length + length % 2


def in_resources(block: bytes) -> bytes:
    """The IPTC in Photoshop's image resources, or nothing."""
    try:
        return next((data for number, data in resources(block) if number == _RESOURCE), b"")
    except (struct.error, IndexError):
        return b""


def as_resources(iptc: bytes) -> bytes:
    """IPTC as the one resource of a block of Photoshop's."""
    return b"8BIM" + struct.pack(">HHI", _RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def datasets(iptc: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Record, dataset, value and the bytes of it all; those that are damaged end it."""
    position = 0
    while position + 5 <= len(iptc) and iptc[position] == 0x1C:
        record, number, length = struct.unpack_from(">BBH", iptc, position + 1)
        start = position + 5
        if length & 0x8000:  # the length of the length
            size = length & 0x7FFF
            length = int.from_bytes(iptc[start : start + size])
            start += size
        if start + length > len(iptc):
            return
        yield record, number, iptc[start : start + length], iptc[position : start + length]
        position = start + length


def without_places(iptc: bytes) -> bytes:
    """IPTC without what tells where the photo was taken."""
    return b"".join(whole for record, number, _, whole in datasets(iptc) if record != 2 or number not in _PLACES)


def as_xmp(iptc: bytes, packet: bytes) -> tuple[bytes, str]:
    """A packet with the keywords that only IPTC has, and as elements the properties of XMP that IPTC has and the packet
    has not.
    """
    found: dict[int, list[str]] = {}
    unicode = b"\x1b%G" in iptc[:64]
    for record, number, value, _ in datasets(iptc):
        if record == 2 and number in _FIELDS and value:
            found.setdefault(number, []).append(_text(value, unicode))
    made = ""
    for number, texts in found.items():
        name, kind = _FIELDS[number]
        if number == 55 and re.fullmatch(r"\d{8}", texts[0]):
            texts = [f"{texts[0][:4]}-{texts[0][4:6]}-{texts[0][6:]}"]
        language = ' xml:lang="x-default"' if kind == "Alt" else ""
        if name.encode() in packet:
            if kind == "Bag":
                packet = _with_items(packet, name, texts)
        elif kind:
            items = "".join(f"<rdf:li{language}>{escape(text)}</rdf:li>" for text in texts)
            made += f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>"
        else:
            made += f"<{name}>{escape(texts[0])}</{name}>"
    return packet, made


def _with_items(packet: bytes, name: str, texts: list[str]) -> bytes:
    """A packet with further items in a bag that it has."""
    text = packet.decode()
    bag = re.search(rf"<{name}>\s*<rdf:Bag>(.*?)(?=\s*</rdf:Bag>)", text, re.DOTALL)
    if not bag:
        return packet
    known = {unescape(item).strip() for item in re.findall(r"<rdf:li[^>]*>([^<]*)</rdf:li>", bag[1])}
    items = "".join(f"<rdf:li>{escape(each)}</rdf:li>" for each in dict.fromkeys(texts) if each.strip() not in known)
    return (text[: bag.end()] + items + text[bag.end() :]).encode()


def _text(value: bytes, unicode: bool) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("utf-8" if unicode else "latin-1", "replace")
    return re.sub(r"[\0-\x08\x0b\x0c\x0e-\x1f]", " ", text)
