"""Codecs and containers: which can be written, which hold one another, and with which settings of ffmpeg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylize import SettingsError, TargetError

if TYPE_CHECKING:
    from stylize_video.probe import Clip

AUDIO = ["copy", "aac", "none"]  # what to do with the sound; where one fails, the next is tried


@dataclass(frozen=True)
class Codec:
    encoder: str
    pixel_formats: tuple[str, str, str]  # pixel formats: of 8 bits, above 8 bits, with alpha ("" where it has none)
    extensions: tuple[str, ...]
    crf: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    multiples: tuple[int, int] = (1, 1)  # width and height must be multiples of these
    rate_option: str = ""  # option that tells the encoder the mean frame rate, where the time base is much finer


CODECS = {
    "h264": Codec(
        "libx264",
        ("yuv420p", "yuv420p", ""),
        (".mp4", ".m4v", ".mov", ".mkv"),
        18,
        (("preset", "medium"), ("profile:v", "high")),
        (2, 2),
        "x264-params=fps={n}/{d}",
    ),
    "h265": Codec(
        "libx265",
        ("yuv420p", "yuv420p10le", ""),
        (".mp4", ".m4v", ".mov", ".mkv"),
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
    ),
    "vp9": Codec("libvpx-vp9", ("yuv420p", "yuv420p", "yuva420p"), (".webm", ".mkv", ".mp4"), 24, (("b:v", "0"),)),
    "prores": Codec("prores_ks", ("yuv422p10le", "yuv422p10le", "yuva444p10le"), (".mov",), multiples=(2, 1)),
    "ffv1": Codec("ffv1", ("bgr0", "gbrp16le", "bgra"), (".mkv",), None, (("level", "3"), ("slicecrc", "1"))),
    "gif": Codec("gif", ("", "", ""), (".gif",), None, (("loop", "0"),)),
}
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


def sound_codecs(clip: Clip, target: Path, audio: str = "copy") -> list[str]:
    """For each sound stream of the clip: "copy", the encoder to use, or "" where it is left out."""
    muxer = _MUXERS[target.suffix.lower()]
    taken = _SOUND[muxer]
    if audio == "none" or muxer == "gif":
        return [""] * len(clip.audio)
    encoder = "libopus" if muxer == "webm" else "aac"
    return ["copy" if audio == "copy" and (taken is None or name in taken) else encoder for name in clip.audio]


def subtitle_codecs(clip: Clip, muxer: str) -> list[str]:
    """For each subtitle stream of the clip: "copy", the encoder to use, or "" where the container holds none such."""

    def way(name: str) -> str:
        if muxer == "matroska":
            return "srt" if name == "mov_text" else "copy"
        if muxer in ("mp4", "mov"):
            return "mov_text" if name in _TEXT - {"mov_text"} else "copy" if name == "mov_text" else ""
        return "webvtt" if muxer == "webm" and name in _TEXT else ""

    return [way(name) for name in clip.subtitles]


def check_codec(name: str, target: Path, audio: str = "copy", crf: int | None = None) -> tuple[Codec, str]:
    """The codec of that name, and ffmpeg's name of the container of ``target``.

    Raises:
        TargetError: the container cannot hold the codec.
        SettingsError: the codec has no crf, or a name is unknown.
    """
    if audio not in AUDIO:
        raise SettingsError(f"unknown audio mode {audio!r}; use one of {', '.join(AUDIO)}")
    if name not in CODECS:
        raise SettingsError(f"unknown codec {name!r}; use one of {', '.join(CODECS)}")
    default_codec(target)
    kind, end = CODECS[name], target.suffix.lower()
    if end not in kind.extensions:
        raise TargetError(f"{target}: {end} files cannot hold {name}; use {' or '.join(kind.extensions)}")
    if crf is not None and kind.crf is None:
        raise SettingsError(f"{name} has no crf; leave it out, or use another codec")
    return kind, _MUXERS[end]
