"""Codecs and containers: which can be written, which hold one another, and with which settings of ffmpeg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stylize import SettingsError, TargetError

AUDIO = ("copy", "aac", "none")  # what to do with the sound


@dataclass(frozen=True)
class Codec:
    encoder: str
    pixel_formats: tuple[str, str, str]  # pixel formats: of 8 bits, above 8 bits, with alpha ("" where it has none)
    extensions: tuple[str, ...]
    crf: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    multiples: tuple[int, int] = (1, 1)  # width and height must be multiples of these
    rate_option: str = ""  # option that tells the encoder the mean frame rate, where the time base is much finer
    worst: int = 51  # the largest crf
    crf_option: str = "crf"  # what it is called
    upload: str = ""  # filters after the pixel format, for encoders that take frames from elsewhere


_MPEG = (".mp4", ".m4v", ".mov", ".mkv")
CODECS = {
    "h264": Codec(
        "libx264",
        ("yuv420p", "yuv420p", ""),
        _MPEG,
        18,
        (("preset", "medium"), ("profile:v", "high")),
        (2, 2),
        "x264-params=fps={n}/{d}",
    ),
    "h265": Codec(
        "libx265",
        ("yuv420p", "yuv420p10le", ""),
        _MPEG,
        20,
        (("preset", "medium"),),
        (2, 2),
        "x265-params=fps={n}/{d}",
    ),
    "av1": Codec(
        "libsvtav1",
        ("yuv420p", "yuv420p10le", ""),
        (".mp4", ".mkv", ".webm"),
        25,
        (("preset", "6"),),
        (2, 2),
        "svtav1-params=fps-num={n}:fps-denom={d}",
        worst=63,
    ),
    "vp9": Codec(
        "libvpx-vp9", ("yuv420p", "yuv420p", "yuva420p"), (".webm", ".mkv", ".mp4"), 24, (("b:v", "0"),), worst=63
    ),
    "prores": Codec("prores_ks", ("yuv422p10le", "yuv422p10le", "yuva444p10le"), (".mov",), multiples=(2, 1)),
    "ffv1": Codec("ffv1", ("bgr0", "gbrp16le", "bgra"), (".mkv",), None, (("level", "3"), ("slicecrc", "1"))),
    "gif": Codec("gif", ("", "", ""), (".gif",), None, (("loop", "0"),)),
}
_HARDWARE = {  # encoders of graphics cards, by the ends of their names: option for the quality, others, upload
    "nvenc": ("cq", (("rc", "vbr"), ("b:v", "0")), ""),
    "qsv": ("global_quality", (), ""),
    "amf": ("qp_p", (("rc", "cqp"),), ""),
    "vaapi": ("qp", (), "hwupload"),
    "videotoolbox": ("q:v", (), ""),
}
HARDWARE = tuple(f"{kind}_{end}" for end in _HARDWARE for kind in ("h264", "hevc", "av1"))
VIDEO_CODECS = tuple(name for name in CODECS if name != "gif")  # those to choose from; a .gif holds no other
_MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}
_SOUND = {  # sound codecs a container can hold; None: all
    "mp4": _MP4_SOUND,
    "mov": _MP4_SOUND - {"opus", "flac"} | {"pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"},
    "matroska": None,
    "webm": {"opus", "vorbis"},
    "gif": set[str](),
}
_TEXT = {"subrip", "ass", "ssa", "mov_text", "webvtt", "text"}


def default_codec(target: Path) -> str:
    """The codec for a clip of that name: h264, or what the container calls for.

    Raises:
        TargetError: the extension is not one a clip can have.
    """
    end = target.suffix.lower()
    if end not in _MUXERS:
        raise TargetError(f"cannot write {target}: use one of the extensions {' '.join(_MUXERS)}")
    return {".webm": "vp9", ".gif": "gif"}.get(end, "h264")


def named(name: str) -> Codec:
    """The codec of a name, or the encoder of a graphics card: h264_nvenc, hevc_qsv and so on.

    Raises:
        SettingsError: there is none.
    """
    if name in CODECS:
        return CODECS[name]
    if name not in HARDWARE:
        raise SettingsError(f"unknown codec {name!r}; use one of {', '.join(CODECS)}, or an encoder such as h264_nvenc")
    kind, _, end = name.partition("_")
    quality, options, upload = _HARDWARE[end]
    deep = "yuv420p" if kind == "h264" else "p010le"
    formats = ("nv12", "nv12" if kind == "h264" else deep, "") if upload else ("yuv420p", deep, "")
    ends = (*_MPEG, ".webm") if kind == "av1" else _MPEG
    return Codec(name, formats, ends, 20, options, (2, 2), crf_option=quality, upload=upload)


def sound_ways(muxer: str, codec: str, audio: str = "copy") -> tuple[str, ...]:
    """What to try with a sound track of a codec, "" where that is unknown: "copy" and the encoder, the best first."""
    if audio == "none" or muxer == "gif":
        return ()
    taken, encoder = _SOUND[muxer], "libopus" if muxer == "webm" else "aac"
    copied = audio == "copy" and codec != "" and (taken is None or codec in taken)
    return (*(["copy"] if copied else []), *([encoder] if codec else []))


def subtitle_ways(muxer: str, codec: str) -> tuple[str, ...]:
    """The same for a track of subtitles."""
    text = codec in _TEXT
    if muxer == "matroska":
        return ("srt",) if codec == "mov_text" else ("copy", "srt") if text else ("copy",) if codec else ()
    if muxer in ("mp4", "mov"):
        return ("copy",) if codec == "mov_text" else ("mov_text",) if text else ()
    return ("webvtt",) if muxer == "webm" and text else ()


def check_codec(name: str, target: Path, audio: str = "copy", crf: int | None = None) -> tuple[Codec, str]:
    """The codec of that name, and ffmpeg's name of the container of ``target``.

    Raises:
        TargetError: the container cannot hold the codec.
        SettingsError: the codec has no such crf, or a name is unknown.
    """
    if audio not in AUDIO:
        raise SettingsError(f"unknown audio mode {audio!r}; use one of {', '.join(AUDIO)}")
    kind, end = named(name), target.suffix.lower()
    default_codec(target)
    if end not in kind.extensions:
        raise TargetError(f"{target}: {end} files cannot hold {name}; use {' or '.join(kind.extensions)}")
    if crf is not None and kind.crf is None:
        raise SettingsError(f"{name} has no crf; leave it out, or use another codec")
    if crf is not None and crf > kind.worst:
        raise SettingsError(f"the crf of {name} is 0 to {kind.worst}, not {crf}")
    return kind, _MUXERS[end]
