"""``stylize doctor``: what it checks, and what it says of what is missing or broken."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
import torch

import stylize
from stylize import module_checks
from tests.conftest import Call


def test_doctor_lists_versions_devices_memory_weights_and_plugins(call: Call) -> None:
    done = call("doctor")
    assert done.code == 0
    assert done.err == ""
    found = {line[5:].split()[0]: line for line in done.out.splitlines()}
    assert stylize.__version__ in found["stylize"]
    assert torch.__version__.split("+")[0] in found["torch"]
    assert {"torchvision", "opencv", "pillow", "pluggy", "ffmpeg-python"} <= set(found)
    assert {"cpu", "memory", "ffmpeg", "vgg16", "vgg19"} <= set(found)
    assert found["vgg19"].startswith("note ")
    assert "stylize weights fetch vgg19" in found["vgg19"]
    assert re.search(r"^ok +plugin +tiny$", done.out, re.MULTILINE)
    assert "stylize.builtin" in done.out


def test_doctor_as_json_holds_the_same_checks(call: Call) -> None:
    checks = json.loads(call("doctor", "--json").out)
    assert all(set(check) == {"state", "name", "found", "advice"} for check in checks)
    assert {check["state"] for check in checks} <= {"ok", "note"}
    text = call("doctor").out.splitlines()
    assert [check["name"] for check in checks] == [line[5:].split()[0] for line in text]
    assert {"name": "plugin", "state": "ok", "found": "tiny", "advice": ""} in checks


def test_doctor_fails_for_weights_that_are_named_but_not_there(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLIZE_WEIGHTS", "nowhere.safetensors")
    done = call("doctor", "--json")
    assert done.code == 1
    (check,) = [check for check in json.loads(done.out) if check["name"] == "vgg19"]
    assert check["state"] == "fail"
    assert "nowhere.safetensors" in check["found"]


def found(call: Call, code: int = 0) -> Mapping[str, Mapping[str, str]]:
    """The checks by name; the last of a name."""
    done = call("doctor", "--json")
    assert done.code == code, done
    return {check["name"]: check for check in json.loads(done.out)}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/meminfo")
def test_the_memory_is_what_a_plan_may_use(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_text

    def read_text(path: Path, *arguments: object, **options: object) -> str:
        if str(path) == "/proc/meminfo":  # most of the memory holds files, and can be had
            return "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
        if str(path).startswith("/sys/fs/cgroup"):
            raise FileNotFoundError
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert found(call)["memory"] == {  # 8 GiB less 15 %
        "name": "memory",
        "state": "ok",
        "found": "6.8 GiB can be used",
        "advice": "",
    }


@pytest.mark.parametrize(
    ("distribution", "name"),
    [("av", "av"), ("scenedetect-headless", "scenedetect"), ("torchvision", "torchvision")],
)
def test_a_package_that_is_missing_is_a_failure_with_the_way_to_get_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, distribution: str, name: str
) -> None:
    def version(package: str) -> str:
        if package in (distribution, name):
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr("stylize.checks.version", version)
    check = found(call, 1)[name]
    assert (check["state"], check["found"], check["advice"]) == ("fail", "not installed", f"pip install {distribution}")


def test_another_distribution_of_opencv_will_do(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "opencv-python-headless":
            raise metadata.PackageNotFoundError(package)
        return f"{package} 1.0"

    monkeypatch.setattr("stylize.checks.version", version)
    check = found(call)["opencv"]
    assert (check["state"], check["found"]) == ("ok", "opencv-python 1.0")


def test_a_module_for_clips_that_cannot_be_imported_is_a_failure(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> object:
        if name == "av":
            raise ImportError("libavcodec.so.62: cannot open shared object file")
        return importlib.import_module(name)

    monkeypatch.setattr("stylize.checks.import_module", import_module)
    check = found(call, 1)["av"]
    assert check["state"] == "fail"
    assert "libavcodec" in check["found"]
    assert "clips" in check["advice"]


def test_a_module_that_lacks_another_is_broken_and_one_that_is_not_there_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_module(name: str) -> object:
        raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)

    monkeypatch.setattr("stylize.checks.import_module", import_module)
    missing = "av"
    assert module_checks("av", purpose="clips") == []
    missing = "libav"
    (check,) = module_checks("av", purpose="clips")
    assert (check.state, check.found) == ("fail", "cannot be imported: No module named 'libav'")


def test_a_plugin_adds_checks(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "scanner.py").write_text("""
from stylize import Check, hookimpl

@hookimpl
def stylize_checks():
    return [Check("ok", "scanner", "on USB 3"), Check("note", "paper", "tray is empty", "fill it")]
""")
    installed(folder, "scanner", monkeypatch)
    done = call("doctor")
    assert done.code == 0
    assert re.search(r"^ok +scanner +on USB 3$", done.out, re.MULTILINE)
    assert re.search(r"^note +paper +tray is empty; fill it$", done.out, re.MULTILINE)
    assert "scanner" not in call("--no-plugin", "scanner", "doctor").out


def test_a_plugin_whose_checks_fail_is_named_and_the_rest_is_checked(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "scanner.py").write_text("""
from stylize import hookimpl

@hookimpl
def stylize_checks():
    raise OSError("no bus")
""")
    installed(folder, "scanner", monkeypatch)
    checks = found(call, 1)
    assert {"ffmpeg", "vgg19"} <= set(checks)
    assert checks["plugin"]["found"] == "plugin scanner (scanner 1.0) left out: OSError: no bus"


def installed(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module in a folder an installed plugin."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[stylize]\n{module} = {module}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()


def test_without_the_plugin_for_clips_their_needs_are_not_checked(call: Call) -> None:
    checks = json.loads(call("--no-plugin", "video", "doctor", "--json").out)
    assert not {"ffmpeg", "ffmpeg-python", "av", "scenedetect"} & {check["name"] for check in checks}


def test_without_ffmpeg_a_note_says_what_needs_it(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> str:
        raise RuntimeError("no ffmpeg in this wheel")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", missing)
    check = found(call)["ffmpeg"]
    assert check["state"] == "note"
    assert "ffmpeg is not installed; install" in check["found"]
    assert "clips need it" in check["advice"]


def program(path: Path, version: str, encoders: str) -> Path:
    """A program that says it is an ffmpeg."""
    says = f"*-version) echo 'ffmpeg version {version}';; *) echo ' V....D {encoders} x';;"
    path.write_text(f'#!/bin/sh\ncase "$*" in {says} esac\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "encoders", "words"),
    [
        ("4.2.2-static", "libx264", "is version 4.2, 4.4 or newer is needed"),
        ("6.0", "ffv1", "has no encoder libx264"),
    ],
)
def test_an_ffmpeg_that_is_passed_over_is_named(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, encoders: str, words: str
) -> None:
    program(tmp_path / "ffmpeg", version, encoders)
    bundled = program(tmp_path / "bundled", "7.0", "libx264")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(bundled))
    check = found(call)["ffmpeg"]
    assert check["state"] == "ok"
    assert check["found"] == f"{bundled} ({tmp_path / 'ffmpeg'} {words})"


@pytest.mark.slow
def test_a_distribution_with_broken_metadata_is_noted_and_stops_nothing(
    call: Call, folder: Path, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in (("metadata", "METADATA"), ("entries", "entry_points.txt")):
        info = folder / "site" / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / file).write_bytes(b"\xff\xfe[stylize]\nName = \xff\n")
    monkeypatch.syspath_prepend(str(folder / "site"))
    done = call("photo.png", "starry.png", "-q", "-o", "out.png", "--encoder", "tiny", "--size", "16", "--steps", "1")
    assert (done.code, done.err) == (0, "")
    notes = [line for line in call("doctor").out.splitlines() if "unreadable metadata" in line]
    assert sorted(re.findall(r"(\w+)-1\.0\.dist-info", " ".join(notes))) == ["entries", "metadata"]
    done = call("plugins")
    assert done.code == 0
    assert done.out.count("unreadable metadata") == 2
    assert call("--help").code == 0
