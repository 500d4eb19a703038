"""What a video file holds, read with PyAV: its pictures, colour properties, frame times and other streams. Clips that
consist of pictures do without it."""

from __future__ import annotations

import contextlib
import math
import os
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize import StylizeError, is_file
from stylize.text import one_line
from stylize_video.ffmpeg import LOCAL, file_url
from stylize_video.timing import frame_rate


@dataclass(frozen=True)
class Clip:
    """What a video file holds; times in seconds.

    ``width`` and ``height`` are those of the upright picture with square pixels. ``times`` are when the
    frames are shown, the first at 0, where the rate varies; None where it is constant. ``start`` is when the first
    frame comes, counted from the beginning of the file: the sound may begin earlier. These, ``rate`` and ``frames``
    are what the packets promise; which of them hold a frame, only decoding tells. ``tick`` is that of the clock, in s,
    ``rates`` are those that the file claims, and ``jumps`` is whether its clock may jump. ``rotation`` is in degrees
    clockwise, still to be applied; ``aspect`` is that of a pixel as stored; ``interlaced`` means that frames may be,
    from any of them on. Colour properties have ffmpeg's names, "" where the file is silent.

    ``audio`` and ``subtitles`` are the codecs of these tracks, "" where unknown; ``attachments`` the names of files
    such as fonts; ``covers`` are (number among the video tracks, codec) of pictures of the whole; ``data`` the kinds
    of other tracks; ``more_videos`` counts video tracks beside the first; ``timecode`` is that of the first frame, and
    ``tags`` are title, language and the like of the video track. ``pictures`` are the files of a clip that consists of
    pictures.
    """

    path: Path
    width: int
    height: int
    rate: Fraction
    times: tuple[Fraction, ...] | None = None
    duration: Fraction | None = None
    frames: int | None = None
    start: Fraction = Fraction(0)
    rotation: int = 0
    aspect: Fraction = Fraction(1)
    pixel_format: str = "yuv420p"
    bits: int = 8
    alpha: bool = False
    interlaced: bool = False
    color_range: str = ""
    matrix: str = ""
    primaries: str = ""
    transfer: str = ""
    audio: tuple[str, ...] = ()
    subtitles: tuple[str, ...] = ()
    chapters: int = 0
    codec: str = ""
    tick: Fraction = Fraction(1, 90_000)
    rates: tuple[Fraction, ...] = ()
    jumps: bool = False
    attachments: tuple[str, ...] = ()
    covers: tuple[tuple[int, str], ...] = ()
    data: tuple[str, ...] = ()
    more_videos: int = 0
    timecode: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Path, ...] = ()

    def frame_range(self, start: Fraction | None = None, end: Fraction | None = None) -> tuple[int, int | None]:
        """(first, stop): the first frame at ``start`` s or later, and the one after the last frame before ``end``.

        ``stop`` is None where the clip's number of frames is unknown.

        Raises:
            StylizeError: there is no frame between them.
        """
        first, stop = 0, self.frames
        if start is not None and start > 0:
            first = bisect_left(self.times, start) if self.times else math.ceil(start * self.rate)
        if end is not None:
            until = bisect_left(self.times, end) if self.times else math.ceil(end * self.rate)
            stop = until if stop is None else min(stop, until)
        if stop is not None and first >= stop:
            length = "" if self.duration is None else f", the clip is {float(self.duration):g} s long"
            raise StylizeError(f"{self.path}: no frame between start and end{length}")
        return first, stop

    def window(
        self, start: Fraction | None = None, end: Fraction | None = None
    ) -> tuple[Fraction | None, Fraction | None]:
        """The times between which the frames from ``start`` to ``end`` s lie, from the beginning of the file; None
        where it is open. They keep clear of the frames, whose times are rounded.

        Raises:
            StylizeError: there is no frame between them.
        """
        self.frame_range(start, end)
        clear = min(Fraction(1, 1000), 1 / (4 * self.rate))
        return (
            None if start is None or start <= 0 else self.start + start - clear,
            None if end is None else self.start + end - clear,
        )

    def marks(self) -> list[Fraction]:
        """When frames should begin and end, from the beginning of the file, ascending."""
        return [self.start + self.frame_time(index) for index in range((self.frames or 0) + 1)]

    def frame_time(self, index: int) -> Fraction:
        """When frame ``index`` is shown, in s after the first; for the index after the last, when the clip ends."""
        if self.times is None:
            return index / self.rate
        if index < len(self.times):
            return self.times[index]
        return self.duration or self.times[-1] + 1 / self.rate


HIDING = frozenset(("vp8", "vp9", "av1"))  # codecs with packets that hold no frame to be shown

# Names by their numbers in ITU-T H.273, "-" for those that say nothing.
_RANGES = "- tv pc"
_MATRICES = "gbr bt709 - - fcc bt470bg smpte170m smpte240m ycgco bt2020nc bt2020c"
_PRIMARIES = "- bt709 - - bt470m bt470bg smpte170m smpte240m film bt2020 smpte428 smpte431 smpte432"
_TRANSFERS = (
    "- bt709 - - gamma22 gamma28 smpte170m smpte240m linear log100 log316 iec61966-2-4 bt1361e iec61966-2-1 "
    "bt2020-10 bt2020-12 smpte2084 smpte428 arib-std-b67"
)
# Codecs that can store a frame as two fields.
_FIELDS = {
    "h264",
    "hevc",
    "mpeg2video",
    "mpeg4",
    "vc1",
    "wmv3",
    "dvvideo",
    "dnxhd",
    "prores",
    "mjpeg",
    "v210",
    "cavs",
    "ffv1",
}
_TAGS = ("title", "language", "handler_name", "comment")  # of the video track, that are kept
_STILL = {"image2", "tty"}  # formats that are not clips; those of single pictures are named *_pipe


def probe(path: Path) -> Clip:
    """What the clip ``path`` holds. Every packet is read, and one frame decoded (of a GIF, all).

    Raises:
        StylizeError: the file is missing, unreadable, or not a clip.
    """
    import av

    path = Path(path)
    if not os.path.lexists(path):
        raise StylizeError(f"no such clip: {path}")
    if not is_file(path):
        raise StylizeError(f"{path} is not a file: give a clip")
    try:
        with av.open(file_url(path), metadata_errors="replace", options={"protocol_whitelist": LOCAL}) as container:
            return _describe(path, container)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StylizeError(one_line(f"cannot read {path} as a clip ({why}): give a video file")) from error


def _describe(path: Path, container: Any) -> Clip:
    import av

    names = set(container.format.name.split(","))
    attached = av.stream.Disposition.attached_pic
    videos = list(container.streams.video)
    streams = [stream for stream in videos if not stream.disposition & attached]
    pictures = [(number, _codec(each)) for number, each in enumerate(videos) if each.disposition & attached]
    if not streams or names & _STILL or any(name.endswith("_pipe") for name in names):
        raise StylizeError(f"{path} holds no moving pictures: give a video file")
    stream = streams[0]
    gif = "gif" in names
    frame, marks, transparent = _scan(container, stream, every=gif)
    if frame is None:
        raise StylizeError(f"no frame of {path} can be decoded: the file is damaged, or its codec is unknown")
    context, base = stream.codec_context, stream.time_base
    known = [mark for mark, _ in marks if mark is not None]
    first = min(known, default=0)
    times = sorted((mark - first) * base for mark in known)
    rates = tuple(Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate)
    rate, steady = frame_rate(times, base, rates)
    ends = [mark + (length or 0) for mark, length in marks if mark is not None]
    last = (max(ends) - first) * base if ends else Fraction(0)
    if steady or len(times) < len(marks):
        duration = len(marks) / rate
    else:
        duration = max(last, times[-1] + (0 if last > times[-1] else 1 / rate))
    jumps = bool(container.format.flags & av.format.Flags.ts_discont.value)
    begin = _begin(container, stream) if jumps else Fraction(container.start_time or 0, av.time_base)
    aspect = Fraction(frame_aspect) if (frame_aspect := context.sample_aspect_ratio) else Fraction(1)
    aspect = aspect if aspect > 0 else Fraction(1)
    width, height = frame.width, frame.height
    width, height = (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
    rotation = -round(frame.rotation / 90) * 90 % 360
    if rotation in (90, 270):
        width, height = height, width
    layered = stream.codec.name in ("vp8", "vp9", "libvpx", "libvpx-vp9") and stream.metadata.get("alpha_mode") == "1"
    components = frame.format.components
    chapters = len(container.chapters())  # in .mp4 they have a data track
    return Clip(
        path=path,
        width=width,
        height=height,
        rate=rate,
        times=None if steady or len(times) < len(marks) else tuple(times),
        duration=duration,
        frames=len(marks),
        start=max(Fraction(0), first * base - begin) if known else Fraction(0),
        rotation=rotation,
        aspect=aspect,
        pixel_format=frame.format.name,
        bits=max(component.bits for component in components),
        alpha=layered or (transparent if gif else any(component.is_alpha for component in components)),
        interlaced=_may_be_interlaced(context.codec.canonical_name, frame),
        color_range="pc" if frame.format.name.startswith("yuvj") else _named(_RANGES, frame.color_range),
        matrix=_named(_MATRICES, frame.colorspace),
        primaries=_named(_PRIMARIES, frame.color_primaries),
        transfer=_named(_TRANSFERS, frame.color_trc),
        audio=tuple(_codec(stream) for stream in container.streams.audio),
        subtitles=tuple(_codec(stream) for stream in container.streams.subtitles),
        chapters=chapters,
        codec=context.codec.canonical_name,
        tick=base,
        rates=rates,
        jumps=jumps,
        attachments=tuple(each.metadata.get("filename", "a file") for each in container.streams.attachments),
        covers=tuple(pictures),
        data=tuple(_kind(each) for each in container.streams.data if not (each.name == "bin_data" and chapters)),
        more_videos=len(streams) - 1,
        timecode=_timecode(container, stream),
        tags=tuple((key, stream.metadata[key]) for key in _TAGS if stream.metadata.get(key)),
    )


def _timecode(container: Any, stream: Any) -> str:
    found = [each.metadata.get("timecode", "") for each in (stream, *container.streams.data)]
    return next(filter(None, [*found, container.metadata.get("timecode", "")]), "")


def _kind(stream: Any) -> str:
    """What a data track holds."""
    if stream.metadata.get("timecode"):
        return "tmcd"
    return str(stream.metadata.get("handler_name") or stream.name or "unknown").strip()


def _begin(container: Any, stream: Any) -> Fraction:
    """The beginning of a file whose clock may jump, as ffmpeg takes it: where the first of the streams read begins."""
    streams = [each for each in (stream, *container.streams.audio) if each.start_time is not None]
    return min((each.start_time * each.time_base for each in streams), default=Fraction(0))


def _scan(container: Any, stream: Any, *, every: bool) -> tuple[Any, list[tuple[int | None, int | None]], bool]:
    """The first frame, (time, length) of every packet that holds one, and whether a frame has transparent pixels, if
    ``every`` frame is to be decoded."""
    import av

    frame, transparent = None, False
    marks: list[tuple[int | None, int | None, int | None]] = []
    with contextlib.suppress(av.FFmpegError):  # the file ends in the middle of something
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                marks.append((packet.pts, packet.dts, packet.duration))
            if frame is not None and not every:
                continue
            with contextlib.suppress(av.FFmpegError):
                for found in packet.decode():
                    frame = frame or found
                    if every and not transparent:
                        transparent = bool((found.to_ndarray(format="rgba")[..., 3] < 255).any())
    if any(pts is None for pts, _, _ in marks):  # AVI has few presentation times, but all decoding times
        return frame, [(dts, length) for _, dts, length in marks], transparent
    first = None if frame is None else frame.pts  # what comes before it cannot be decoded, and is never shown
    return frame, [(pts, length) for pts, _, length in marks if first is None or (pts or 0) >= first], transparent


def _may_be_interlaced(codec: str, frame: Any) -> bool:
    form = frame.format
    fits = not form.is_rgb and not form.has_palette and min(frame.width, frame.height) >= 4
    return fits and bool(frame.interlaced_frame or codec in _FIELDS)


def _named(names: str, number: int) -> str:
    return "".join(names.split()[number : number + 1]).removeprefix("-")


def _codec(stream: Any) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context else ""
