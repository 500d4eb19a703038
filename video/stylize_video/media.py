"""Clips: what a file holds, its frames as arrays, and painted frames with its sound as a file again.

PyAV looks into the file; the frames go through an ffmpeg process, which knows every codec, filter and container.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import math
import shutil
import subprocess
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylize import StylizeError, atomic_write

NAME = "%08d.png"  # frames in their folder, from 0
TICK = 90_000  # per second: a clock on which the usual frame times of cameras and containers are whole numbers
LEAD = 10  # seconds before the first frame wanted from which everything is decoded: seeking lands late in some files
STEP = Fraction(1, 1000)  # the least time between two frames that every container keeps
FLAGS = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"
LOCAL = "file,crypto,data"  # playlists may not name what lies in a network
WAYS = ["copy", "aac", "none"]  # for the sound, the next where one fails
FULL = "No space left"  # what no other way of writing helps against

log = logging.getLogger("stylize.video")

Array = NDArray[Any]


@dataclass(frozen=True)
class Clip:
    """What a file holds; times in seconds.

    ``width`` and ``height`` are those of the upright picture with square pixels. ``times`` are those of all frames
    after the first, which counts as 0, where the rate varies; None where it does not. ``start`` is when the first
    frame comes, counted from the beginning of the file: the sound may begin earlier. ``rotation`` is in degrees
    clockwise, still to be applied; ``aspect`` is that of a pixel as stored. Colour properties have ffmpeg's names,
    "" where the file is silent.
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


# --- what a file holds -----------------------------------------------------------------------------------------------

# Names by their numbers in ITU-T H.273, "-" for those that say nothing.
_RANGES = "- tv pc"
_MATRICES = "gbr bt709 - - fcc bt470bg smpte170m smpte240m ycgco bt2020nc bt2020c"
_PRIMARIES = "- bt709 - - bt470m bt470bg smpte170m smpte240m film bt2020 smpte428 smpte431 smpte432"
_TRANSFERS = (
    "- bt709 - - gamma22 gamma28 smpte170m smpte240m linear log100 log316 iec61966-2-4 bt1361e iec61966-2-1 "
    "bt2020-10 bt2020-12 smpte2084 smpte428 arib-std-b67"
)
_STILL = {"image2", "tty"}  # formats that are no clips; those of single pictures are named *_pipe


def probe(path: Path) -> Clip:
    """What the clip ``path`` holds; every packet is looked at, one frame is decoded (of a GIF, all).

    Raises:
        StylizeError: the file is missing, cannot be read, or is no clip.
    """
    path = Path(path)
    if not path.exists():
        raise StylizeError(f"no such clip: {path}")
    if not path.is_file():
        raise StylizeError(f"{path} is not a file: give a clip")
    try:
        with av.open(_url(path), metadata_errors="replace", options={"protocol_whitelist": LOCAL}) as container:
            return _look(path, container)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StylizeError(_one_line(f"cannot read {path} as a clip ({why}): give a video file")) from error


def _look(path: Path, container: Any) -> Clip:
    names = set(container.format.name.split(","))
    attached = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not streams or names & _STILL or any(name.endswith("_pipe") for name in names):
        raise StylizeError(f"{path} holds no moving pictures: give a video file")
    stream = streams[0]
    gif = "gif" in names
    frame, marks, transparent = _walk(container, stream, every=gif)
    if frame is None:
        raise StylizeError(f"no frame of {path} can be decoded: the file is damaged, or its codec is unknown")
    context, base = stream.codec_context, stream.time_base
    known = [mark for mark, _ in marks if mark is not None]
    first = min(known, default=0)
    times = sorted((mark - first) * base for mark in known)
    rate, steady = _pace(times, base, [stream.average_rate, stream.guessed_rate, stream.base_rate])
    ends = [mark + (length or 0) for mark, length in marks if mark is not None]
    last = (max(ends) - first) * base if ends else Fraction(0)
    if steady or len(times) < len(marks):
        duration = len(marks) / rate
    else:
        duration = max(last, times[-1] + (0 if last > times[-1] else 1 / rate))
    begin = Fraction(container.start_time or 0, av.time_base)
    aspect = Fraction(frame_aspect) if (frame_aspect := context.sample_aspect_ratio) else Fraction(1)
    aspect = aspect if aspect > 0 else Fraction(1)
    width, height = frame.width, frame.height
    width, height = (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
    rotation = -round(frame.rotation / 90) * 90 % 360
    if rotation in (90, 270):
        width, height = height, width
    layered = stream.codec.name in ("vp8", "vp9", "libvpx", "libvpx-vp9") and stream.metadata.get("alpha_mode") == "1"
    components = frame.format.components
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
        interlaced=bool(frame.interlaced_frame),
        color_range="pc" if frame.format.name.startswith("yuvj") else _named(_RANGES, frame.color_range),
        matrix=_named(_MATRICES, frame.colorspace),
        primaries=_named(_PRIMARIES, frame.color_primaries),
        transfer=_named(_TRANSFERS, frame.color_trc),
        audio=tuple(_codec(stream) for stream in container.streams.audio),
        subtitles=tuple(_codec(stream) for stream in container.streams.subtitles),
        chapters=len(container.chapters()),
        codec=context.codec.canonical_name,
    )


def _walk(container: Any, stream: Any, *, every: bool) -> tuple[Any, list[tuple[int | None, int | None]], bool]:
    """The first frame, (time, length) of every packet that holds one, and whether one of ``every`` has holes."""
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
    by = 1 if any(mark[0] is None for mark in marks) else 0  # an AVI has few times of showing, all of decoding
    return frame, [(mark[by], mark[2]) for mark in marks], transparent


def _pace(times: Sequence[Fraction], tick: Fraction, candidates: Sequence[Fraction | None]) -> tuple[Fraction, bool]:
    """The frame rate, and whether every frame keeps to it as well as the clock of the file can tell."""
    rates = [Fraction(rate) for rate in candidates if rate and 0 < rate <= 1000]
    if len(times) < 2 or times[-1] <= 0:
        return (rates or [Fraction(25)])[0], True
    mean = Fraction(len(times) - 1) / times[-1]
    near = [Fraction(n) for n in range(1, 241)] + [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
    for rate in [*rates, min(near, key=lambda rate: abs(rate - mean)), mean.limit_denominator(1001)]:
        slack = min(tick * Fraction(101, 100), 1 / (4 * rate))
        if all(abs(time - index / rate) <= slack for index, time in enumerate(times)):
            return rate, True
    return mean.limit_denominator(100_000), False


def _named(names: str, number: int) -> str:
    return "".join(names.split()[number : number + 1]).removeprefix("-")


def _codec(stream: Any) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"


# --- the frames ------------------------------------------------------------------------------------------------------


def span(clip: Clip, start: Fraction | None = None, end: Fraction | None = None) -> tuple[int, int | None]:
    """The first frame at ``start`` s or later and the one after the last before ``end``; None: to the last.

    Raises:
        StylizeError: no frame lies between them.
    """
    first, stop = 0, clip.frames
    if start is not None and start > 0:
        first = bisect_left(clip.times, start) if clip.times else math.ceil(start * clip.rate)
    if end is not None:
        until = bisect_left(clip.times, end) if clip.times else math.ceil(end * clip.rate)
        stop = until if stop is None else min(stop, until)
    if stop is not None and first >= stop:
        length = "" if clip.duration is None else f", the clip is {float(clip.duration):g} s long"
        raise StylizeError(f"{clip.path}: no frame between start and end{length}")
    return first, stop


def moment(clip: Clip, index: int) -> Fraction:
    """When frame ``index`` is shown, after the first; the one after the last ends the clip."""
    if clip.times is None:
        return index / clip.rate
    if index < len(clip.times):
        return clip.times[index]
    return clip.duration or clip.times[-1] + 1 / clip.rate


def reading(
    clip: Clip, height: int, width: int, *, start: Fraction | None = None, end: Fraction | None = None
) -> list[str]:
    """Arguments for ffmpeg: every frame once, upright, deinterlaced, with square pixels, ``height`` x ``width``, raw on
    a pipe."""
    first, stop = span(clip, start, end)
    given: dict[str, Any] = {"protocol_whitelist": LOCAL}
    if clip.alpha and clip.codec in ("vp8", "vp9"):
        given["c:v"] = {"vp8": "libvpx", "vp9": "libvpx-vp9"}[clip.codec]  # ffmpeg's own leave the alpha out
    begin = Fraction(0)
    if first:  # halfway between two frames, where rounding harms no one
        begin = clip.start + (moment(clip, first - 1) + moment(clip, first)) / 2
    seek = max(Fraction(0), begin - LEAD)
    if seek:
        given["ss"] = _seconds(seek)
    picture = ffmpeg.input(_url(clip.path), **given)["V:0"]
    if clip.interlaced:  # before anything is cut off: it needs the frames beside
        picture = picture.filter("bwdif", mode="send_frame")
    if first:
        picture = picture.filter("trim", start=_seconds(begin - seek))
    picture = picture.filter("scale", w=width, h=height, flags=FLAGS, **_colors(clip)).filter("setsar", 1)
    output: dict[str, Any] = {"format": "rawvideo", "pix_fmt": _raw(clip)[0], "fps_mode": "passthrough"}
    if (start is not None or end is not None) and stop is not None:
        output["frames:v"] = stop - first
    return list(picture.output("pipe:1", **output).get_args())


def read(
    clip: Clip, height: int, width: int, *, start: Fraction | None = None, end: Fraction | None = None
) -> Iterator[Array]:
    """The frames, one after the other: (height, width, 3), 4 with alpha, uint8 or, above 8 bits, uint16.

    A file that ends early gives the frames there are, and a warning.

    Raises:
        StylizeError: there is no ffmpeg, no frame can be decoded, or ffmpeg was killed.
    """
    first, stop = span(clip, start, end)
    _, channels, kind = _raw(clip)
    if clip.transfer in ("smpte2084", "arib-std-b67"):
        log.warning("%s is in HDR, its colours are taken as they are stored and may look pale", clip.path)
    arguments = reading(clip, height, width, start=start, end=end)
    count = 0
    with _process(arguments, subprocess.PIPE) as (process, said):
        assert process.stdout is not None
        while True:
            frame = np.empty((height, width, channels), kind)
            if not _fill(process.stdout, frame.data.cast("B")):
                break
            count += 1
            yield frame
        code = process.wait()
        lines = _last(said)
    if not count or code < 0:
        raise StylizeError(_one_line(f"{clip.path}: ffmpeg stopped after {count} frames ({lines or f'code {code}'})"))
    wanted = None if stop is None else stop - first
    if wanted is not None and count < wanted:
        log.warning("%s: %d of %d frames can be read%s", clip.path, count, wanted, f" ({lines})" if lines else "")
    elif code:
        log.warning("%s: %s", clip.path, lines or f"ffmpeg ended with code {code}")


def _raw(clip: Clip) -> tuple[str, int, type[np.unsignedinteger[Any]]]:
    deep = clip.bits > 8
    if clip.alpha:
        return "rgba64le" if deep else "rgba", 4, np.uint16 if deep else np.uint8
    return "rgb48le" if deep else "rgb24", 3, np.uint16 if deep else np.uint8


def _colors(clip: Clip) -> dict[str, str]:
    """How the filter is to take the stored colours; a file that does not say is taken as players take it."""
    form = av.VideoFormat(clip.pixel_format)
    if form.is_rgb or form.has_palette:
        return {}
    known = {"bt470bg": "bt601", "smpte170m": "bt601", "bt2020nc": "bt2020", "bt2020c": "bt2020"}
    large = max(clip.width, clip.height) >= 1280 or min(clip.width, clip.height) >= 720
    matrix = known.get(clip.matrix, clip.matrix) or ("bt709" if large else "bt601")
    limited = "" if clip.pixel_format.startswith("gray") else "tv"
    colors = {"in_color_matrix": matrix, "in_range": clip.color_range or limited}
    return {key: value for key, value in colors.items() if value} | {"out_range": "pc"}


def _fill(stream: IO[bytes], buffer: memoryview) -> bool:
    """Whether the stream still held a whole buffer."""
    position = 0
    while position < len(buffer):
        count = stream.readinto(buffer[position:])  # type: ignore[attr-defined]
        if not count:
            return False
        position += count
    return True


# --- the clip of the painted frames ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Codec:
    encoder: str
    formats: tuple[str, str, str]  # of the pixels: as a rule, above 8 bits, with alpha ("" for none)
    extensions: tuple[str, ...]
    crf: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    grid: tuple[int, int] = (1, 1)  # what width and height are multiples of
    pace: str = ""  # the option that tells the encoder the mean rate of frames whose clock runs much finer


_CODECS = {
    "h264": _Codec(
        "libx264",
        ("yuv420p", "yuv420p", ""),
        (".mp4", ".m4v", ".mov", ".mkv"),
        18,
        (("preset", "medium"), ("profile:v", "high")),
        (2, 2),
        "x264-params=fps={n}/{d}",
    ),
    "h265": _Codec(
        "libx265",
        ("yuv420p", "yuv420p10le", ""),
        (".mp4", ".m4v", ".mov", ".mkv"),
        20,
        (("preset", "medium"),),
        (2, 2),
        "x265-params=fps={n}/{d}",
    ),
    "av1": _Codec(
        "libsvtav1",
        ("yuv420p", "yuv420p10le", ""),
        (".mp4", ".mkv", ".webm"),
        25,
        (("preset", "6"),),
        (2, 2),
        "svtav1-params=fps-num={n}:fps-denom={d}",
    ),
    "vp9": _Codec("libvpx-vp9", ("yuv420p", "yuv420p", "yuva420p"), (".webm", ".mkv", ".mp4"), 24, (("b:v", "0"),)),
    "prores": _Codec("prores_ks", ("yuv422p10le", "yuv422p10le", "yuva444p10le"), (".mov",), grid=(2, 1)),
    "ffv1": _Codec("ffv1", ("bgr0", "gbrp16le", "bgra"), (".mkv",), None, (("level", "3"), ("slicecrc", "1"))),
    "gif": _Codec("gif", ("", "", ""), (".gif",), None, (("loop", "0"),)),
}
CODECS = tuple(_CODECS)
_MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
EXTENSIONS = tuple(_MUXERS)
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}
_SOUND = {  # what a container takes as it is; None: everything
    "mp4": _MP4_SOUND,
    "mov": _MP4_SOUND - {"opus", "flac"} | {"pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"},
    "matroska": None,
    "webm": {"opus", "vorbis"},
    "gif": set[str](),
}
_TEXT = {"subrip", "ass", "ssa", "mov_text", "webvtt", "text"}


def fitting(target: Path) -> str:
    """The codec that suits the name of ``target`` best.

    Raises:
        StylizeError: no clip can be written under that name.
    """
    end = target.suffix.lower()
    if end not in _MUXERS:
        raise StylizeError(f"cannot write {target}: give it one of the endings {' '.join(_MUXERS)}")
    return {".webm": "vp9", ".gif": "gif"}.get(end, "h264")


def listing(folder: Path, durations: Sequence[Fraction]) -> str:
    """A list for ffmpeg's concat demuxer: the frames of a folder, and how long each is shown."""
    lines = ["ffconcat version 1.0"]
    edges = [0]
    for time in itertools.accumulate(max(Fraction(duration), STEP) for duration in durations):
        edges.append(round(time * 1_000_000))  # the sum is rounded, so that errors do not add up
    for index, (begin, end) in enumerate(itertools.pairwise(edges)):
        lines.append(f"file {quoted(_url(folder / (NAME % index)))}")
        lines.append(f"option framerate {TICK}")  # the clock: without it times are rounded to 1/25 s
        lines.append(f"duration {(end - begin) // 1_000_000}.{(end - begin) % 1_000_000:06d}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """``text`` as one word of a list for ffmpeg.

    Raises:
        StylizeError: it has a line break, which such a list cannot hold.
    """
    if set(text) & set("\n\r\0"):
        raise StylizeError(f"{text!r} has a line break in its name: use a folder without")
    return "'" + text.replace("'", "'\\''") + "'"


def assembling(
    clip: Clip,
    folder: Path,
    target: Path,
    *,
    rate: Fraction,
    durations: Sequence[Fraction] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    start: Fraction | None = None,
    end: Fraction | None = None,
    audio: str = "copy",
    list_file: Path | None = None,
) -> list[str]:
    """Arguments for ffmpeg: the frames of ``folder``, and all else that is in the clip, to ``target``.

    With ``durations`` the frames come from ``list_file``, which :func:`assemble` writes. ``codec`` is the one
    :func:`fitting` the target if not given; ``audio`` is "copy" (where the container takes it), "aac" or "none".

    Raises:
        StylizeError: codec, target or audio do not go together.
    """
    name = codec or fitting(target)
    kind, muxer = checked(name, target, audio, crf)
    first, stop = span(clip, start, end)
    trimmed = first > 0 or (end is not None and stop != clip.frames)
    begin = moment(clip, first)

    def frames(**twin: int) -> Any:
        if durations is None:
            pattern = _url(folder).replace("%", "%%") + "/" + NAME
            how = {"format": "image2", "pattern_type": "sequence", "start_number": 0, "framerate": _ratio(rate)}
            return ffmpeg.input(pattern, **how, **twin)
        if list_file is None:
            raise StylizeError("frames that are shown for various times need a list file")
        return ffmpeg.input(_url(list_file), format="concat", safe=0, **twin)

    options: dict[str, Any] = {"c:v": kind.encoder, "format": muxer, "fps_mode": "passthrough", **dict(kind.options)}
    if muxer == "gif":
        if durations:
            options["final_delay"] = max(1, round(durations[-1] * 100))
        # Read twice, so that the frames need not wait in memory for the palette of them all.
        palette = frames(thread_queue_size=16).video.filter("palettegen")
        picture = ffmpeg.filter([frames().video, palette], "paletteuse", dither="sierra2_4a")
        return list(picture.output(_url(target), **options).get_args())

    pixels = kind.formats[2] if clip.alpha and kind.formats[2] else kind.formats[1 if clip.bits > 8 else 0]
    picture = frames().video
    if pixels.startswith("yuv"):
        colors = {"in_range": "pc", "out_range": "tv", "out_color_matrix": "bt709"}
        picture = picture.filter("scale", flags=FLAGS, **colors).filter("format", pixels)
        tags = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709"}
        picture = picture.filter("setparams", range="tv", **tags)
        options |= tags | {"color_range": "tv"}
    options["pix_fmt"] = pixels
    if name == "prores":
        options["profile:v"] = "4444" if clip.alpha else "hq"
    if kind.crf is not None:
        options["crf"] = kind.crf if crf is None else crf
    if name == "h265" and muxer in ("mp4", "mov"):
        options["tag:v"] = "hvc1"
    if muxer in ("mp4", "mov"):
        options["movflags"] = "+faststart"
    late = clip.start if not trimmed else Fraction(0)  # the first frame comes after the first sound
    if late:
        picture = picture.filter("settb", f"1/{TICK}").filter("setpts", f"PTS+{round(late * TICK)}")
        options["enc_time_base"] = f"1:{TICK}"
    if durations:
        if kind.pace:
            key, _, value = kind.pace.partition("=")
            options[key] = value.format(n=rate.numerator, d=rate.denominator)
        if muxer in ("mp4", "mov"):  # where nothing follows, the muxer cannot tell how long a frame is shown
            whole = late + sum(durations, Fraction(0))
            last, over = round((whole - durations[-1]) * TICK) - 1, round(whole * TICK)
            final = rf"gte(PTS\,{last})+eq(N\,{len(durations) - 1})"  # shown last, stored last
            options["bsf:v"] = rf"setts=pts=PTS:dts=DTS:duration=if({final}\,max({over}-PTS\,1)\,DURATION)"
    if trimmed:
        # Seeking lands before the cut, at a key frame of the old picture; a subtitle may be on when the cut begins.
        options["copypriorss:a"] = 0
        if muxer in ("matroska", "webm"):
            options["avoid_negative_ts"] = "disabled"  # or everything waits for that subtitle
    if trimmed and end is not None and stop is not None:
        options["t"] = _seconds(moment(clip, stop) - begin)

    source = ffmpeg.input(
        _url(clip.path), protocol_whitelist=LOCAL, **({"ss": _seconds(clip.start + begin)} if trimmed else {})
    )
    streams: list[Any] = []
    for index, how in enumerate(sounds(clip, target, audio)):
        if how:
            options[f"c:a:{len(streams)}"] = how
            streams.append(source[f"a:{index}"])
    written = 0
    for index, how in enumerate(_subtitles(clip, muxer)):
        if how:
            options[f"c:s:{written}"] = how
            written += 1
            streams.append(source[f"s:{index}"])
    if not streams:
        streams.append(source["a:999?"])  # none: the file is opened for its metadata and chapters
    options |= {"map_metadata": 1, "map_chapters": 1, "max_muxing_queue_size": 4096, "max_error_rate": 1}
    return list(ffmpeg.output(picture, *streams, _url(target), **options).get_args())


def assemble(
    clip: Clip,
    folder: Path,
    target: Path,
    *,
    rate: Fraction,
    durations: Sequence[Fraction] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    start: Fraction | None = None,
    end: Fraction | None = None,
    audio: str = "copy",
    list_file: Path | None = None,
) -> None:
    """Write the frames of ``folder`` to ``target``, see :func:`assembling`; it is there whole or not at all.

    Sound that cannot be copied is encoded, and left out where that fails too, with a warning each.

    Raises:
        StylizeError: frames are missing or of a size the codec does not take, or ffmpeg failed.
    """
    kind, muxer = checked(codec or fitting(target), target, audio)
    _check_frames(folder, durations, kind)
    if dropped := [name for name, how in zip(clip.subtitles, _subtitles(clip, muxer), strict=True) if not how]:
        log.warning("%s: subtitles (%s) do not go into a %s file", clip.path, ", ".join(dropped), target.suffix)
    if clip.audio and audio != "none" and muxer == "gif":
        log.warning("%s: the sound does not go into a .gif file", clip.path)
        audio = "none"
    strange = [name for name, how in zip(clip.audio, sounds(clip, target, audio), strict=True) if how != "copy"]
    if audio == "copy" and strange:
        log.warning("%s: sound (%s) is encoded to go into a %s file", clip.path, ", ".join(strange), target.suffix)
    ways = WAYS[WAYS.index(audio) :] if clip.audio else ["none"]
    with tempfile.TemporaryDirectory() as work:
        if durations is not None:
            list_file = list_file or Path(work, "frames.txt")
            list_file.write_text(listing(folder, durations), encoding="utf-8")
        for way in ways:
            arguments = assembling(
                clip,
                folder,
                target,
                rate=rate,
                durations=durations,
                codec=codec,
                crf=crf,
                start=start,
                end=end,
                audio=way,
                list_file=list_file,
            )
            try:
                _encode(arguments, target)
                break
            except StylizeError as error:
                if way == "none" or FULL in str(error):
                    raise
                next_way = "encoding it" if way == "copy" else "leaving it out"
                log.warning("%s: the sound could not be written, %s (%s)", clip.path, next_way, error)


def sounds(clip: Clip, target: Path, audio: str = "copy") -> list[str]:
    """For each sound of the clip "copy", the encoder to use, or "" where it is left out."""
    muxer = _MUXERS[target.suffix.lower()]
    taken = _SOUND[muxer]
    if audio == "none" or muxer == "gif":
        return [""] * len(clip.audio)
    encoder = "libopus" if muxer == "webm" else "aac"
    return ["copy" if audio == "copy" and (taken is None or name in taken) else encoder for name in clip.audio]


def _subtitles(clip: Clip, muxer: str) -> list[str]:
    def way(name: str) -> str:
        if muxer == "matroska":
            return "srt" if name == "mov_text" else "copy"
        if muxer in ("mp4", "mov"):
            return "mov_text" if name in _TEXT - {"mov_text"} else "copy" if name == "mov_text" else ""
        return "webvtt" if muxer == "webm" and name in _TEXT else ""

    return [way(name) for name in clip.subtitles]


def checked(name: str, target: Path, audio: str = "copy", crf: int | None = None) -> tuple[_Codec, str]:
    """What a codec asks for, and the container of ``target``.

    Raises:
        StylizeError: the one does not go into the other, or has no such crf.
    """
    if audio not in WAYS:
        raise StylizeError(f"no way {audio!r} to treat the sound: use one of {', '.join(WAYS)}")
    if name not in _CODECS:
        raise StylizeError(f"no codec {name!r}: use one of {', '.join(_CODECS)}")
    fitting(target)
    kind, end = _CODECS[name], target.suffix.lower()
    if end not in kind.extensions:
        raise StylizeError(f"{target}: {name} does not go into a {end} file, use {' or '.join(kind.extensions)}")
    if crf is not None and kind.crf is None:
        raise StylizeError(f"{name} has no crf: leave it out, or use another codec")
    return kind, _MUXERS[end]


def _check_frames(folder: Path, durations: Sequence[Fraction] | None, kind: _Codec) -> None:
    count = sum(1 for path in folder.glob("*.png") if path.stem.isdigit() and len(path.stem) == 8)
    if not count or not all((folder / (NAME % index)).exists() for index in range(count)):
        raise StylizeError(f"{folder}: frames are missing, there are {count}")
    if durations is not None and len(durations) != count:
        raise StylizeError(f"{folder}: {count} frames, but {len(durations)} durations")
    with Image.open(folder / (NAME % 0)) as picture:
        width, height = picture.size
    across, down = kind.grid
    if width % across or height % down:
        raise StylizeError(f"{folder}: {kind.encoder} takes no frames of {width} x {height}, only even sizes")


# --- ffmpeg ----------------------------------------------------------------------------------------------------------


def executable() -> str:
    """Where ffmpeg is: on the PATH, else the one that comes with imageio-ffmpeg.

    Raises:
        StylizeError: there is none.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise StylizeError("there is no ffmpeg: install ffmpeg, or the Python package imageio-ffmpeg") from error


def _command() -> list[str]:
    return [executable(), "-hide_banner", "-nostdin", "-loglevel", "error"]


@contextlib.contextmanager
def _process(arguments: Sequence[str], output: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """ffmpeg at work, and what it complained of so far; it does not outlive the block.

    It is in a process group of its own: Ctrl-C at the terminal is for this program to answer.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603
            [*_command(), *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=said, process_group=0
        )
        try:
            yield process, said
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _encode(arguments: Sequence[str], target: Path) -> None:
    with atomic_write(target) as temporary:
        command = ["-y", *arguments[:-1], _url(temporary)]
        with _process(command, subprocess.DEVNULL) as (process, said):
            code = process.wait()
            lines = _last(said)
        if code or not temporary.stat().st_size:
            raise StylizeError(_one_line(f"cannot write {target}: ffmpeg failed ({lines or f'code {code}'})"))


def _last(said: IO[bytes], count: int = 3) -> str:
    """The last lines of what ffmpeg said, as one."""
    said.seek(max(0, said.seek(0, 2) - 4096))
    lines = [line.strip() for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return "; ".join(lines[-count:])


def _url(path: Path) -> str:
    """A path as ffmpeg takes it whatever is in the name: no option, no protocol."""
    return f"file:{path.absolute()}"


def _seconds(time: Fraction) -> str:
    return f"{float(time):.6f}"


def _ratio(rate: Fraction) -> str:
    return f"{rate.numerator}/{rate.denominator}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
