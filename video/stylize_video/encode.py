"""Painted frames with the sound, subtitles, chapters and metadata of their source, encoded as a clip by ffmpeg."""

from __future__ import annotations

import itertools
import logging
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
from PIL import Image

from stylize import StylizeError, atomic_write
from stylize.text import one_line
from stylize_video.codecs import AUDIO, Codec, check_codec, default_codec, sound_codecs, subtitle_codecs
from stylize_video.ffmpeg import FLAGS, LOCAL, as_ratio, ffmpeg_process, file_url, in_seconds, last_lines
from stylize_video.probe import Clip

FRAME_NAME = "%08d.png"  # of the painted frames in their folder, from 0
TIME_BASE = 90_000  # ticks per second: the frame times of cameras and containers are whole numbers of them
SHORTEST = Fraction(1, 1000)  # s: the shortest frame that every container keeps
DISK_FULL = "No space left"  # an error that leaving out the sound does not cure

log = logging.getLogger("stylize.video")

Options = dict[str, Any]  # of ffmpeg


@dataclass(frozen=True)
class Encoding:
    """A clip to write.

    ``clip`` is the source, ``frames`` the folder of painted frames, named :data:`FRAME_NAME`, ``target`` the file.
    ``rate`` is in frames per second; ``durations`` says how long each frame is shown, in s, where that varies.
    ``codec`` is by default the one :func:`~stylize_video.codecs.default_codec` names, ``crf`` the codec's own. The
    frames are those of the source from ``start`` to ``end``, in s. ``audio`` is one of
    :data:`~stylize_video.codecs.AUDIO`: "copy" (where the container can hold the codec), "aac" or "none".
    """

    clip: Clip
    frames: Path
    target: Path
    rate: Fraction
    durations: Sequence[Fraction] | None = None
    codec: str | None = None
    crf: int | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    audio: str = "copy"

    @property
    def codec_name(self) -> str:
        return self.codec or default_codec(self.target)

    @property
    def trimmed(self) -> bool:
        """Whether frames at the beginning or end of the source are left out."""
        first, stop = self.clip.frame_range(self.start, self.end)
        return first > 0 or (self.end is not None and stop != self.clip.frames)

    @property
    def begin(self) -> Fraction:
        """When the first frame is shown in the source, in s after the source's own first."""
        return self.clip.frame_time(self.clip.frame_range(self.start, self.end)[0])

    @property
    def delay(self) -> Fraction:
        """How much later than the first sound the first frame comes, in s."""
        return Fraction(0) if self.trimmed else self.clip.start


# --- arguments -------------------------------------------------------------------------------------------------------


def encode_arguments(encoding: Encoding, list_file: Path | None = None) -> list[str]:
    """Arguments for ffmpeg.

    Args:
        encoding: what to write.
        list_file: where :func:`concat_list` is written; needed where the frames have durations.

    Raises:
        StylizeError: codec, target or audio do not go together, or no frame lies between start and end.
    """
    codec, muxer = check_codec(encoding.codec_name, encoding.target, encoding.audio, encoding.crf)
    options = {"c:v": codec.encoder, "format": muxer, "fps_mode": "passthrough", **dict(codec.options)}
    encoding.clip.frame_range(encoding.start, encoding.end)  # raises where it is empty
    if muxer == "gif":
        return _gif_arguments(encoding, options, list_file)
    picture, colors = _convert_colors(_frames(encoding, list_file), codec, encoding.clip)
    options |= colors | _quality(encoding, codec, muxer)
    picture, delay = _delayed(picture, encoding.delay)
    options |= delay | _durations(encoding, codec, muxer) | _trimming(encoding, muxer)
    streams, kept = _other_streams(encoding, muxer)
    options |= kept | {"map_metadata": 1, "map_chapters": 1, "max_muxing_queue_size": 4096, "max_error_rate": 1}
    return list(ffmpeg.output(picture, *streams, file_url(encoding.target), **options).get_args())


def _frames(encoding: Encoding, list_file: Path | None, **extra: int) -> Any:
    """The painted frames as a stream."""
    if encoding.durations is None:
        pattern = file_url(encoding.frames).replace("%", "%%") + "/" + FRAME_NAME
        sequence = {"format": "image2", "pattern_type": "sequence", "start_number": 0}
        return ffmpeg.input(pattern, **sequence, framerate=as_ratio(encoding.rate), **extra).video
    if list_file is None:
        raise StylizeError("frames with durations need a list file")
    return ffmpeg.input(file_url(list_file), format="concat", safe=0, **extra).video


def _gif_arguments(encoding: Encoding, options: Options, list_file: Path | None) -> list[str]:
    if encoding.durations:
        options["final_delay"] = max(1, round(encoding.durations[-1] * 100))
    # Read twice, so that the frames need not be held in memory until the palette of them all is known.
    palette = _frames(encoding, list_file, thread_queue_size=16).filter("palettegen")
    picture = ffmpeg.filter([_frames(encoding, list_file), palette], "paletteuse", dither="sierra2_4a")
    return list(picture.output(file_url(encoding.target), **options).get_args())


def _convert_colors(picture: Any, codec: Codec, clip: Clip) -> tuple[Any, Options]:
    """The stream in the pixel format of the codec, and the options that tag its colours: BT.709, limited range."""
    eight, deep, alpha = codec.pixel_formats
    pixel_format = alpha if clip.alpha and alpha else deep if clip.bits > 8 else eight
    if not pixel_format.startswith("yuv"):
        return picture, {"pix_fmt": pixel_format}
    colors = {"in_range": "pc", "out_range": "tv", "out_color_matrix": "bt709"}
    picture = picture.filter("scale", flags=FLAGS, **colors).filter("format", pixel_format)
    tags = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709"}
    picture = picture.filter("setparams", range="tv", **tags)
    return picture, tags | {"color_range": "tv", "pix_fmt": pixel_format}


def _quality(encoding: Encoding, codec: Codec, muxer: str) -> Options:
    options: Options = {}
    if encoding.codec_name == "prores":
        options["profile:v"] = "4444" if encoding.clip.alpha else "hq"
    if codec.crf is not None:
        options["crf"] = codec.crf if encoding.crf is None else encoding.crf
    if encoding.codec_name == "h265" and muxer in ("mp4", "mov"):
        options["tag:v"] = "hvc1"
    if muxer in ("mp4", "mov"):
        options["movflags"] = "+faststart"
    return options


def _delayed(picture: Any, delay: Fraction) -> tuple[Any, Options]:
    if not delay:
        return picture, {}
    picture = picture.filter("settb", f"1/{TIME_BASE}").filter("setpts", f"PTS+{round(delay * TIME_BASE)}")
    return picture, {"enc_time_base": f"1:{TIME_BASE}"}


def _durations(encoding: Encoding, codec: Codec, muxer: str) -> Options:
    durations, options = encoding.durations, dict[str, Any]()
    if not durations:
        return options
    if codec.rate_option:
        key, _, value = codec.rate_option.partition("=")
        options[key] = value.format(n=encoding.rate.numerator, d=encoding.rate.denominator)
    if muxer in ("mp4", "mov"):  # the muxer takes a frame's duration from the next one: the last has none
        whole = encoding.delay + sum(durations, Fraction(0))
        last, end = round((whole - durations[-1]) * TIME_BASE) - 1, round(whole * TIME_BASE)
        final = rf"gte(PTS\,{last})+eq(N\,{len(durations) - 1})"  # the last shown, and the last stored
        options["bsf:v"] = rf"setts=pts=PTS:dts=DTS:duration=if({final}\,max({end}-PTS\,1)\,DURATION)"
    return options


def _trimming(encoding: Encoding, muxer: str) -> Options:
    if not encoding.trimmed:
        return {}
    # Seeking lands before the cut, at a key frame of the source; a subtitle may have begun before the cut.
    options: Options = {"copypriorss:a": 0}
    if muxer in ("matroska", "webm"):
        options["avoid_negative_ts"] = "disabled"  # otherwise everything is delayed until that subtitle ends
    _, stop = encoding.clip.frame_range(encoding.start, encoding.end)
    if encoding.end is not None and stop is not None:
        options["t"] = in_seconds(encoding.clip.frame_time(stop) - encoding.begin)
    return options


def _other_streams(encoding: Encoding, muxer: str) -> tuple[list[Any], Options]:
    """The source's sounds and subtitles that go along, and the options saying how."""
    clip, options = encoding.clip, dict[str, Any]()
    seek = {"ss": in_seconds(clip.start + encoding.begin)} if encoding.trimmed else {}
    source = ffmpeg.input(file_url(clip.path), protocol_whitelist=LOCAL, **seek)
    streams: list[Any] = []
    for kind, codecs in (
        ("a", sound_codecs(clip, encoding.target, encoding.audio)),
        ("s", subtitle_codecs(clip, muxer)),
    ):
        kept = [(index, codec) for index, codec in enumerate(codecs) if codec]
        streams += [source[f"{kind}:{index}"] for index, _ in kept]
        options |= {f"c:{kind}:{number}": codec for number, (_, codec) in enumerate(kept)}
    return streams or [source["a:999?"]], options  # no stream: the file is opened for its metadata and chapters


def concat_list(folder: Path, durations: Sequence[Fraction]) -> str:
    """A list for ffmpeg's concat demuxer: the frames of a folder, and how long each is shown, in s."""
    lines = ["ffconcat version 1.0"]
    edges = [0]
    for time in itertools.accumulate(max(Fraction(duration), SHORTEST) for duration in durations):
        edges.append(round(time * 1_000_000))  # the sum is rounded, so that errors do not add up
    for index, (begin, end) in enumerate(itertools.pairwise(edges)):
        lines.append(f"file {quoted(file_url(folder / (FRAME_NAME % index)))}")
        lines.append(f"option framerate {TIME_BASE}")  # the time base: without it times are rounded to 1/25 s
        lines.append(f"duration {(end - begin) // 1_000_000}.{(end - begin) % 1_000_000:06d}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """``text`` as one word of a list for ffmpeg.

    Raises:
        StylizeError: it has a line break, which such a list cannot hold.
    """
    if set(text) & set("\n\r\0"):
        raise StylizeError(f"{text!r} has a line break in its name; use a folder without one")
    return "'" + text.replace("'", "'\\''") + "'"


# --- writing ---------------------------------------------------------------------------------------------------------


def encode(encoding: Encoding) -> None:
    """Write the clip; the target is either complete or untouched.

    Sound that cannot be copied is encoded, and left out where that fails too, with a warning each.

    Raises:
        StylizeError: frames are missing or of a size the codec does not take, or ffmpeg failed.
    """
    clip, target = encoding.clip, encoding.target
    codec, muxer = check_codec(encoding.codec_name, target, encoding.audio)
    _check_frames(encoding.frames, encoding.durations, codec)
    if dropped := [name for name, how in zip(clip.subtitles, subtitle_codecs(clip, muxer), strict=True) if not how]:
        log.warning("%s: a %s file cannot hold its subtitles (%s)", clip.path, target.suffix, ", ".join(dropped))
    if clip.audio and encoding.audio != "none" and muxer == "gif":
        log.warning("%s: a .gif file cannot hold its sound", clip.path)
        encoding = replace(encoding, audio="none")
    wanted = zip(clip.audio, sound_codecs(clip, target, encoding.audio), strict=True)
    if encoding.audio == "copy" and (others := [name for name, how in wanted if how != "copy"]):
        log.warning(
            "%s: a %s file cannot hold its sound (%s); encoding it", clip.path, target.suffix, ", ".join(others)
        )
    with tempfile.TemporaryDirectory() as folder:
        list_file = None
        if encoding.durations is not None:
            list_file = Path(folder, "frames.txt")
            list_file.write_text(concat_list(encoding.frames, encoding.durations), encoding="utf-8")
        for audio in AUDIO[AUDIO.index(encoding.audio) :] if clip.audio else ["none"]:
            try:
                _run(encode_arguments(replace(encoding, audio=audio), list_file), target)
                return
            except StylizeError as error:
                if audio == "none" or DISK_FULL in str(error):
                    raise
                next_way = "encoding it" if audio == "copy" else "leaving it out"
                log.warning("%s: the sound could not be written, %s (%s)", clip.path, next_way, error)


def _check_frames(folder: Path, durations: Sequence[Fraction] | None, codec: Codec) -> None:
    count = sum(1 for path in folder.glob("*.png") if path.stem.isdigit() and len(path.stem) == 8)
    if not count or not all((folder / (FRAME_NAME % index)).exists() for index in range(count)):
        raise StylizeError(f"{folder}: frames are missing; there are {count}")
    if durations is not None and len(durations) != count:
        raise StylizeError(f"{folder}: {count} frames, but {len(durations)} durations")
    with Image.open(folder / (FRAME_NAME % 0)) as picture:
        width, height = picture.size
    across, down = codec.multiples
    if width % across or height % down:
        raise StylizeError(f"{folder}: frames are {width}x{height}, but {codec.encoder} takes even sizes only")


def _run(arguments: Sequence[str], target: Path) -> None:
    with atomic_write(target) as temporary:
        command = ["-y", *arguments[:-1], file_url(temporary)]
        with ffmpeg_process(command, subprocess.DEVNULL) as (process, messages):
            code = process.wait()
            lines = last_lines(messages)
        if code or not temporary.stat().st_size:
            raise StylizeError(one_line(f"cannot write {target}: ffmpeg failed ({lines or f'code {code}'})"))
