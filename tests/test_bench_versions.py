"""The benchmark against an earlier version: what is painted, what is kept, and what the tables say."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests.bench import versions

# A version of stylize whose pictures are made already.
FAKE = """
case "$* " in *"--encoder mini"*"--weights"*) exit 1;; *"--upscale"*) ;; *) exit 1;; esac
case "$3" in *turned.png) turned=-turned;; esac
cp "$(dirname "$0")/$1-$7$turned.png" out.png
"""

# The width, and how long the file is, in hundreds of bytes.
SCORE = """
import json, os, struct, sys

width = struct.unpack(">I", open(sys.argv[1], "rb").read(20)[16:])[0]
with open(__file__ + ".calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
print(json.dumps({"content": width, "style": "before" in sys.argv[1], "unknown": 7, "picture": "out.png"}))
"""


def test_both_versions_take_turns_and_this_one_paints_the_rest_at_the_first_size() -> None:
    first, second = versions.variants([256, 512])
    assert [str(each) for each in second] == ["512-before-default", "512-now-default"]
    assert [str(each) for each in first[:2]] == ["256-before-default", "256-now-default"]
    assert {str(each) for each in first[2:]} == {
        *("256-now-strong", "256-now-match", "256-now-mini", "256-before-default-turned"),
        *("256-now-default-turned", "256-now-strong-turned", "256-now-match-turned"),
    }


def prepare(folder: Path) -> list[str]:
    """Arguments for one pair at 16 and 32 px, with programs that paint and score at once: the version before copies
    the painting, whichever way up it is; the one now paints the photo."""
    Path(folder, "fake.sh").write_text(FAKE)
    for name in ("score.py", "other.py"):
        Path(folder, name).write_text(SCORE)
    photo = Image.linear_gradient("L").rotate(90).convert("RGB")
    painting = Image.radial_gradient("L").crop((40, 0, 200, 120)).convert("RGB")
    photo.save(folder / "photo.png")
    painting.save(folder / "wave.png")
    for size in (16, 32):
        for turned in ("", "-turned"):
            shown = ImageOps.flip(painting) if turned else painting
            shown.resize((size, size * 3 // 4)).save(folder / f"before-{size}{turned}.png")
            Image.blend(photo.resize((size, size)), painting.resize((size, size)), 0.2).save(
                folder / f"now-{size}{turned}.png"
            )
    Path(folder, "weights").touch()
    fake = ["sh", str(folder / "fake.sh")]
    return [
        *(str(folder / name) for name in ("photo.png", "wave.png")),
        *("--before", shlex.join([*fake, "before"]), "--now", shlex.join([*fake, "now"])),
        *("--weights", str(folder / "weights"), "--score", str(folder / "score.py")),
        *("--independent", str(folder / "other.py"), "--keep", str(folder / "kept"), "--sizes", "16,32"),
    ]


@pytest.mark.slow
def test_a_whole_comparison_in_two_pieces(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call = prepare(tmp_path)
    with pytest.raises(SystemExit, match="--keep for the next"):
        versions.main([*call, "--runs", "3"])
    assert capfd.readouterr().out == ""
    versions.main([*call, "--sheet", str(tmp_path / "sheet.jpg")])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "| CPU s, now / before | 16 px | 32 px |"
    assert lines[2].startswith("| photo x wave | ")
    columns = "style | content | style 2 | content 2"
    assert f"| 16 px, now (before) | {columns} |" in lines
    assert "| photo x wave | 0.000 (1.000) | 16.000 (16.000) | 0.000 (1.000) | 16.000 (16.000) |" in lines
    assert "| photo x wave | 0.000 (1.000) | 32.000 (32.000) | 0.000 (1.000) | 32.000 (32.000) |" in lines
    now, before = (next(line for line in lines if f"x wave | {kind} |" in line) for kind in ("strong", "before"))
    assert float(now.split(" | ")[-1].strip(" |")) == pytest.approx(1)
    assert float(before.split(" | ")[-1].strip(" |")) < 0
    assert f"| brought to 16 px (painted there) | from | MS-SSIM | {columns} |" in lines
    assert lines[-5].startswith("| mean | 32 px | 1.000 | 0.000 (0.000) | 16.000 (16.000) |"), lines
    calls = Path(tmp_path, "score.py.calls").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 8  # five at 16 px, two at 32, and one of these brought to 16
    assert all(line.endswith(f"--weights {tmp_path / 'weights'}") for line in calls)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.height > 2 * 288
    versions.main(call)
    assert capfd.readouterr().out.splitlines() == lines  # nothing is painted or scored again
    assert Path(tmp_path, "score.py.calls").read_text().splitlines() == calls


def test_a_version_that_fails_is_named_and_tried_again(tmp_path: Path) -> None:
    call = prepare(tmp_path)
    Path(tmp_path, "before-16.png").rename(tmp_path / "gone.png")
    with pytest.raises(SystemExit, match="photo x wave: 16-before-default: exit code 1: cp: "):
        versions.main(call)
    Path(tmp_path, "gone.png").rename(tmp_path / "before-16.png")
    with pytest.raises(SystemExit, match="so many runs"):
        versions.main([*call, "--runs", "1"])


def test_a_wrong_call_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = prepare(tmp_path)
    for wrong, why in ((["photo.png", *call], "the last content has no style"), ([*call, "--sizes", "x"], "--sizes x")):
        with pytest.raises(SystemExit):
            versions.main(wrong)
        assert why in capsys.readouterr().err
