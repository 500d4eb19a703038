"""The host: which plugins are let in, what becomes of the broken ones, and the hooks themselves."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stylize import hookspecs
from stylize.cli import main
from stylize.host import Host, plugin_manager
from stylize.jobs import ImageJob

Install = Callable[..., Path]

GOOD = """
from pathlib import Path
from stylize import hookimpl
from stylize.jobs import ImageJob
from stylize.testing import tiny_encoder

seen = []

@hookimpl
def stylize_open(source, target, options):
    if source.suffix == ".fake":
        seen.append(("open", source.name))
        return ImageJob(source.with_suffix(".png"), target, **options)

@hookimpl
def stylize_step(frame, step):
    seen.append((frame.name, step.number))

@hookimpl
def stylize_encoders():
    return [tiny_encoder("theirs")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with one plugin, module of the same name as the entry point, where Python finds it."""
    installed = []

    def put(name: str, code: str, *, target: str = "", entry: str = "", folder: str = "site") -> Path:
        site = tmp_path / folder
        info = site / f"{name}_dist-1.5.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[stylize]\n{entry or name} = {target or name}\n")
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        installed.append(name)
        return site

    yield put
    for name in installed:
        sys.modules.pop(name, None)


def names(host: Host) -> set[str]:
    return {name for name, _ in host.list_name_plugin()}


def encoders(host: Host) -> set[str]:
    return {spec.name for spec in host.encoders()}


def module(name: str) -> ModuleType:
    return sys.modules[name]


# Good plugins


def test_what_comes_with_stylize_is_registered() -> None:
    host = plugin_manager()
    assert "stylize.builtin" in names(host)
    assert host.problems == []
    assert {"vgg16", "vgg19"} <= encoders(host)


def test_the_builtin_plugin_opens_pictures_but_no_folders(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    import stylize.builtin

    assert stylize.builtin.stylize_open(tmp_path, None, {}) is None
    job = plugin_manager().hook.stylize_open(source=pictures[0], target=tmp_path / "out.png", options={"bits": 8})
    assert isinstance(job, ImageJob)


def test_the_hooks_of_a_plugin_are_called(
    install: Install, pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good", GOOD)
    host = plugin_manager()
    assert host.problems == []
    assert "good" in names(host)
    assert "theirs" in encoders(host)
    (tmp_path / "photo.fake").touch()
    options = ("--encoder", "theirs", "--size", "16", "--steps", "2", "-q", "-o", str(tmp_path / "out.png"))
    with pytest.raises(SystemExit) as exit:
        main([str(tmp_path / "photo.fake"), str(pictures[1]), *options])
    assert exit.value.code == 0, capsys.readouterr().err
    assert module("good").seen == [("open", "photo.fake"), ("photo", 1), ("photo", 2)]
    assert (tmp_path / "out.png").exists()


def test_the_first_plugin_that_knows_a_source_wins_and_the_builtin_comes_last(
    install: Install, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    install("greedy", "from stylize import hookimpl\n@hookimpl\ndef stylize_open(source):\n    return 'mine'\n")
    hook = plugin_manager().hook
    assert hook.stylize_open(source=pictures[0], target=tmp_path / "out.png", options={}) == "mine"


def test_an_encoder_of_a_plugin_replaces_the_builtin_one_of_that_name(
    install: Install, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    install("other", GOOD.replace('"theirs"', '"vgg19"'))
    with pytest.raises(SystemExit) as exit:
        main([*map(str, pictures), "--size", "16", "--steps", "1", "-q", "-o", str(tmp_path / "out.png")])
    assert exit.value.code == 0  # with no weights for the real one


def test_a_plugin_may_be_an_object_inside_of_a_module(install: Install) -> None:
    code = """
from stylize import hookimpl
class Plugin:
    @hookimpl
    def stylize_encoders(self):
        from stylize.testing import tiny_encoder
        return [tiny_encoder("inner")]
class Holder:
    plugin = Plugin()
"""
    install("nested", code, target="nested:Holder.plugin")
    host = plugin_manager()
    assert host.problems == []
    assert "inner" in encoders(host)


# Broken plugins


HOOK = "from stylize import hookimpl\n@hookimpl\ndef {}: return []\n"
BROKEN = {
    "raising": ("raise RuntimeError('no luck today')", "", "no luck today"),
    "failing_import": ("import a_module_that_is_not_there", "", "a_module_that_is_not_there"),
    "wrong_syntax": ("def (", "", "SyntaxError"),
    "wrong_arguments": (HOOK.format("stylize_step(frame, stp)"), "", "stp"),
    "misspelt": (HOOK.format("stylize_encodres()"), "", "stylize_encodres"),
    "no_module": ("", "a_module_that_is_not_there", "a_module_that_is_not_there"),
    "no_attribute": ("", "no_attribute:plugin", "plugin"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_left_out_and_named_while_the_others_stay(install: Install, name: str) -> None:
    code, target, words = BROKEN[name]
    install("good", GOOD)
    install(name, code, target=target)
    install("late", GOOD.replace('"theirs"', '"late"'))
    host = plugin_manager()
    (problem,) = host.problems
    assert problem.startswith(f"plugin {name} ({name}-dist 1.5) left out: ")
    assert words in problem
    assert "\n" not in problem
    assert {"good", "late", "stylize.builtin"} <= names(host)
    assert name not in names(host)
    assert {"theirs", "late", "vgg19"} <= encoders(host)
    host.check_pending()  # nothing of it is left behind


WRONG = {
    "raises": ("raise ImportError('no luck today')", "ImportError: no luck today"),
    "single": ("return tiny_encoder('single')", "TypeError"),
    "nonsense": ("return ['nonsense']", "'nonsense' is not an EncoderSpec"),
    "generator": ("yield 1 / 0", "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_plugin_whose_encoders_fail_is_named_while_the_others_stay(install: Install, name: str) -> None:
    body, words = WRONG[name]
    head = "from stylize import hookimpl\nfrom stylize.testing import tiny_encoder\n"
    install(name, f"{head}@hookimpl\ndef stylize_encoders():\n    {body}\n")
    install("good", GOOD)
    host = plugin_manager()
    assert [spec.name for spec in host.encoders()] == ["vgg16", "vgg19", "mini", "theirs"]
    (problem,) = host.problems
    assert problem.startswith(f"plugin {name} gives no encoders: ")
    assert words in problem


def test_a_plugin_that_fails_at_a_step_is_named_and_costs_no_picture(
    install: Install, pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good", GOOD)
    install("tired", "from stylize import hookimpl\n@hookimpl\ndef stylize_step(step):\n    1 / 0\n")
    options = ("--encoder", "theirs", "--size", "16", "--steps", "3", "-q", "-o", str(tmp_path / "out.png"))
    with pytest.raises(SystemExit) as exit:
        main([*map(str, pictures), *options])
    assert exit.value.code == 0
    error = "plugin tired failed in stylize_step: ZeroDivisionError: division by zero; the picture goes on without"
    assert capsys.readouterr().err == f"stylize: {error}\n"
    assert (tmp_path / "out.png").exists()


def test_what_a_plugin_opens_must_be_a_job(
    install: Install, pictures: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    install("five", "from stylize import hookimpl\n@hookimpl\ndef stylize_open(source):\n    return 5\n")
    with pytest.raises(SystemExit) as exit:
        main([*map(str, pictures)])
    assert exit.value.code == 1
    assert re.fullmatch(r"stylize: a plugin opened .*photo.png as 5, which is not a job\n", capsys.readouterr().err)


def test_a_second_plugin_of_the_same_name_does_not_drive_out_the_first(install: Install) -> None:
    install("good", GOOD)
    install("namesake", GOOD.replace('"theirs"', '"late"'), entry="good")
    host = plugin_manager()
    (problem,) = host.problems
    assert "good" in problem
    assert "good" in names(host)
    assert len(encoders(host) & {"theirs", "late"}) == 1  # the one or the other


def test_a_distribution_that_is_found_twice_is_loaded_once(install: Install) -> None:
    install("good", GOOD)
    install("good", GOOD, folder="elsewhere")  # shadows the first, as a path given twice would
    host = plugin_manager()
    assert host.problems == []
    assert "good" in names(host)
    assert "theirs" in encoders(host)


def test_a_distribution_without_metadata_does_not_take_the_host_down(install: Install) -> None:
    site = install("bare", GOOD)
    (site / "bare_dist-1.5.dist-info" / "METADATA").unlink()  # as an interrupted uninstall leaves it
    host = plugin_manager()
    assert "stylize.builtin" in names(host)
    assert ("bare" in names(host)) != bool(host.problems)


# The host


def test_fresh_hosts_share_nothing(install: Install) -> None:
    install("raising", BROKEN["raising"][0])
    one, other = plugin_manager(), plugin_manager()
    assert one.problems == other.problems != []
    one.problems.append("more")
    assert other.problems != one.problems

    class Plugin:
        pass

    one.register(Plugin(), "only here")
    one.unregister(name="stylize.builtin")
    assert "only here" not in names(other)
    assert "stylize.builtin" in names(other)
    assert other.hook.stylize_encoders() != []
    assert one.hook.stylize_encoders() == []


def hooks() -> list[Any]:
    return [function for name, function in vars(hookspecs).items() if name.startswith("stylize_")]


def test_every_hook_has_one_line_of_documentation_and_typed_arguments() -> None:
    assert {"stylize_open", "stylize_encoders", "stylize_step"} <= {function.__name__ for function in hooks()}
    for function in hooks():
        assert function.__doc__, function
        assert "\n" not in function.__doc__, function
        assert function.__doc__.endswith("."), function
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function
        assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values()), function


def test_every_hook_is_a_specification_and_first_results_say_so() -> None:
    host = plugin_manager()
    for function in hooks():
        caller = getattr(host.hook, function.__name__)
        assert caller.has_spec(), function
        first = bool(caller.spec.opts["firstresult"])
        assert first == ("first result" in function.__doc__), function


def test_every_hook_stands_on_one_screen() -> None:
    source = Path(hookspecs.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 80
    assert len(hooks()) == sum(isinstance(node, ast.FunctionDef) for node in ast.parse(source).body)
