"""XMP packets: finding properties of ours in any packet, and writing them."""

from __future__ import annotations

import html
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
