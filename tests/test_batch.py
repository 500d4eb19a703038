"""Folders: what is painted, what is left alone, what goes wrong, and what survives."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylize import (
    Chain,
    Frame,
    ImageError,
    Painted,
    Picture,
    Saved,
    Settings,
    SettingsError,
    StylizeError,
    Stylizer,
    load,
    read_record,
    saved_state,
)
from stylize import run as run_job
from stylize.encoders import EncoderSpec
from stylize_batch.job import FolderJob
from stylize_batch.ledger import Ledger
from stylize_batch.report import Entry
from stylize_batch.scan import Found, Names, Passed, is_pattern, names_of, pairs, search
from stylize_batch.watch import Watched
from tests import moments, preloaded
from tests.conftest import PATIENCE, Call, Cli, Done, waves
from tests.moments import moment, wait_for

FAST = ("--encoder", "tiny", "--size", "16", "--steps", "2")


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture(waves(12, 16, seed)).save(path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their names in it, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def photos(folder: Path) -> Path:
    """photos/: a.png, b.jpg, inner/c.webp; style.png beside it."""
    for number, name in enumerate(("a.png", "b.jpg", "inner/c.webp")):
        save(folder / "photos" / name, number)
    save(folder / "style.png", 9)
    return folder / "photos"


Paint = Callable[..., Done]


@pytest.fixture
def paint(call: Call, photos: Path) -> Paint:
    """``stylize photos style.png -o out OPTIONS``."""

    def run(*options: object, check: int = 0) -> Done:
        done = call("photos", "style.png", "-o", "out", *FAST, *options)
        assert done.code == check, done.err
        assert "Traceback" not in done.err
        return done

    return run


# What is painted


@pytest.mark.slow
def test_a_folder_goes_into_a_folder_same_tree_same_names(paint: Paint, folder: Path) -> None:
    before = files(folder / "photos")
    done = paint()
    assert done.out == "out\n"
    assert list(files(folder / "out")) == ["a.png", "b.jpg", "inner/c.webp"]
    assert files(folder / "photos") == before
    assert re.search(r"3/3  inner/c.webp  loss .* \d s\nnote: 3 painted in [\d.]+ s\n$", done.err)


@pytest.mark.slow
def test_a_folder_gives_what_single_runs_give(paint: Paint, call: Call, folder: Path) -> None:
    paint()
    for name in ("a.png", "b.jpg", "inner/c.webp"):
        single = folder / "out" / f"single{PurePath(name).suffix}"
        assert call(folder / "photos" / name, "style.png", "-o", single, *FAST).code == 0
        assert torch.equal(load(single).rgb, load(folder / "out" / name).rgb)


def test_without_an_output_the_folder_is_named_after_the_photos(call: Call, photos: Path) -> None:
    assert call("photos", "style.png", *FAST).out == "photos-stylized\n"
    assert len(files(Path("photos-stylized"))) == 3


@pytest.mark.slow
def test_what_cannot_be_written_in_its_own_format_becomes_png(paint: Paint, photos: Path, folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (9, 7), "red").save(photos / "d.bmp")
    Image.new("RGB", (9, 7), "red").save(photos / "UP.JPG")
    paint()
    assert {"d.png", "UP.JPG"} <= set(files(folder / "out"))


def test_format_and_name_choose_the_names(paint: Paint, folder: Path) -> None:
    paint("--format", "png", "--name", "{style}/{stem}-of-{name}.{ext}")
    assert list(files(folder / "out")) == [
        "inner/style/c-of-c.webp.png",
        "style/a-of-a.png.png",
        "style/b-of-b.jpg.png",
    ]


@pytest.mark.slow
def test_a_pattern_finds_pictures_at_any_depth(call: Call, photos: Path, folder: Path) -> None:
    for pattern, expected in {
        "photos/**/*.[jw]*": ["b.jpg", "inner/c.webp"],
        "photos/*.png": ["a.png"],
        "*/inner/?.webp": ["photos/inner/c.webp"],
    }.items():
        assert call(pattern, "style.png", "-o", "out", *FAST).code == 0
        assert list(files(folder / "out")) == expected
        for name in expected:
            (folder / "out" / name).unlink()


def test_a_pattern_without_pictures_is_one_clear_line(call: Call, photos: Path) -> None:
    done = call("photos/*.gif", "style.png", "-o", "out", *FAST)
    assert (done.code, done.err) == (1, "stylize: photos/*.gif: no pictures there\n")
    assert not Path("out").exists()


@pytest.mark.slow
def test_every_photo_in_every_style(call: Call, photos: Path, folder: Path) -> None:
    for number, name in enumerate(("x.png", "y.png")):
        save(folder / "styles" / name, 20 + number)
    assert call("photos", "styles", "-o", "out", *FAST).code == 0  # cross is the default for a folder of styles
    names = {f"{inside}{stem}-{style}.{ext}" for inside, stem, ext in PHOTOS for style in "xy"}
    assert set(files(folder / "out")) == names
    assert call("photos/a.png", "styles/x.png", "-o", "single.png", *FAST).code == 0
    assert torch.equal(load("single.png").rgb, load("out/a-x.png").rgb)
    assert not torch.equal(load("out/a-y.png").rgb, load("out/a-x.png").rgb)
    assert call("photos/a.png", "styles", "-o", "tried", *FAST).code == 0  # one photo in many styles
    assert set(files(folder / "tried")) == {"a-x.png", "a-y.png"}


PHOTOS = [("", "a", "png"), ("", "b", "jpg"), ("inner/", "c", "webp")]


@pytest.mark.slow
def test_several_style_files_are_blended_unless_paired(call: Call, photos: Path, folder: Path) -> None:
    styles = [save(folder / f"{name}.png", 20 + number).name for number, name in enumerate("xy")]
    assert call("photos", *styles, "-o", "blend", *FAST).code == 0
    assert call("photos", *styles, "-o", "cycle", "--pair", "cycle", *FAST).code == 0
    for crossed in (styles, ["[xy].png"]):
        assert call("photos/a.png", *crossed, "-o", "cross", "--pair", "cross", *FAST).code == 0
        assert set(files(folder / "cross")) == {"a-x.png", "a-y.png"}
    assert call("photos/a.png", *styles, "-o", "single.png", *FAST).code == 0
    assert torch.equal(load("single.png").rgb, load("blend/a.png").rgb)
    records = {name: read_record(folder / "cycle" / name) or {} for name in files(folder / "cycle")}
    assert [record["styles"][0]["path"][-5:] for record in records.values()] == ["x.png", "y.png", "x.png"]


def test_pairs_by_name_leave_out_photos_without_a_style(call: Call, photos: Path, folder: Path) -> None:
    save(folder / "styles" / "A.png", 20)
    save(folder / "styles" / "c.png", 21)
    done = call("photos", "styles", "-o", "out", "--pair", "name", *FAST)
    assert (done.code, list(files(folder / "out"))) == (0, ["a.png", "inner/c.webp"])
    assert "2 painted, 1 ignored" in done.err


# Never twice


@pytest.mark.slow
def test_a_rerun_does_only_what_is_missing_or_changed(paint: Paint, folder: Path, photos: Path) -> None:
    paint()
    before = files(folder / "out")
    marks = {name: (folder / "out" / name).stat().st_mtime_ns for name in before}
    done = paint()
    assert "3 of 3 are up to date (--force paints them again)" in done.err
    assert "note: 3 unchanged in" in done.err
    (folder / "out" / "b.jpg").unlink()
    save(photos / "inner" / "c.webp", 30)
    done = paint()
    assert "1 of 3 to be painted again: changed: photo" in done.err
    assert "2 painted, 1 unchanged" in done.err
    after = files(folder / "out")
    assert after["b.jpg"] == before["b.jpg"]
    assert after["inner/c.webp"] != before["inner/c.webp"]
    assert (folder / "out" / "a.png").stat().st_mtime_ns == marks["a.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--content-weight", "0.2"), "settings"),
        (("--seed", "1"), "settings"),
        (("--bits", "16"), ""),
        (("--quality", "50"), "saving"),
        (("--init", "start.png"), "start, settings"),
        (("--force",), "forced"),
        (("--device", "cpu"), ""),
        (("--report", "r.html"), ""),
    ],
)
def test_other_settings_paint_again(
    paint: Paint, photos: Path, folder: Path, options: tuple[str, ...], what: str
) -> None:
    save(folder / "start.png", 40)
    (photos / "b.jpg").unlink()
    (photos / "inner" / "c.webp").unlink()
    paint()
    done = paint(*options)
    what = "saving" if "--bits" in options else what
    if not what:
        assert "note: 1 unchanged in" in done.err
    else:
        assert f"1 of 1 to be painted again: {'' if what == 'forced' else 'changed: '}{what}\n" in done.err
        assert "note: 1 unchanged in" in paint(*[o for o in options if o != "--force"]).err


@pytest.mark.slow
def test_another_style_paints_again_and_another_name_of_it_does_not(call: Call, paint: Paint, folder: Path) -> None:
    paint()
    (folder / "style.png").rename(folder / "named.png")
    assert "3 unchanged" in call("photos", "named.png", "-o", "out", *FAST).err
    save(folder / "named.png", 41)
    assert "3 of 3 to be painted again: changed: style\n" in call("photos", "named.png", "-o", "out", *FAST).err


@pytest.mark.slow
def test_what_others_made_or_edited_is_not_painted_over(paint: Paint, folder: Path) -> None:
    paint("--format", "jpg")
    results = [folder / "out" / name for name in ("a.jpg", "b.jpg", "inner/c.jpg")]
    with Image.open(results[0]) as image:  # retouched, by a program that keeps XMP
        image.load()
        image.paste((255, 0, 0), (2, 2, 8, 8))
        image.save(results[0], xmp=image.info["xmp"], quality=95)
    save(results[1], 50)
    before = files(folder / "out")
    assert "1 skipped" in paint("--format", "jpg").err  # the first has the record that it should have
    done = paint("--format", "jpg", "--content-weight", "0.2", "--report", "report.html")
    assert "out/a.jpg is left as it is: it was edited since it was painted (--force paints over it)\n" in done.err
    assert "out/b.jpg is left as it is: there is a file without a record" in done.err
    assert "1 painted, 2 skipped in" in done.err
    assert 'id="skipped"' in (folder / "report.html").read_text()
    after = files(folder / "out")
    assert {name for name in after if after[name] != before[name]} == {"inner/c.jpg"}
    assert "3 painted" in paint("--format", "jpg", "--content-weight", "0.2", "--force").err
    assert read_record(results[1]) is not None


def test_a_file_that_comes_while_its_picture_is_painted_is_left(
    paint: Paint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylize.host import Host

    finish = Host.finish

    def finishing(self: Host, image: Picture, *rest: Any) -> Picture:
        save(folder / "out" / "a.png", 50)
        return finish(self, image, *rest)

    monkeypatch.setattr(Host, "finish", finishing)
    assert "2 painted, 1 skipped" in paint().err
    assert read_record(folder / "out" / "a.png") is None


def test_an_empty_file_is_nobodys_work(paint: Paint, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "a.png").touch()
    assert "3 painted" in paint().err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("exiftool"), reason="no exiftool")
@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff", "avif"])
def test_a_rated_result_is_ours_still(paint: Paint, folder: Path, extension: str) -> None:
    paint("--format", extension)
    rated = folder / "out" / f"a.{extension}"
    record = read_record(rated)
    tags = ("-XMP:Rating=5", "-XMP:Subject=wedding", "-EXIF:Artist=Zoë", "-XMP:Description=x" + "y" * 3000)
    subprocess.run(["exiftool", "-q", "-overwrite_original", *tags, str(rated)], check=True)
    assert read_record(rated) == record
    before = rated.read_bytes()
    assert "3 unchanged" in paint("--format", extension).err
    assert rated.read_bytes() == before
    assert saved_state(rated) is Saved.INTACT
    assert "3 painted" in paint("--format", extension, "--content-weight", "0.2").err  # and what was noted is kept
    told = subprocess.run(
        ["exiftool", "-s3", "-XMP:Rating", "-XMP:Subject", str(rated)], capture_output=True, text=True, check=True
    ).stdout
    assert told == "5\nwedding\n"


@pytest.mark.slow
def test_a_truncated_result_is_painted_again(paint: Paint, folder: Path) -> None:
    paint()
    whole = files(folder / "out")
    for name, data in whole.items():
        (folder / "out" / name).write_bytes(data[:-7])
    assert "3 painted" in paint().err
    assert files(folder / "out") == whole


@pytest.mark.slow
def test_a_sidecar_holds_the_record_too(paint: Paint, folder: Path) -> None:
    paint()
    assert "3 unchanged" in paint("--sidecar").err  # made good without painting
    sidecar = folder / "out" / "a.png.json"
    assert json.loads(sidecar.read_text()) == read_record(folder / "out" / "a.png")
    sidecar.unlink()
    (folder / "out" / "b.jpg").write_bytes(b"nonsense")  # its sidecar does not vouch for it
    assert "2 unchanged, 1 skipped" in paint("--sidecar").err
    assert json.loads(sidecar.read_text()) == read_record(folder / "out" / "a.png")


@pytest.mark.slow
def test_a_sidecar_that_cannot_be_written_fails_its_picture_alone(paint: Paint, folder: Path) -> None:
    paint("--sidecar")
    (folder / "out" / "a.png.json").unlink()
    (folder / "out" / "a.png.json").mkdir()
    theirs = folder / "out" / "b.jpg.json"
    theirs.write_text('{"title": "IMG_1.jpg", "description": "what another program tells of it"}')
    done = paint("--sidecar", check=1)
    assert "1 unchanged, 2 failed" in done.err
    assert "a.png.json" in done.err
    assert "b.jpg.json is no record of stylize" in done.err
    assert "title" in theirs.read_text()
    (folder / "out" / "a.png.json").rmdir()
    assert "3 painted" in paint("--sidecar", "--force").err
    assert json.loads(theirs.read_text()) == read_record(folder / "out" / "b.jpg")


@pytest.mark.slow
def test_a_picture_that_was_stopped_is_not_up_to_date(
    cli_environment: Mapping[str, str], paint: Paint, folder: Path
) -> None:
    options = ("--size", "16", "--optimizer", "adam", "--tolerance", "0", "--json")
    with started(cli_environment, folder, *options, "--steps", "100000") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"step"' in line:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    record = read_record(folder / "out" / "a.png")
    assert record is not None
    assert record["stopped"] is True
    record["settings"]["steps"] = [2]
    Picture(waves(12, 16), record=record).save(folder / "out" / "a.png")
    done = paint("--optimizer", "adam", "--tolerance", "0", "--size", "16")
    assert re.search("1 of 3 to be painted again: changed: .*stopped", done.err)


@pytest.mark.parametrize(
    "record",
    [
        '{"settings": "x"}',
        '{"settings": {}, "styles": 5, "content": [], "init": 3}',
        "{}",
        '{"settings": {"size": "a"}}',
    ],
)
def test_a_strange_record_is_another_one(paint: Paint, folder: Path, record: str) -> None:
    (folder / "out").mkdir()
    Picture(waves(12, 16), record=json.loads(record)).save(folder / "out" / "a.png")
    assert "1 of 3 to be painted again: changed: " in paint().err


@pytest.mark.slow
def test_a_finishing_plugin_that_makes_a_new_picture_keeps_the_record(
    paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylize.host import Host

    monkeypatch.setattr(Host, "finish", lambda self, image, *rest: Picture(image.rgb * 0.5))
    paint()
    assert "3 unchanged" in paint().err


def test_records_hold_no_absolute_paths(paint: Paint, folder: Path) -> None:
    paint()
    record = read_record(folder / "out" / "inner" / "c.webp")
    assert record is not None
    assert record["content"]["path"] == "../../photos/inner/c.webp"
    assert record["styles"][0]["path"] == "../../style.png"
    assert not any(str(folder).encode() in data for data in files(folder / "out").values())


@pytest.mark.slow
def test_records_are_printed(paint: Paint, call: Call, photos: Path) -> None:
    paint()
    assert json.loads(call("record", "out/a.png").out) == read_record("out/a.png")
    done = call("record", "photos/a.png")
    assert (done.code, done.err) == (1, "stylize: no record of stylize in photos/a.png\n")
    done = call("record", "photos/a.png", "out/a.png")
    assert (done.code, json.loads(done.out)) == (1, read_record("out/a.png"))


# Replay


@pytest.mark.slow
def test_a_replay_is_the_same_file_bit_by_bit(paint: Paint, call: Call, folder: Path) -> None:
    paint("--seed", "3", "--init", "noise", "--content-weight", "0.3", "--report", "r.html")
    for name in ("a.png", "b.jpg", "inner/c.webp"):
        path = folder / "out" / name
        done = call("replay", path)
        assert done.code == 0, done.err
        assert "the same picture, pixel by pixel" in done.err
        again = path.with_stem(f"{path.stem}-replay")
        assert done.out == f"{again}\n"
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_single_picture_is_replayed_too(call: Call, photos: Path, folder: Path) -> None:
    assert call("photos/a.png", "style.png", "-o", "one.png", "--bits", "16", *FAST).code == 0
    assert call("replay", "one.png", "-o", "two.png").code == 0
    assert (folder / "one.png").read_bytes() == (folder / "two.png").read_bytes()


@pytest.mark.slow
def test_a_replay_computes_with_as_many_threads_as_before(
    call: Call, photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("photos/a.png", "style.png", "-o", "one.png", *FAST).code == 0
    before, record = torch.get_num_threads(), read_record(folder / "one.png") or {}
    assert record["machine"]["threads"] == before
    record["machine"]["threads"] = before + 2
    monkeypatch.setattr("stylize.images.read_record", lambda _: record)
    seen: list[int] = []
    paint = Stylizer.__call__

    def watched(self: Stylizer, *arguments: Any, **options: Any) -> Picture:
        seen.append(torch.get_num_threads())
        return paint(self, *arguments, **options)

    monkeypatch.setattr(Stylizer, "__call__", watched)
    done = call("replay", "one.png")
    assert done.code == 0, done.err
    assert "computed with" not in done.err
    assert seen == [before + 2]
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_replay_finds_moved_sources_by_name_and_content(paint: Paint, call: Call, folder: Path) -> None:
    paint()
    (folder / "photos").rename(folder / "archive")
    done = call("replay", "out/a.png")
    assert done.code == 1
    assert re.fullmatch(r"stylize: out/../photos/a.png, .*is not there; --sources FOLDER says where.*\n", done.err)
    (folder / "style.png").rename(folder / "archive" / "style.png")
    save(folder / "archive" / "0" / "a.png", 60)  # another of that name
    assert call("replay", "out/a.png", "--sources", "archive").code == 0
    assert torch.equal(load("out/a.png").rgb, load("out/a-replay.png").rgb)
    save(folder / "archive" / "a.png", 61)
    assert (
        "archive holds no a.png such as out/a.png was made of"
        in call("replay", "out/a.png", "--sources", "archive").err
    )


@pytest.mark.slow
def test_a_replay_does_not_write_over_its_picture_or_where_a_record_says(call: Call, photos: Path) -> None:
    assert call("photos/a.png", "style.png", "-o", "one.png", *FAST).code == 0
    assert "is also a source" in call("replay", "one.png", "-o", "one.png").err
    record = read_record("one.png")
    assert record is not None
    record["options"] = {"output": "elsewhere.png"}
    record["saving"] = {"bits": 8, "quality": None, "output": "elsewhere.png"}
    Picture(load("one.png").rgb, record=record).save("one.png")
    assert call("replay", "one.png", "-o", "mine.png").out == "mine.png\n"
    assert not Path("elsewhere.png").exists()


def test_a_replay_of_something_else_is_one_clear_line(call: Call, photos: Path, folder: Path) -> None:
    for record, words in {
        None: "holds no record of how it was made",
        "{}": "is not complete",
        '{"settings": {"sizes": 5}, "content": null, "styles": []}': "unknown setting 'sizes'",
        '{"settings": {}, "content": null, "styles": []}': "in no file",
        '{"settings": 5, "content": 6, "styles": 7}': "is not complete",
        '{"settings": [["size", 32]], "content": {}, "styles": []}': "is not complete ('settings' is [['size', 32]])",
        '{"settings": {}, "content": {"path": "style.png", "sha256": "0"}, "styles": []}': "has changed",
        '{"settings": {}, "content": {}, "styles": [], "options": 5}': "is not complete",
    }.items():
        Picture(waves(4, 4), record=None if record is None else json.loads(record)).save(folder / "odd.png")
        done = call("replay", "odd.png")
        assert done.code in (1, 2)
        assert words in done.err
        assert done.err.count("\n") == 1


ODD: dict[tuple[str, str], list[Any]] = {
    ("saving", "quality"): ["x", {}, [1], float("nan"), 101],
    ("saving", "bits"): [7, {}, [8], 10**30],
    ("saving", "profile"): ["p3", {}, 5],
    ("options", "pair"): ["no", {}, [1]],
    ("options", "exclude"): [5],
}


@pytest.mark.parametrize(("group", "name", "value"), [(*key, value) for key, values in ODD.items() for value in values])
def test_a_record_with_odd_options_is_one_clear_line(
    call: Call, photos: Path, folder: Path, group: str, name: str, value: object
) -> None:
    assert call("photos/a.png", "style.png", "-o", "one.png", *FAST).code == 0
    record = read_record("one.png")
    assert record is not None
    record.setdefault(group, {})[name] = value
    Picture(load("one.png").rgb, record=record).save("odd.png")
    done = call("replay", "odd.png", "-o", "two.png")
    assert done.code in (1, 2)
    assert re.fullmatch(f"stylize: the record is damaged: {name} is .*, which it cannot be\n", done.err)
    assert not Path("two.png").exists()


# What goes wrong


def test_one_bad_file_does_not_stop_the_rest(paint: Paint, photos: Path, folder: Path) -> None:
    (photos / "b.jpg").write_bytes(b"\xff\xd8 no picture")
    done = paint(check=1)
    assert list(files(folder / "out")) == ["a.png", "inner/c.webp"]
    assert "2 painted, 1 failed" in done.err
    assert done.err.endswith("stylize: 1 of 3 pictures failed\n")
    assert done.out == ""


@pytest.mark.slow
def test_a_hundred_bad_files_give_a_hundred_reasons(paint: Paint, photos: Path, folder: Path) -> None:
    for number in range(7):
        save(photos / f"good{number}.png", number)
    whole = (photos / "a.png").read_bytes()
    for number in range(100):
        kind, path = number % 5, photos / f"bad{number}.{('png', 'jpg', 'gif', 'tiff', 'webp')[number % 5]}"
        path.write_bytes((b"", whole[: 40 + number], b"GIF89a", os.urandom(200), whole[:33] + os.urandom(99))[kind])
    done = paint("--report", "report.html", check=1)
    assert len(files(folder / "out")) == 10
    told = [line for line in done.err.splitlines() if line.startswith("note: failed: bad")]
    assert len({line.split(":")[2] for line in told}) == len(told) == 100
    assert all(len(line.split(": ", 3)[3]) > 20 for line in told)
    assert "10 painted, 100 failed" in done.err
    page = (folder / "report.html").read_text()
    assert all(f"bad{number}." in page for number in range(100))


def test_what_is_no_picture_is_passed_over(paint: Paint, photos: Path, folder: Path) -> None:
    (photos / "notes.txt").write_text("hello")
    (photos / ".hidden.png").write_bytes(b"")
    os.mkfifo(photos / "pipe.png")
    done = paint()
    assert "3 painted, 2 ignored" in done.err
    assert len(files(folder / "out")) == 3


@pytest.mark.slow
def test_a_style_that_cannot_be_read_fails_its_own_pictures(call: Call, photos: Path, folder: Path) -> None:
    save(folder / "styles" / "good.png", 20)
    (folder / "styles" / "bad.png").write_bytes(b"nothing")
    done = call("photos", "styles", "-o", "out", *FAST)
    assert done.code == 1
    assert "3 painted, 3 failed" in done.err
    (folder / "styles" / "good.png").unlink()
    done = call("photos", "styles", "-o", "out2", *FAST)
    assert re.fullmatch(r"stylize: cannot read styles/bad.png: .*\n", done.err)


def test_a_plugin_that_fails_costs_one_picture(paint: Paint, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylize.host import Host

    finish = Host.finish

    def fails(self: Host, image: Picture, frame: Any, *rest: Any) -> Picture:
        if frame.name == "b.jpg":
            raise ZeroDivisionError("no luck")
        return finish(self, image, frame, *rest)

    monkeypatch.setattr(Host, "finish", fails)
    done = paint(check=1)
    assert list(files(folder / "out")) == ["a.png", "inner/c.webp"]
    assert "b.jpg: unexpected ZeroDivisionError: no luck" in done.err


def test_a_full_disk_ends_the_job(paint: Paint, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    done = paint(check=1)
    assert "No space left on device" in done.err.splitlines()[-1]
    assert files(folder / "out") == {}
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("photos", "style.png", "-o", "photos"), "is the folder of the photos", 2),
        (("photos", "style.png", "-o", "style.png"), "photos holds many pictures: give -o the name of a folder", 2),
        (("photos", "style.png", "-o", "out.png"), "photos holds many pictures", 2),
        (("photos/a.png", "photos", "-o", "out.png"), "photos holds many pictures", 2),
        (("photos", "missing.png", "-o", "out"), "cannot read missing.png", 1),
        (("empty", "style.png", "-o", "out"), "empty: no pictures there", 1),
        (("photos", "empty", "-o", "out"), "empty: no pictures there", 1),
        (("photos", "style.png", "empty", "-o", "out"), "empty: no pictures there", 1),
        (("photos/a.png", "style.png", "--pair", "random"), "--pair belongs to folders; photos/a.png is a picture", 2),
        (("photos", "style.png", "-o", ""), "nothing is given after -o", 2),
        (("photos", "style.png", "--name", "{stm}.png"), "{stm}; there are {stem}", 2),
        (("photos", "style.png", "--name", "{stem"), "--name '{stem'", 2),
        (("photos", "style.png", "--name", "../{stem}.{ext}"), "leads out of", 2),
        (("photos", "style.png", "--name", "/x/{stem}.{ext}"), "leads out of", 2),
        (("photos", "style.png", "--name", "{stem}.gif"), "must end in", 2),
        (
            ("photos/a.png", "style.png", "--report", "r.html"),
            "--report belongs to folders and clips; ",
            2,
        ),
        (("photos", "style.png", "-o", "out", "--report", "no/r.html"), "cannot write no/r.html", 2),
        (("photos", "style.png", "-o", "out", "--report", "photos/a.png"), "must end in .html", 2),
        (("photos", "style.png", "--name", "{stem!x}.png"), "--name '{stem!x}.png'", 2),
        (("photos", "style.png", "--name", "{stem:d}.png"), "--name '{stem:d}.png'", 2),
        (("photos/[z-a].png", "style.png"), "is no pattern", 2),
        (("photos/a.png", "style.png", "--watch"), "--watch belongs to folders; photos/a.png is a picture", 2),
    ],
)
def test_a_folder_job_that_makes_no_sense_is_one_clear_line(
    call: Call, photos: Path, arguments: tuple[str, ...], words: str, code: int
) -> None:
    Path("empty").mkdir()
    done = call(*arguments, *FAST)
    assert done.code == code
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not Path("out").exists()


def test_the_report_holds_every_picture(paint: Paint, photos: Path, folder: Path) -> None:
    (photos / "bad.png").write_bytes(b"x")
    paint("--report", "sub-report.html", check=1)
    page = (folder / "sub-report.html").read_text()
    for words in ("a.png", "b.jpg", "inner/c.webp", "bad.png", 'href="out/inner/c.webp"', "not a picture"):
        assert words in page
    assert page.count("data:image/jpeg") == 6


# Odd folders


def test_links_in_circles_are_walked_once(paint: Paint, photos: Path, folder: Path) -> None:
    (photos / "inner" / "up").symlink_to(photos)
    (photos / "self").symlink_to("self")
    done = paint(check=1)
    assert list(files(folder / "out")) == ["a.png", "b.jpg", "inner/c.webp"]
    assert "self: Too many levels" in done.err


@pytest.mark.slow
def test_an_output_folder_inside_of_the_input_is_no_input(call: Call, photos: Path) -> None:
    for _ in range(2):
        done = call("photos", "style.png", "-o", "photos/painted", *FAST)
        assert done.code == 0, done.err
    assert "3 unchanged" in done.err
    assert len(files(photos / "painted")) == 3


@pytest.mark.slow
def test_no_result_overwrites_a_source(call: Call, photos: Path, folder: Path) -> None:
    before = files(photos)
    save(folder / "photos" / "inner" / "a.png", 5)
    done = call("photos/inner", "style.png", "-o", "photos", "--name", "{name}", *FAST)
    assert done.code == 0
    assert files(photos)["inner/c.webp"] == before["inner/c.webp"]
    done = call("photos", "photos/a.png", "-o", "photos/inner", *FAST)
    assert done.code == 0  # photos/inner is the output and no input
    done = call("photos", "style.png", "-o", ".", "--name", "style.png", *FAST)
    assert "the result style.png would overwrite a source" in done.err
    save(folder / "start.png", 7)
    done = call("photos", "style.png", "-o", ".", "--name", "start.png", "--init", "start.png", *FAST)
    assert "the result start.png would overwrite a source" in done.err


@pytest.mark.slow
def test_an_output_folder_inside_of_the_styles_is_no_style(call: Call, photos: Path, folder: Path) -> None:
    save(folder / "styles" / "x.png", 20)
    for said in ("3 painted", "3 unchanged"):
        assert said in call("photos", "styles", "-o", "styles/out", *FAST).err


def test_what_cannot_be_written_is_refused_before_it_is_painted(paint: Paint, photos: Path, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "inner").write_bytes(b"a file where a folder should be")
    (folder / "out" / "a.png").mkdir()
    (photos / "b.jpg").unlink()
    done = paint(check=1)
    assert "loss" not in done.err
    for words in ("cannot make the folder", "it is a folder"):
        assert done.err.count(words) == 2  # at once, and at the end


def test_sixteen_bits_for_a_folder_of_jpegs(paint: Paint, folder: Path) -> None:
    assert "3 painted" in paint("--bits", "16").err
    assert list(files(folder / "out")) == ["a.png", "b.png", "inner/c.png"]
    for name in files(folder / "out"):
        levels = load(folder / "out" / name).rgb * 255
        assert float((levels - levels.round()).abs().max()) > 0.1
    done = paint("--bits", "16", "--format", "jpg", check=2)
    assert "--format jpg holds 8 bits per channel" in done.err


@pytest.mark.slow
def test_a_pattern_looks_no_deeper_than_it_says(call: Call, photos: Path) -> None:
    (photos / "inner" / "broken.png").symlink_to("nowhere")
    assert call("photos/*.png", "style.png", "-o", "out", *FAST).code == 0
    assert call("photos/*/*.webp", "style.png", "-o", "out", *FAST).code == 0
    assert call("photos/**/*.png", "style.png", "-o", "out", *FAST).code == 1


@pytest.mark.usefixtures("permissions")
def test_a_folder_that_may_not_be_read_is_named_and_the_rest_goes_on(paint: Paint, photos: Path) -> None:
    (photos / "inner").chmod(0)
    done = paint(check=1)
    (photos / "inner").chmod(0o700)
    assert "inner: folder not read: Permission denied" in done.err
    assert "2 painted, 1 failed" in done.err


@pytest.mark.slow
@pytest.mark.usefixtures("permissions")
def test_photos_and_results_that_may_not_be_changed(paint: Paint, photos: Path, folder: Path) -> None:
    for path in (photos / "inner", photos):
        path.chmod(0o555)
    assert "3 painted" in paint().err
    out = folder / "out"
    (out / "a.png").chmod(0o444)
    before = (out / "a.png").read_bytes()
    done = paint("--content-weight", "0.02", check=1)
    assert "note: a.png: cannot write out/a.png: it is write-protected; give another path" in done.err
    assert "2 painted, 1 failed" in done.err
    assert (out / "a.png").read_bytes() == before
    (out / "a.png").chmod(0o644)
    paint("--content-weight", "0.02")
    for path in (out / "inner", out):
        path.chmod(0o555)
    assert "3 unchanged" in paint("--content-weight", "0.02").err  # nothing is to be written
    done = paint(check=1)
    assert done.err.splitlines()[-1] == (
        "stylize: no file can be made in out (Permission denied); choose another folder with -o"
    )
    (out / "inner").chmod(0o755)
    (photos / "inner").chmod(0o755)
    photos.chmod(0o755)


@pytest.mark.usefixtures("permissions")
def test_an_output_that_is_closed_midway_is_said_once_and_the_picture_is_kept(
    photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny: EncoderSpec
) -> None:
    class Closing(FolderJob):
        def write(self, frame: Frame, painted: Painted) -> None:
            if frame.number == 2:
                (folder / "out").chmod(0o555)
            super().write(frame, painted)
            self._files.wait()

    for number in range(6):
        save(photos / f"more-{number}.png", number)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    settings = Settings(encoder="tiny", size=16, steps=(1,))
    job = Closing(photos, [folder / "style.png"], folder / "out", settings, {})
    painter = Stylizer(job.styles, settings, encoders=[tiny])
    with pytest.raises(ImageError, match=r"^no file can be made in .*out \(Permission denied\)"):
        run_job(job, painter)
    (folder / "out").chmod(0o755)
    assert list(files(folder / "out")) == ["a.png"]
    assert len([*folder.glob("stylize-*.png")]) == 1


def test_results_that_are_removed_meanwhile_are_not_called_painted(
    photos: Path, folder: Path, tiny: EncoderSpec
) -> None:
    class Losing(FolderJob):
        def write(self, frame: Frame, painted: Painted) -> None:
            super().write(frame, painted)
            self._files.wait()
            if frame.number == 2:
                shutil.rmtree(folder / "out")

    settings = Settings(encoder="tiny", size=16, steps=(1,))
    job = Losing(photos, [folder / "style.png"], folder / "out", settings, {})
    with pytest.raises(StylizeError, match=r"^2 of 3 results are no longer in .*; the same command paints them again$"):
        run_job(job, Stylizer(job.styles, settings, encoders=[tiny]))


@pytest.mark.slow
def test_masks_and_styles_that_fit_no_picture_are_told(paint: Paint, folder: Path) -> None:
    (folder / "masks").mkdir()
    done = paint("--mask-folder", "masks", check=1)
    assert done.err == "stylize: masks: no pictures there\n"
    save(folder / "masks" / "other.png")
    assert "note: no picture has a mask of its name in masks\n" in paint("--mask-folder", "masks").err
    assert "note: no style has the name of a picture, and --pair name is asked for\n" in paint("--pair", "name").err


def test_a_folder_that_cannot_be_read_is_a_failure(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterdir = Path.iterdir

    def refuses(self: Path) -> Any:
        if self.name == "inner":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuses)
    found = [*search(photos)]
    assert Passed("inner", "folder not read: Permission denied", True, True) in found
    assert sum(isinstance(each, Found) for each in found) == 2


@pytest.mark.slow
def test_names_that_clash_are_told_apart_and_stay_so(paint: Paint, photos: Path, folder: Path) -> None:
    for number, name in enumerate(("a.jpg", "A.webp", "a-png.png")):
        save(photos / name, 70 + number)
    done = paint("--format", "png")
    assert done.err.count(" becomes ") == 2
    names = list(files(folder / "out"))
    assert len({name.casefold() for name in names}) == len(names) == 6
    assert "6 unchanged" in paint("--format", "png").err
    for name in names:
        record = read_record(folder / "out" / name)
        assert record is not None


@pytest.mark.slow
def test_odd_names_are_painted_and_reported(paint: Paint, photos: Path, folder: Path) -> None:
    for name in ("x" * 250 + ".png", "two\nlines.png", "[a]*?.png", "{stem}.png", "né \N{GRINNING FACE}.png"):
        save(photos / "plain.png", 80).rename(photos / name)
    odd = os.fsdecode(b"caf\xe9.png")
    save(photos / "plain.png", 81).rename(photos / odd)
    paint("--report", "report.html")
    assert len(files(folder / "out")) == 9
    assert (folder / "out" / odd).exists()
    assert max(len(os.fsencode(path.name)) for path in (folder / "out").iterdir()) <= 210
    assert "9 unchanged" in paint().err


@pytest.mark.slow
def test_events_tell_which_picture_they_are_of(paint: Paint, photos: Path) -> None:
    (photos / "a.png").rename(photos / os.fsdecode(b"caf\xe9.png"))
    events = paint("--json").events
    steps = [(e["picture_number"], e["pictures"], e["number"]) for e in events if e["event"] == "step"]
    assert steps == [(picture, 3, number) for picture in (1, 2, 3) for number in (1, 2)]
    assert [e["picture"] for e in events if e["event"] == "painted"] == ["b.jpg", "caf\udce9.png", "inner/c.webp"]
    assert events[-1] == {"event": "written", "path": "out", "fraction": 1.0, "seconds_left": 0.0}
    fractions = [event["fraction"] for event in events]
    assert fractions == sorted(fractions)


# Names, patterns and pairs by themselves


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.slow
@given(st.lists(st.tuples(NAMES.filter(lambda n: n not in (".", "..")), st.sampled_from(["png", "jpg", "JPG", "bmp"]))))
def test_no_two_results_have_one_name(names: list[tuple[str, str]]) -> None:
    found = [Found(Path(f"{stem}.{ext}"), PurePath(f"{stem}.{ext}")) for stem, ext in dict.fromkeys(names)]
    for extension in (None, "png"):
        give = Names(None, extension, several=False)
        first = {photo.name: give.give(photo, "s")[0] for photo in found}
        assert len({str(target).casefold() for target in first.values()}) == len(found)
        assert first == {photo.name: give.give(photo, "s")[0] for photo in found}  # and the same when asked again
        assert all(len(os.fsencode(target.name)) <= 210 for target in first.values())


@pytest.mark.slow
@given(NAMES, st.sampled_from(["*", "?", "[ab]*", "[!a]*", "*.png", "a*b?c"]))
def test_patterns_match_as_a_shell_does(name: str, pattern: str) -> None:
    import fnmatch

    from stylize_batch.scan import _expression

    expected = bool(re.fullmatch(fnmatch.translate(pattern), name))
    assert bool(re.fullmatch(_expression([pattern]), name, re.DOTALL)) == expected


def test_a_file_with_the_name_of_a_pattern_is_a_file(tmp_path: Path) -> None:
    path = save(tmp_path / "photo[1].png")
    assert not is_pattern(path)
    assert is_pattern(tmp_path / "photo[2].png")


@given(st.lists(NAMES, unique=True, max_size=20), st.integers(1, 4), st.integers(0, 9))
def test_every_photo_has_its_styles(stems: list[str], count: int, seed: int) -> None:
    photos = [Found(Path(f"{stem}.png"), PurePath(f"{stem}.png")) for stem in stems]
    styles = [f"style{index}" for index in range(count)]
    made, alone = pairs(photos, styles, "cross", seed)
    assert alone == []
    assert len(set(made)) == len(made) == len(photos) * count
    for how in ("cycle", "random"):
        made, alone = pairs(photos, styles, how, seed)
        assert alone == []
        assert sorted(photo.name for photo, _ in made) == sorted(photo.name for photo in photos)
        assert [index for _, index in made] == sorted(index for _, index in made)
    drawn = {photo.name: index for photo, index in made}
    for photo, index in pairs(photos[1:], styles, "random", seed)[0]:
        assert drawn[photo.name] == index  # whatever others come or go


def test_styles_of_one_name_are_numbered() -> None:
    assert names_of([Path("a/x.png"), Path("b/X.jpg"), Path("b/y.jpg")]) == ["x", "X-2", "y"]


def test_a_template_is_checked() -> None:
    for template in ("{}.png", "{0}.png", "{stem}", "", "{stem!r:>3}.gif"):
        with pytest.raises(SettingsError):
            Names(template or "x", None, several=False)


# Interrupted, watched, shared


def started(environment: Mapping[str, str], folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stylize", "photos", "style.png", "-o", "out", "--encoder", "tiny", *options]
    return preloaded.Popen(
        command,
        cwd=folder,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_where_it_was(
    cli_environment: Mapping[str, str], folder: Path, photos: Path
) -> None:
    for number in range(5):
        save(photos / f"more{number}.png", 90 + number)
    search = os.pathsep.join([cli_environment["PYTHONPATH"], str(moments.plugin(folder / "moments"))])
    options = ("--size", "16", "--steps", "4", "--tolerance", "0")

    def run(**killed: str) -> int:
        process = started({**cli_environment, "PYTHONPATH": search}, folder, *options, **killed)
        process.communicate(timeout=PATIENCE)
        return process.returncode

    made: dict[str, int] = {}
    for when, name, least in (
        ("step 2", "a.png", 0),
        ("before", "out/a.png", 0),
        ("after", "out/b.jpg", 2),
        ("before", "out/inner/c.webp", 2),
        ("step 1", "more2.png", 2),  # those before may still be written
        ("after", "out/more3.png", 6),
    ):
        assert run(**moment("kill", when, name)) == -signal.SIGKILL
        for path in [*(folder / "out").glob("[!.]*.*"), *(folder / "out" / "inner").glob("[!.]*.*")]:
            mark = path.stat().st_mtime_ns
            assert read_record(path) is not None  # whole, or not there
            assert made.setdefault(str(path), mark) == mark  # and painted once
        assert least <= len(made) < 8
    assert run() == 0
    assert {path: Path(path).stat().st_mtime_ns for path in made} == made
    (folder / "out").rename(folder / "killed")
    assert run() == 0
    visible = {name: data for name, data in files(folder / "killed").items() if not name.startswith(".")}
    assert visible == files(folder / "out")
    assert len(visible) == 8


def test_what_killed_runs_left_is_cleared_away(paint: Paint, folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old, own, theirs = (
        folder / "out" / name
        for name in (f".a.{gone.pid}-0123abcd.tmp.png", f".a.{os.getpid()}-0123abcd.tmp.png", ".mine.tmp.png")
    )
    (folder / "out").mkdir()
    for path in (old, own, theirs):
        path.touch()
        os.utime(path, (0, 0))
    paint()
    assert [path.exists() for path in (old, own, theirs)] == [False, True, True]


@pytest.mark.slow
def test_two_runs_share_the_work(cli_environment: Mapping[str, str], folder: Path, photos: Path) -> None:
    for number in range(5):
        save(photos / f"more{number}.png", 90 + number)
    runs = [started(cli_environment, folder, "--size", "16", "--steps", "8", "--tolerance", "0") for _ in range(2)]
    said = [run.communicate(timeout=PATIENCE)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    painted = [int((re.search(r"(\d+) painted", err) or ["", "0"])[1]) for err in said]
    assert sum(painted) == 8  # none twice
    assert len(files(folder / "out")) == 8


@pytest.mark.slow
def test_pictures_side_by_side_are_the_same(cli: Cli, folder: Path, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    cli("photos", "style.png", "-o", "one", *FAST, check=1)
    done = cli("photos", "style.png", "-o", "two", "--jobs", "2", "--report", "r.html", *FAST, check=1)
    assert files(folder / "one") == files(folder / "two")
    assert "3 painted, 1 failed" in done.stderr
    assert done.stderr.count("cannot read photos/bad.png") == 2  # at once, and at the end
    assert re.search(r"/4  inner/c.webp  loss .* s\n", done.stderr)
    assert (folder / "r.html").read_text().count("data:image/jpeg") == 6
    done = cli("photos", "style.png", "-o", "two", "--jobs", "2", "--force", "--json", *FAST, check=1)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(e["picture"] for e in events if e["event"] == "painted") == ["a.png", "b.jpg", "inner/c.webp"]
    assert {e["number"] for e in events if e["event"] == "step"} == {2}  # the last step of each


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_folder_that_takes_no_files_is_told_once(call: Call, photos: Path) -> None:
    done = call("photos", "style.png", "-o", "/proc", *FAST)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "no file can be made in /proc" in done.err


def test_a_failure_names_the_style_where_there_are_several(call: Call, photos: Path, folder: Path) -> None:
    (folder / "styles").mkdir()
    save(folder / "styles" / "good.png", 3)
    (folder / "styles" / "torn.png").write_bytes(b"no picture")
    done = call("photos/a.png", "styles", "-o", "out", *FAST)
    assert done.code == 1
    assert "failed: a.png in torn: cannot read styles/torn.png" in done.err


def test_the_latest_of_a_picture_counts_and_nothing_is_told_twice(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    with caplog.at_level("INFO", "stylize"):
        for missing in (120, 80, 20):  # bytes of a file that arrives slowly
            ledger.take(
                Entry("a.png", "failed", f"{missing} bytes are missing", "s"), f"a.png: {missing} bytes missing"
            )
            ledger.take(Entry("style.png", "failed", "would overwrite a source"), "style.png would overwrite a source")
        ledger.take(Entry("a.png", "painted", style="s"))
        assert [record.message for record in caplog.records] == [
            "a.png: 120 bytes missing",
            "style.png would overwrite a source",
        ]
        ledger.take(Entry("a.png", "failed", "gone", "s"), "a.png: 5 bytes missing")  # it was well in between
        assert caplog.records[-1].message == "a.png: 5 bytes missing"
        ledger.take(Entry("a.png", "painted", style="s"))
    assert ledger.counts() == {"painted": 2, "failed": 1}  # once more each time
    assert [(entry.name, entry.state) for entry in ledger.entries()] == [("a.png", "painted"), ("style.png", "failed")]


@pytest.mark.parametrize("command", ["record", "replay"])
def test_a_record_is_asked_of_a_file_that_is_there(call: Call, folder: Path, command: str) -> None:
    done = call(command, "nope.png")
    assert done.code == 1
    assert done.err.startswith("stylize: cannot read nope.png: No such file")


def test_a_watched_folder_is_looked_at_again_only_after_a_change(photos: Path, folder: Path) -> None:
    (folder / "out").mkdir()
    for path in (*photos.rglob("*"), photos):
        os.utime(path, (1, 1))
    watched = Watched(photos, folder / "out")
    assert watched.changed()
    assert not watched.changed()
    save(photos / "new.png", 5)
    assert watched.changed()
    assert watched.changed()  # it may still be written to
    os.utime(photos / "new.png", (2, 2))
    assert watched.changed()
    assert not watched.changed()
    (photos / "new.png").unlink()
    assert watched.changed()
    assert not watched.changed()
    assert watched.poll >= 1


def test_waiting_takes_little_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(tmp_path, (1, 1))
    watched = Watched(tmp_path, tmp_path / "out")
    watched.changed()
    ticks = iter([10.0, 10.5])  # a look that takes half a second
    with monkeypatch.context() as clock:
        clock.setattr("stylize_batch.watch.time.thread_time", lambda: next(ticks))
        assert not watched.changed()
    assert 0.02 * watched.poll >= 0.5


@pytest.mark.slow
def test_a_forced_picture_that_another_run_has_painted_meanwhile_is_not_painted_again(
    call: Call, photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("photos", "style.png", "-o", "out", *FAST, "--force")
    assert call(*command).code == 0
    made, paint = {path: path.read_bytes() for path in (folder / "out").rglob("*.*")}, FolderJob.frames
    raced: list[bool] = []

    def after_the_other(job: FolderJob, chain: Chain) -> Iterator[Frame]:
        if not raced:
            raced.append(True)
            for path, data in made.items():
                path.unlink()
                path.write_bytes(data)
        return paint(job, chain)

    monkeypatch.setattr(FolderJob, "frames", after_the_other)
    done = call(*command)
    assert "3 unchanged" in done.err
    assert "painted in" not in done.err


def test_an_unknown_executor_is_one_clear_line(call: Call, photos: Path) -> None:
    done = call("photos", "style.png", "-o", "out", "--executor", "god", *FAST)
    assert done.code == 2
    assert done.err == "stylize: unknown executor 'god'; built in are serial and processes\n"


@pytest.mark.slow
def test_a_watched_folder_is_painted_as_it_fills(
    cli_environment: Mapping[str, str], folder: Path, photos: Path
) -> None:
    process = started(cli_environment, folder, "--size", "16", "--steps", "2", "--watch")
    assert process.stderr is not None
    wait_for(lambda: len([p for p in (folder / "out").rglob("[!.]*.*") if p.is_file()]) == 3)
    save(photos / "late" / "d.png", 5)
    wait_for((folder / "out" / "late" / "d.png").exists)
    (folder / "bad.png").write_bytes(b"not yet")
    (folder / "bad.png").rename(photos / "late" / "bad.png")  # whole at once, as all others here
    said = ""
    while "note: cannot read photos/late/bad.png" not in said:
        said += (line := process.stderr.readline())
        assert line
    before = read_record(folder / "out" / "a.png")
    save(photos / "a.png", 6)
    wait_for(lambda: read_record(folder / "out" / "a.png") not in (None, before))
    process.send_signal(signal.SIGINT)
    err = said + process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1, err  # bad.png
    assert "watching photos; Ctrl-C ends" in err
    assert "5 painted, 1 failed" in err
    assert err.count("note: cannot read photos/late/bad.png") == 1  # not at every look


@pytest.mark.slow
def test_ctrl_c_writes_the_picture_in_work_and_says_what_is_left(
    cli_environment: Mapping[str, str], folder: Path, photos: Path
) -> None:
    options = ("--size", "16", "--steps", "100000", "--optimizer", "adam", "--json")
    with started(cli_environment, folder, *options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"step"' in line:
                break
        process.send_signal(signal.SIGINT)
        events = [json.loads(line) for line in process.stdout]  # what was read ahead, too
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert list(files(folder / "out")) == ["a.png"]
    assert any(re.fullmatch(r"1 painted, 2 not begun in [\d.]+ s", event.get("text") or "") for event in events)


# What is left out, and names


@pytest.mark.slow
def test_rubbish_and_what_is_excluded_is_not_painted(paint: Paint, photos: Path, folder: Path) -> None:
    for name in ("@eaDir/a.png/thumb.jpg", "#recycle/x.png", "inner/$Recycle.Bin/y.png", "__MACOSX/z.png"):
        save(photos / name)
    for name in ("drafts/d.png", "inner/drafts/e.png", "raw/deep/f.png", "g-old.png", "inner/raw/h.png"):
        save(photos / name)
    paint("--exclude", "drafts", "--exclude", "raw/**", "--exclude", "*-old.*")
    assert list(files(folder / "out")) == ["a.png", "b.jpg", "inner/c.webp", "inner/raw/h.png"]
    for pattern in ("..", "/", "../x"):
        assert "--exclude" in paint("--exclude", pattern, check=2).err


def test_a_pattern_that_names_rubbish_finds_it(tmp_path: Path) -> None:
    save(tmp_path / "a" / "@eaDir" / "x.png")
    for pattern, count in (("*/@eaDir/*", 1), ("**/*.png", 0)):
        assert len([*search(tmp_path / pattern)]) == count


@pytest.mark.slow
def test_a_photo_whose_format_stays_keeps_its_name(paint: Paint, photos: Path, folder: Path) -> None:
    paint()
    before = files(folder / "out")
    with Image.open(photos / "a.png") as image:
        image.save(photos / "a.bmp")
        image.convert("RGB").save(photos / "B.JPEG")
    done = paint()
    assert "3 of 5 are up to date" in done.err
    after = files(folder / "out")
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == ["B.JPEG", "a-bmp.png"]


def test_names_go_to_the_format_that_stays_first() -> None:
    names = Names(None, "jpg", several=False)
    found = [Found(Path(name), PurePath(name)) for name in ("a.heic", "a.jpg", "a.jpeg", "a.JPG")]
    assert [names.changes(photo) for photo in found] == [2, 0, 1, 0]


def test_raw_files_are_named_and_not_painted(paint: Paint, photos: Path) -> None:
    for name in ("a.NEF", "b.dng"):
        (photos / name).write_bytes(b"II*\0")
    done = paint()
    assert "raw files of cameras are ignored (2): develop them to TIFF or JPEG first" in done.err
    assert "3 painted, 2 ignored" in done.err
