"""XMP packets: finding properties of ours in any packet, writing them, and carrying what others wrote."""

from __future__ import annotations

import hashlib
import html
import re
from xml.parsers import expat

NAMESPACE = "https://stylize.invalid/ns/1.0/"
LIMIT = 2**24  # bytes of a packet that is read
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
_HEAD = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
"""
_TAIL = """
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def packet_of(properties: dict[str, str]) -> bytes:
    """A packet of simple properties of ours.

    Quotes are escaped, too, lest Pillow take a tiff:Orientation="6" in a text for the picture's.
    """
    inner = "".join(f"<stylize:{name}>{html.escape(text)}</stylize:{name}>" for name, text in properties.items())
    description = f'<rdf:Description rdf:about="" xmlns:stylize="{NAMESPACE}">{inner}</rdf:Description>'
    return (_HEAD + description + _TAIL).encode()


def properties_in(packet: bytes) -> dict[str, str]:
    """Our properties in a packet that any program may have written since: elements or attributes, under any prefix.

    Empty where there are none, or the packet is damaged. Entities are not expanded: a packet that declares some, which
    XMP has no use for, is not read.
    """
    found: dict[str, str] = {}
    if not 0 < len(packet) <= LIMIT or NAMESPACE.encode() not in packet.replace(b"\0", b""):  # UTF-16 has zeros
        return found
    path: list[str] = []
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        text.clear()
        for key, value in attributes.items():
            if key.startswith(NAMESPACE):
                found.setdefault(key[len(NAMESPACE) + 1 :], value)

    def end(name: str) -> None:
        if name.startswith(NAMESPACE) and path[-1] == name:
            found.setdefault(name[len(NAMESPACE) + 1 :], "".join(text))
        path.pop()
        text.clear()

    def refuse(*_: object) -> None:
        raise ValueError("a packet declares entities")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(packet if packet[:2] in _UTF_16 else packet.rstrip(b"\0 \r\n\t"), True)
    except expat.ExpatError:  # such as a packet cut off: what was complete counts
        pass
    except ValueError:
        return {}
    return found


# --- packets of others


_OWN = re.compile(
    rf'<(?P<p>[\w.-]+):(record|pixels)>[^<]*</(?P=p):\2>|\s[\w.-]+:(record|pixels)="[^"]*"(?=[^<>]*{re.escape(NAMESPACE)})'
)
_OWN_DECLARED = re.compile(rf"""\sxmlns:[\w.-]+=(["']){re.escape(NAMESPACE)}\1""")
_EMPTY = re.compile(
    r"""<rdf:Description(\s+(rdf:about|xmlns:[\w.-]+)=("[^"]*"|'[^']*'))*\s*(/>|>\s*</rdf:Description>)"""
)
# What describes the file a packet was in: its sizes, previews, and what follows the picture there, such as the gain map
# of an HDR picture, the film of a motion photo, sound, and maps of depth.
_OF_THE_FILE = (
    "tiff:(?:ImageWidth|ImageLength|BitsPerSample|PhotometricInterpretation|Compression|SamplesPerPixel)",
    "exif:Pixel[XY]Dimension",
    "photoshop:(?:ICCProfile|ColorMode)",
    "xmp:Thumbnails",
    r"(?:hdrgm|HDRGainMap|apdi|GDepth|GImage|GAudio):\w+",
    r"(?:GCamera|Camera):(?:MotionPhoto|MicroVideo)\w*",
    "(?:Container|GContainer):Directory",
)
_PLACES = (
    r"exif:GPS\w+",
    "photoshop:(?:City|State|Country)",
    "Iptc4xmpCore:(?:Location|CountryCode)",
    "Iptc4xmpExt:Location(?:Created|Shown)",
)


def cleaned(packet: bytes, *, colors: bool = True) -> bytes | None:
    """A packet for a new file: upright, without what describes the file it comes from, and without properties of ours.

    Empty where nothing is left, None where it is no XMP. Without ``colors``, what it says of the colour space stays.
    """
    text = _text(packet)
    if text is None:
        return None
    text = _OWN.sub("", text)
    text = re.sub(r"""(tiff:Orientation\s*=\s*)(["'])\d\2""", r"\g<1>\g<2>1\g<2>", text)
    text = re.sub(r"(<tiff:Orientation>)\s*\d\s*(</tiff:Orientation>)", r"\g<1>1\g<2>", text)
    if colors:
        text = re.sub(r"""(exif:ColorSpace\s*=\s*)(["'])\d+\2""", r"\g<1>\g<2>1\g<2>", text)
        text = re.sub(r"(<exif:ColorSpace>)\s*\d+\s*(</exif:ColorSpace>)", r"\g<1>1\g<2>", text)
    text = _without(text, _OF_THE_FILE)
    if NAMESPACE in text:
        text = _OWN_DECLARED.sub("", text)
    text = _EMPTY.sub("", text)
    return text.encode() if "<rdf:Description" in text else b""


def without_places(packet: bytes) -> bytes:
    """A packet that :func:`cleaned` gave, without what tells where the photo was taken."""
    text = _EMPTY.sub("", _without(packet.decode(), _PLACES))
    return text.encode() if "<rdf:Description" in text else b""


def merged(packet: bytes, extension: bytes) -> bytes:
    """The packet of the first segment of a JPEG with the properties that continue in others."""
    main, more = _text(packet), _text(extension)
    if main is None or more is None:
        return packet
    main = re.sub(r"""\s?xmpNote:HasExtendedXMP=(["'])\w*\1""", "", main)
    main = re.sub(r"<xmpNote:HasExtendedXMP>\w*</xmpNote:HasExtendedXMP>", "", main)
    inner = re.search(r"<rdf:RDF[^>]*>(.*)</rdf:RDF>", more, re.DOTALL)
    return _insert(main, inner[1] if inner else "").encode()


def combined(packet: bytes, elements: str, namespaces: dict[str, str], properties: dict[str, str]) -> bytes:
    """A packet that :func:`cleaned` gave, with further elements, and simple properties of ours."""
    text = packet.decode() if packet else (_HEAD + _TAIL.lstrip("\n"))
    about = re.search(r"""rdf:about=("[^"]*"|'[^']*')""", text)
    subject = f"rdf:about={about[1] if about else chr(34) * 2}"
    if elements:
        declared = "".join(f' xmlns:{name}="{address}"' for name, address in namespaces.items())
        text = _insert(text, f"<rdf:Description {subject}{declared}>{elements}</rdf:Description>\n")
    if properties:
        inner = "".join(f"<stylize:{name}>{html.escape(value)}</stylize:{name}>" for name, value in properties.items())
        described = f'<rdf:Description {subject} xmlns:stylize="{NAMESPACE}">{inner}</rdf:Description>'
        text = _insert(text, described + "\n")
    return text.encode()


def _insert(text: str, part: str) -> str:
    place = text.rfind("</rdf:RDF>")
    return text[:place] + part + text[place:]


def _without(text: str, names: tuple[str, ...]) -> str:
    """A packet without properties, be they attributes or elements."""
    for name in names:
        text = re.sub(rf"""\s{name}\s*=\s*("[^"]*"|'[^']*')""", "", text)
        text = re.sub(rf"<({name})(?:\s[^<>]*)?/>", "", text)
        text = re.sub(rf"<({name})(?:\s[^<>]*)?>.*?</\1>", "", text, flags=re.DOTALL)
    return text


def _text(packet: bytes) -> str | None:
    """A packet as text, without padding; None where it is no sound XMP."""
    if not 0 < len(packet) <= LIMIT:
        return None
    try:
        text = packet.decode("utf-16") if packet[:2] in _UTF_16 else packet.rstrip(b"\0").decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    text = re.sub(r"<\?xml [^>]*\?>", "", text).strip()
    if "</rdf:RDF>" not in text and (empty := re.search(r"<rdf:RDF([^>]*)/>", text)):
        text = text.replace(empty[0], f"<rdf:RDF{empty[1]}></rdf:RDF>")
    if "</rdf:RDF>" not in text or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        expat.ParserCreate(namespace_separator=" ").Parse(text.encode(), True)
    except expat.ExpatError:
        return None
    return re.sub(r"\s{100,}(?=<\?xpacket end)", "\n", text)


def split(packet: bytes, properties: dict[str, str]) -> tuple[bytes, bytes]:
    """A packet that is too long for a segment of a JPEG: that of the first one, which names the rest, and the rest."""
    rest = re.sub(r"<\?xpacket[^>]*\?>", "", packet.decode()).strip().encode()
    digest = hashlib.md5(rest, usedforsecurity=False).hexdigest().upper()
    note = f'<xmpNote:HasExtendedXMP xmlns:xmpNote="http://ns.adobe.com/xmp/note/">{digest}</xmpNote:HasExtendedXMP>'
    main = (_HEAD + f'<rdf:Description rdf:about="">{note}</rdf:Description>' + _TAIL).encode()
    return combined(main, "", {}, properties), rest
