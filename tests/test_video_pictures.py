"""Clips made of pictures, files whose names do not tell that they are clips, HDR, and the choice of sound."""

from __future__ import annotations

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylize import load
from stylize_video.colors import HDR, converter, described
from stylize_video.ffmpeg import executable
from stylize_video.pictures import files, frame_count, is_pattern, probe_animation, probe_files, rate_of, read
from stylize_video.probe import Clip, probe
from tests.conftest import Call
from tests.test_video import FAST, Array, Paint, frames_of, moving, paint, style

__all__ = ["paint", "style"]  # fixtures


def run(*arguments: object) -> None:
    subprocess.run([executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture
def sequence(folder: Path) -> Path:
    """A folder of five pictures, the tenth of which comes after the ninth."""
    made = folder / "seq"
    made.mkdir()
    for number, frame in enumerate(moving(5), 8):
        Image.fromarray(frame).save(made / f"f{number}.png")
    (made / "notes.txt").touch()
    (made / ".hidden.png").touch()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("source", ["seq", "seq/f%d.png"])
def test_numbered_pictures_become_a_clip(paint: Paint, sequence: Path, source: str) -> None:
    assert paint(source, "--fps", "23.976").out == "out.mkv\n"
    made = probe(Path("out.mkv"))
    assert (made.frames, made.rate, made.times) == (5, Fraction(24000, 1001), None)
    assert Path("out.mkv").is_file()


@pytest.mark.slow
def test_a_stretch_of_pictures(paint: Paint, sequence: Path) -> None:
    paint("seq", "--fps", "10", "--from", "0.1", "--to", "0.35")
    assert len(frames_of(Path("out.mkv"))) == 3


def test_the_files_of_a_pattern_are_in_order_of_their_numbers(sequence: Path) -> None:
    names = [f"f{number}.png" for number in range(8, 13)]
    assert [path.name for path in files(sequence)] == names
    assert [path.name for path in files(sequence / "f%d.png")] == names
    assert [path.name for path in files(sequence / "f%02d.png")] == names[2:]
    assert files(sequence / "g%d.png") == files(sequence / "no" / "f%d.png") == []
    (sequence / "a%d.png").touch()
    assert not is_pattern(sequence / "a%d.png")


def test_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    levels = (np.arange(6 * 8 * 3, dtype=np.uint16) * 300).reshape(6, 8, 3)
    import cv2

    cv2.imwrite(str(tmp_path / "1.png"), levels[..., ::-1])
    clip = probe_files(tmp_path)
    assert (clip.bits, clip.alpha, clip.frames, clip.rate) == (16, False, 1, 25)
    (frame,) = read(clip, 6, 8, 0, None)
    assert np.abs(frame.astype(int) - levels).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng", "a.gif"])
def test_an_animated_picture_is_a_clip_where_a_clip_is_asked_for(
    paint: Paint, call: Call, folder: Path, name: str
) -> None:
    first, *rest = map(Image.fromarray, moving(4))
    lengths = [100, 100, 300, 100]
    kind = "PNG" if name.endswith("png") else None
    first.save(folder / name, kind, save_all=True, append_images=rest, duration=lengths)
    paint(name)
    made = probe(folder / "out.mkv")
    assert made.frames == 4
    assert made.times is not None
    assert [round(float(time), 2) for time in made.times] == [0, 0.1, 0.2, 0.5]
    assert call(name, "style.png", "-o", "still.png", *FAST[:6]).code == 0
    assert frame_count(folder / "still.png") == 1


def test_what_is_transparent_in_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (8, 6), (200, 0, 0, alpha)) for alpha in (255, 90)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=50, lossless=True)
    clip = probe_animation(tmp_path / "a.webp")
    assert (clip.alpha, clip.rate, clip.times) == (True, 20, None)
    assert [int(frame[0, 0, 3]) for frame in read(clip, 6, 8, 0, None)] == [255, 90]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in.vob", "in.y4m", "in.dat", "noending"])
def test_whatever_ffmpeg_reads_is_a_clip(paint: Paint, folder: Path, name: str) -> None:
    kind = {"in.vob": "vob", "in.y4m": "yuv4mpegpipe"}.get(name, "matroska")
    run("-f", "lavfi", "-i", "testsrc2=s=48x32:r=25:d=0.2", "-pix_fmt", "yuv420p", "-f", kind, folder / "made")
    shutil.move(folder / "made", folder / name)
    paint(name)
    assert probe(folder / "out.mkv").frames == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("seq", "--fps", "x"), "no number of frames per second"),
        (("in.mkv", "--fps", "25"), "in.mkv has its own rate"),
        (("in.mkv", "--hdr", "keep"), "in.mkv is not HDR"),
        (("in.mkv", "--bits", "16"), "--bits is of pictures"),
        (("in.mkv", "--quality", "80"), "--quality is of pictures"),
    ],
)
def test_what_does_not_apply(paint: Paint, sequence: Path, arguments: tuple[str, ...], words: str) -> None:
    run("-f", "lavfi", "-i", "testsrc2=s=48x32:d=0.2", "in.mkv")
    assert words in paint(*arguments, check=2).err


def test_pictures_of_several_sizes_are_refused(paint: Paint, sequence: Path) -> None:
    Image.new("RGB", (9, 9)).save(sequence / "f99.png")
    assert "different sizes" in paint("seq", check=1).err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("24", "24"), ("23.976", "24000/1001"), ("29.97", "30000/1001"), ("30000/1001", "30000/1001")],
)
def test_rates_are_read(text: str, wanted: str) -> None:
    assert rate_of(text) == Fraction(wanted)


@pytest.mark.parametrize("text", ["0", "-1", "1/0", "a", "2000"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rate_of(text)


@pytest.mark.slow
@pytest.mark.parametrize(("audio", "codecs"), [("copy", ("mp3",)), ("aac", ("aac",)), ("none", ())])
def test_the_sound_is_as_asked_for(paint: Paint, folder: Path, audio: str, codecs: tuple[str, ...]) -> None:
    run("-f", "lavfi", "-i", "testsrc2=s=48x32:d=0.2", "-f", "lavfi", "-i", "sine=d=0.2", "-c:a", "mp3", "in.mkv")
    said = paint("in.mkv", "--audio", audio).err
    assert probe(folder / "out.mkv").audio == codecs
    assert "left out" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f%02d.jpg", "f%d.tif", "f%d.webp"])
def test_a_sequence_in_other_formats(paint: Paint, sequence: Path, name: str) -> None:
    assert paint("seq", target=f"seq/{name}", codec=False).out == f"seq/{name}\n"
    assert len(files(sequence / name)) == 5
    with Image.open(sequence / (name % 1)) as image:
        assert (image.size, image.mode) == ((32, 24), "RGB")


@pytest.mark.slow
def test_a_sequence_with_16_bits(paint: Paint, sequence: Path) -> None:
    paint("seq/f%d.png", "--bits", "16", target="made", codec=False)
    clip = probe_files(Path("made"))
    assert (clip.frames, clip.bits) == (5, 16)
    (frame,) = read(clip, 24, 32, 0, 1)
    assert len(np.unique(frame)) > 300


@pytest.mark.slow
def test_a_sequence_of_exr_holds_linear_light(paint: Paint, sequence: Path) -> None:
    paint("seq/f%d.png", "--bits", "16", target="made", codec=False)
    paint("seq", target="seq/f%d.exr", codec=False)
    run("-i", sequence / "f1.exr", "-f", "rawvideo", "-pix_fmt", "gbrpf32le", "raw")
    light = np.fromfile("raw", "<f4").reshape(3, 24, 32)[[2, 0, 1]]
    (frame,) = read(probe_files(Path("made")), 24, 32, 0, 1)
    signal = frame.transpose(2, 0, 1) / 65535
    wanted = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    assert np.abs(light - wanted).max() < 0.001


def write_exr(path: Path, light: Array, half: bool = False) -> None:
    """An OpenEXR file, not compressed, of light (H, W, 3), laid out as its specification says."""
    number, code = ("<f2", 1) if half else ("<f4", 2)
    height, width, _ = light.shape
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    channel = struct.pack("<iB3xii", code, 0, 1, 1)
    attributes = (
        ("channels", "chlist", b"".join(name + b"\0" + channel for name in (b"B", b"G", b"R")) + b"\0"),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    )
    head = struct.pack("<ii", 20000630, 2)
    for name, kind, value in attributes:
        head += f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
    line, start = 3 * np.dtype(number).itemsize * width, len(head) + 1 + 8 * height
    offsets = struct.pack(f"<{height}Q", *(start + row * (line + 8) for row in range(height)))
    rows = [struct.pack("<ii", row, line) + light[row, :, ::-1].T.astype(number).tobytes() for row in range(height)]
    path.write_bytes(head + b"\0" + offsets + b"".join(rows))


@pytest.mark.slow
def test_frames_of_openexr_are_linear_light(paint: Paint, folder: Path) -> None:
    (folder / "light").mkdir()
    light = np.linspace(0, 1, 24 * 32 * 3).reshape(24, 32, 3)
    for number in range(3):
        write_exr(folder / "light" / f"{number:04}.exr", np.roll(light, number, 1))
    clip = probe_files(folder / "light")
    assert (clip.frames, clip.bits, clip.width, clip.height, clip.alpha) == (3, 16, 32, 24, False)
    (frame,) = read(clip, 24, 32, 1, 2)
    rolled = np.roll(light, 1, 1)
    wanted = np.where(rolled <= 0.0031308, rolled * 12.92, 1.055 * rolled ** (1 / 2.4) - 0.055)
    assert np.abs(frame / 65535 - wanted).max() < 1e-4
    write_exr(folder / "half.exr", rolled, half=True)
    assert np.abs(load(folder / "half.exr").numpy(np.float64) - wanted).max() < 1e-3
    write_exr(folder / "light" / "0001.exr", light * 2)
    assert "light beyond white is cut off" not in paint("light/%04d.exr").err  # the first has none
    write_exr(folder / "light" / "0000.exr", light * 2)
    assert paint("light/%04d.exr").err.count("light beyond white is cut off") == 1
    write_exr(folder / "light" / "0002.exr", light[:20])
    said = paint("light/%04d.exr", check=1).err
    assert "0002.exr is 32x20, and the first of them 32x24" in said


# Colours


def hdr(transfer: str, primaries: str = "bt2020") -> Clip:
    return Clip(Path("in"), 2, 2, Fraction(25), bits=10, transfer=transfer, primaries=primaries)


def shown(clip: Clip, *colors: tuple[float, float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    convert = converter(clip)
    assert convert is not None
    return np.asarray(convert((np.array([colors]) * 65535).round().astype(np.uint16))[0] / 65535)


@pytest.mark.parametrize(("transfer", "white"), [("arib-std-b67", 0.75), ("smpte2084", 0.5807)])
def test_diffuse_white_is_nearly_white_and_what_is_brighter_stays_brighter(transfer: str, white: float) -> None:
    greys = [(signal,) * 3 for signal in (0.0, white / 4, white / 2, white, (1 + white) / 2, 1.0)]
    levels = shown(hdr(transfer), *greys)
    assert np.ptp(levels, 1).max() < 0.002  # greys stay grey
    assert levels[0].max() < 0.01
    assert 0.93 < levels[3][0] < 0.98
    assert np.all(np.diff(levels[:, 0]) > 0)


@pytest.mark.parametrize("primaries", ["bt2020", "smpte432"])
def test_a_wide_gamut_is_converted_and_greys_stay(primaries: str) -> None:
    clip = hdr("bt709", primaries)
    grey, red, green = shown(clip, (0.5, 0.5, 0.5), (0.6, 0.3, 0.3), (0.3, 0.6, 0.3))
    assert np.abs(grey - 0.5).max() < 0.001
    assert red[0] > 0.62
    assert red[1] < 0.3
    assert green[1] > 0.6
    assert described(clip) == f"a wide gamut ({primaries})"
    assert converter(hdr("bt709", "bt709")) is None


def test_the_matrix_is_that_of_bt2087() -> None:
    """ITU-R BT.2087: linear BT.2020 to BT.709."""
    wanted = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    from stylize_video.colors import _BT709, _BT2020, _to_xyz

    assert np.abs(np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(_BT2020) - wanted).max() < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("transfer", HDR)
def test_hdr_is_converted_or_kept_and_that_is_said_once(paint: Paint, folder: Path, transfer: str) -> None:
    tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc"
    run("-f", "lavfi", "-i", f"testsrc2=s=48x32:d=0.12,format=yuv420p10le,{tags}", "-c:v", "ffv1", "in.mkv")
    said = paint("in.mkv", target="out.mp4", codec=False).err
    assert said.count("HDR") == 1
    made = probe(folder / "out.mp4")
    assert (made.transfer, made.primaries, made.codec, made.bits) == ("bt709", "bt709", "h264", 8)
    assert "HDR" not in paint("in.mkv", "--hdr", "keep", target="out.mp4", codec=False).err
    made = probe(folder / "out.mp4")
    assert (made.transfer, made.primaries, made.codec, made.bits) == (transfer, "bt2020", "hevc", 10)
    assert (
        "too few bits" in paint("in.mkv", "--hdr", "keep", "--codec", "h264", target="o.mp4", codec=False, check=2).err
    )
