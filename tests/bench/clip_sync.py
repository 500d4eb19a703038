"""A flash and a beep: whether picture and sound are still together in painted clips.

    python -m tests.bench.clip_sync [CLIP ...]

Paints clips of every kind that loses frames or moves times, made by ffmpeg, and those that are named, which must hold
one white flash and one beep at the same time, and prints how long the flash comes after the beep, before and after.
Run by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.test_video_timing import KINDS, apart, flash_and_beep, run

STYLE = Path(__file__).resolve().parents[2] / "samples" / "mosaic.jpg"
# The pictures hardly change.
SAME = ["--scales", "1", "--steps", "1", "--frame-steps", "1", "--style-weight", "0", "--temporal-weight", "0"]
WITHIN = 0.041  # s: a frame
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac")


def varied(folder: Path) -> Path:
    times = "settb=1/1000,setpts='(N*40+20*mod(N,3))'"
    return flash_and_beep(
        folder / "in.mp4", "-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1:1000", *H264
    )


def copied_part(folder: Path) -> Path:
    """Cut without encoding: an edit list hides what precedes the cut."""
    flash_and_beep(folder / "whole.mp4", *H264, "-g", "50", at=2, length=3)
    run("-ss", "0.7", "-i", folder / "whole.mp4", "-c", "copy", folder / "in.mp4")
    return folder / "in.mp4"


def late_picture(folder: Path) -> Path:
    flash_and_beep(folder / "whole.mkv", *H264)
    late = ["-itsoffset", "0.4", "-i", folder / "whole.mkv", "-itsoffset", "0", "-i", folder / "whole.mkv"]
    run(
        *late, "-map", "0:v", "-map", "1:a", "-af", "adelay=400:all=1", "-c:v", "copy", "-c:a", "aac", folder / "in.mkv"
    )
    return folder / "in.mkv"


def interlaced(folder: Path) -> Path:
    fields = ["-vf", "fps=50,interlace=scan=tff", "-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-c:a", "mp2"]
    return flash_and_beep(folder / "in.mpg", *fields)


def fragmented(folder: Path) -> Path:
    return flash_and_beep(folder / "in.mp4", *H264, "-movflags", "frag_keyframe+empty_moov")


def truncated(folder: Path) -> Path:
    data = flash_and_beep(folder / "whole.mkv", *H264, length=3).read_bytes()
    (folder / "in.mkv").write_bytes(data[: len(data) * 2 // 3])
    return folder / "in.mkv"


def simple(name: str, *options: str) -> Callable[[Path], Path]:
    return lambda folder: flash_and_beep(folder / name, *options)


MORE: dict[str, Callable[[Path], Path]] = {
    "variable rate": varied,
    "copied part": copied_part,
    "late picture": late_picture,
    "interlaced": interlaced,
    "fragmented": fragmented,
    "truncated": truncated,
    "avi": simple("in.avi", "-c:v", "mpeg4", "-bf", "2", "-c:a", "mp3"),
    "mjpeg": simple("in.mov", "-c:v", "mjpeg", "-pix_fmt", "yuvj422p", "-c:a", "pcm_s16le"),
    "wmv": simple("in.wmv", "-c:v", "wmv2", "-c:a", "wmav2"),
    "flv": simple("in.flv", "-c:v", "flv1", "-ar", "44100"),
}


def kinds() -> Iterator[tuple[str, Callable[[Path], Path]]]:
    yield from (KINDS | MORE).items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    options = parser.parse_args()
    worst = 0.0
    named = [(path.name, lambda _, path=path: path) for path in options.clips]
    for name, make in [*kinds(), *named]:
        for end in (".mp4", ".mkv"):
            with tempfile.TemporaryDirectory() as work:
                source, target = make(Path(work)), Path(work, f"painted{end}")
                command = [sys.executable, "-m", "stylize", str(source), str(STYLE), "-q", "-o", str(target)]
                done = subprocess.run([*command, "--encoder", "mini", "--size", "48", *SAME], capture_output=True)
                if done.returncode:
                    print(f"{name:14} {end}  FAILED: {done.stderr.decode().strip()}", flush=True)
                    worst = 1.0
                    continue
                before, after = apart(source), apart(target)
                worst = max(worst, abs(after - before))
                verdict = "" if abs(after - before) <= WITHIN else "  OUT OF STEP"
                print(
                    f"{name:14} {end}  {before * 1000:+5.0f} ms, painted {after * 1000:+5.0f} ms{verdict}", flush=True
                )
    print(f"moved by at most {worst * 1000:.0f} ms")
    sys.exit(worst > WITHIN)


if __name__ == "__main__":
    main()
