"""What comes along from the source beside its pictures: sound, subtitles, attachments, cover pictures, timecode."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from stylize_video.codecs import sound_ways, subtitle_ways
from stylize_video.probe import Clip

_DROPPED_FRAMES = {30: 2, 60: 4}  # numbers left out at the beginning of most minutes, by the rounded rate


@dataclass(frozen=True)
class Track:
    """A track of the source that can come along.

    ``kind`` is ffmpeg's letter for it (a, s, t, d, v), ``number`` its place among those of its kind in the source,
    ``name`` what it is called in messages. ``ways`` is what can be done with it, the best first: "copy", or an encoder.
    """

    kind: str
    number: int
    name: str
    ways: tuple[str, ...]


def tracks(clip: Clip, muxer: str, audio: str = "copy") -> tuple[list[Track], list[str]]:
    """The tracks of a clip that may come along into a container, and what will be missing, with the reason, one text
    for each track. ``audio`` is one of :data:`~stylize_video.codecs.AUDIO`."""
    kept, lost = list[Track](), list[str]()

    def add(kind: str, number: int, name: str, ways: tuple[str, ...], why: str) -> None:
        if ways:
            kept.append(Track(kind, number, name, ways))
        else:
            lost.append(f"{name}: {why}")

    cannot = f"{_ENDINGS[muxer]} files cannot hold it"
    for number, codec in enumerate(clip.audio if audio != "none" else ()):
        name = f"sound track {number + 1} ({codec or 'unknown codec'})"
        add("a", number, name, sound_ways(muxer, codec, audio), cannot if codec else "ffmpeg does not know its codec")
    for number, codec in enumerate(clip.subtitles):
        name = f"subtitles {number + 1} ({codec or 'unknown codec'})"
        add("s", number, name, subtitle_ways(muxer, codec), cannot if codec else "ffmpeg does not know its codec")
    for number, file in enumerate(clip.attachments):
        add("t", number, f"attachment {file}", ("copy",) if muxer == "matroska" else (), cannot)
    for number, codec in clip.covers:
        add("v", number, f"cover picture ({codec})", ("copy",) if muxer in ("mp4", "matroska") else (), cannot)
    for number, kind in enumerate(clip.data):
        if kind != "tmcd":  # written anew from the timecode
            add("d", number, f"data track ({kind})", ("copy",) if muxer in ("mp4", "mov") else (), cannot)
    if clip.more_videos:
        lost.append(f"{clip.more_videos} more video: only the first is painted")
    return kept, lost


_ENDINGS = {"mp4": ".mp4", "mov": ".mov", "matroska": ".mkv", "webm": ".webm", "gif": ".gif"}


def timecode_at(text: str, rate: Fraction, frames: int) -> str:
    """The timecode so many frames after another, hours:minutes:seconds:frames, with ; before the frames where numbers
    are dropped to keep up with the clock; "" where that cannot be told: the rate is no usual one, or the text is no
    timecode."""
    base = round(rate)
    parts = text.replace(";", ":").replace(".", ":").split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts) or abs(rate - base) > Fraction(base, 900):
        return ""
    hours, minutes, seconds, frame = map(int, parts)
    dropping = _DROPPED_FRAMES.get(base, 0) if (";" in text or "." in text) else 0
    if frame >= base or seconds > 59 or minutes > 59:
        return ""
    total = minutes + 60 * hours
    count = ((total * 60) + seconds) * base + frame - dropping * (total - total // 10) + frames
    if dropping:
        ten, one = 600 * base - 9 * dropping, 60 * base - dropping
        tens, rest = divmod(count, ten)
        count += 9 * dropping * tens + (dropping * ((rest - dropping) // one) if rest >= dropping else 0)
    whole, frame = divmod(count, base)
    hours, minutes, seconds = whole // 3600 % 24, whole // 60 % 60, whole % 60
    return f"{hours:02}:{minutes:02}:{seconds:02}{';' if dropping else ':'}{frame:02}"
