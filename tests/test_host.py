"""The host: which plugins are let in, what becomes of the broken ones, and the hooks themselves."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import stylize
from stylize import (
    Chain,
    Frame,
    Job,
    Painted,
    Picture,
    PluginError,
    Settings,
    SettingsError,
    Stylizer,
    hookspecs,
    load,
    read_record,
)
from stylize.cli.main import main, without_plugins
from stylize.host import Host, plugin_manager
from stylize.jobs import ImageJob
from stylize.testing import tiny_encoder
from tests.conftest import ROOT

Install = Callable[..., Path]

GOOD = """
from pathlib import Path
from stylize import hookimpl
from stylize.jobs import ImageJob
from stylize.testing import tiny_encoder

seen = []

@hookimpl
def stylize_open(source, target, settings):
    if source.suffix == ".fake":
        seen.append(("open", source.name))
        return ImageJob(source.with_suffix(".png"), target, size=settings.size)

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


def opened(host: Host, pictures: tuple[Path, Path], folder: Path) -> Any:
    return host.hook.stylize_open(
        source=pictures[0], styles=pictures[1:], target=folder / "out.png", settings=Settings(), options={}, host=host
    )


Run = Callable[..., str]


@pytest.fixture
def run(pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Paint the two pictures by the real command line with the encoder of GOOD; what it said on standard error."""

    def paint(*options: object, check: int = 0) -> str:
        fast = ("--encoder", "theirs", "--size", "16", "--steps", "2", "-q", "-o", tmp_path / "out.png")
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in (*pictures, *fast, *options)])
        err = capsys.readouterr().err
        assert exit.value.code == check, err
        assert "Traceback" not in err
        return err

    return paint


HEAD = "import dataclasses, click, torch\nfrom stylize import ColorMode, Term, hookimpl\n"


# Good plugins


def test_what_comes_with_stylize_is_registered() -> None:
    host = plugin_manager()
    assert "stylize.builtin" in names(host)
    assert host.problems == []
    assert {"vgg16", "vgg19"} <= encoders(host)


def test_the_builtin_plugin_opens_pictures_but_no_folders(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    import stylize.builtin

    assert stylize.builtin.stylize_open(tmp_path, (), None, Settings(), {}) is None
    job = opened(plugin_manager(), pictures, tmp_path)
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
    assert opened(plugin_manager(), pictures, tmp_path) == "mine"


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
    "ending": ("class Odd(BaseException): pass\nraise Odd('no luck today')", "", "left out: Odd: no luck today"),
    "leaving": ("raise GeneratorExit", "", "left out: GeneratorExit"),
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
    "odd": ("raise GeneratorExit('no luck today')", "left out: GeneratorExit: no luck today"),
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
    assert problem.startswith(f"plugin {name} ({name}-dist 1.5) left out: ")
    assert name not in names(host)
    assert words in problem


def test_a_plugin_that_fails_at_a_step_is_named_left_out_and_costs_no_picture(
    install: Install, run: Run, tmp_path: Path
) -> None:
    install("tired", "from stylize import hookimpl\n@hookimpl\ndef stylize_step(step):\n    1 / 0\n")
    install("good", GOOD)
    error = "it failed in stylize_step: ZeroDivisionError: division by zero"
    assert run() == f"stylize: plugin tired (tired-dist 1.5) left out: {error}\n"  # once, not at every step
    assert (tmp_path / "out.png").exists()
    assert ("photo", 2) in module("good").seen  # the others still look on


def test_what_a_plugin_opens_must_be_a_job(
    install: Install, pictures: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    install("five", "from stylize import hookimpl\n@hookimpl\ndef stylize_open(source):\n    return 5\n")
    with pytest.raises(SystemExit) as exit:
        main([*map(str, pictures)])
    assert exit.value.code == 1
    assert re.fullmatch(
        r"stylize: plugin five \(five-dist 1\.5\) opened .*photo.png as 5, which is not derived from stylize.Job\n",
        capsys.readouterr().err,
    )


def test_two_plugins_of_one_name_are_an_error_that_names_both(install: Install, run: Run) -> None:
    install("good", GOOD)
    install("namesake", GOOD.replace('"theirs"', '"late"'), entry="good")
    with pytest.raises(
        PluginError, match=r"two plugins are named good, of (?=.*good-dist 1\.5)(?=.*namesake-dist 1\.5)"
    ):
        plugin_manager()
    assert "--no-plugin good" in run(check=1)
    assert "good" not in names(plugin_manager(without=["good"]))


def test_the_name_of_a_builtin_plugin_is_taken(install: Install) -> None:
    install("thief", GOOD, entry="stylize.builtin")
    with pytest.raises(PluginError, match=r"of stylize itself and thief-dist 1\.5"):
        plugin_manager()


@pytest.mark.parametrize("name", ["the display", "the progress", "the preview"])
def test_a_plugin_may_not_have_a_name_that_the_program_uses(install: Install, run: Run, name: str) -> None:
    install("good", GOOD)
    install("thief", GOOD, entry=name)
    assert f"plugin {name} (thief-dist 1.5) left out: " in run()


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


# Each hook, at work

OPTION = """
@hookimpl
def stylize_options(command):
    command.params.append(click.Option(["--frost"], type=float, default=0.0, help="How cold."))
"""


@pytest.mark.slow
def test_options_reach_the_other_hooks_and_the_record(install: Install, run: Run, tmp_path: Path) -> None:
    finish = "@hookimpl\ndef stylize_finish(image, options):\n    seen.append(options['frost'])\n"
    install("good", GOOD)
    install("cold", f"{HEAD}{OPTION}seen = []\n{finish}")
    run()
    run("--frost", "0.5")
    assert module("cold").seen == [0.0, 0.5]
    record = read_record(tmp_path / "out.png")
    assert record is not None
    assert record["options"] == {"frost": 0.5}
    assert record["plugins"] == {"cold": "1.5"}


@pytest.mark.parametrize("flag", ["--size", "--pair", "-o", "--quiet"])
def test_a_plugin_may_not_take_the_option_of_another(install: Install, run: Run, flag: str) -> None:
    install("good", GOOD)
    install("thief", HEAD + OPTION.replace("--frost", flag))
    assert re.search(rf"plugin thief .*left out: ValueError: the option .*{flag}.* exists already", run())


def test_options_of_one_host_are_not_those_of_the_next(install: Install, run: Run) -> None:
    install("good", GOOD)
    install("cold", HEAD + OPTION)
    run("--frost", "1")
    assert "No such option '--frost'" in run("--frost", "1", "--no-plugin", "cold", check=2)


def test_a_plugin_adds_commands(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    body = "group.add_command(click.Command('hello', callback=lambda: click.echo('hello')))"
    install("greeter", f"{HEAD}@hookimpl\ndef stylize_commands(group):\n    {body}\n")
    for _ in range(2):
        with pytest.raises(SystemExit) as exit:
            main(["hello"])
        assert (exit.value.code, capsys.readouterr().out) == (0, "hello\n")


def test_a_plugin_may_not_replace_a_command(install: Install, run: Run) -> None:
    body = "group.add_command(click.Command('run', callback=lambda: 0))"
    install("good", GOOD)
    install("thief", f"{HEAD}@hookimpl\ndef stylize_commands(group):\n    {body}\n")
    assert "left out: ValueError: the command 'run' exists already" in run()


MODE = """
def grey(content, styles):
    return content.rgb.mean(1, keepdim=True), styles

def red(painted, content):
    return torch.cat([torch.ones_like(painted[:, :1]), content[:, 1:]], 1)

@hookimpl
def stylize_color_modes():
    return [ColorMode("red", grey, red)]
"""


def test_a_color_mode_of_a_plugin_is_asked_for_by_its_name(install: Install, run: Run, tmp_path: Path) -> None:
    install("good", GOOD)
    install("painter", HEAD + MODE)
    run("--preserve-color", "red")
    assert bool((load(tmp_path / "out.png").rgb[:, 0] == 1).all())
    said = run("--preserve-color", "blue", check=2)
    assert said == "stylize: preserve_color is 'blue'; it must be one of none, luminance, match, red\n"


TERM = """
@hookimpl
def stylize_terms(frame, settings, options):
    return [Term("dark", 100.0, lambda image, features: features["relu1_2"].mean() * 0 + image.mean(), ("relu1_2",))]
"""


@pytest.mark.slow
def test_a_term_of_a_plugin_has_its_effect_on_any_layer(install: Install, run: Run, tmp_path: Path) -> None:
    install("good", GOOD)
    run("--steps", "9", "--palette", "free")
    plain = float(load(tmp_path / "out.png").rgb.mean())
    install("night", HEAD + TERM)
    run("--steps", "9", "--palette", "free")
    assert float(load(tmp_path / "out.png").rgb.mean()) < 0.5 * plain


def test_finishing_plugins_form_a_chain(install: Install, run: Run, tmp_path: Path) -> None:
    body = "return dataclasses.replace(image, rgb=(image.rgb * 0 + {}))"
    install("good", GOOD)
    for name, value, first in (("second", "image.rgb.mean() / 2", ""), ("first", "0.8", "(tryfirst=True)")):
        install(name, f"{HEAD}@hookimpl{first}\ndef stylize_finish(image):\n    {body.format(value)}\n")
    install("idle", f"{HEAD}@hookimpl\ndef stylize_finish(image):\n    return None\n")
    run()
    assert float(load(tmp_path / "out.png").rgb.mean()) == pytest.approx(0.4, abs=1 / 255)


def test_a_plugin_may_show_the_run_in_its_own_way(install: Install, run: Run) -> None:
    code = """
from stylize import Display
seen = []
class Own(Display):
    def warning(self, text):
        seen.append(text)
    @hookimpl
    def stylize_step(self, frame, step):
        seen.append(step.number)
    def written(self, path):
        seen.append(path.name)
@hookimpl
def stylize_display(options):
    return Own()
"""
    install("good", GOOD)
    install("shower", HEAD + code)
    run()
    assert module("shower").seen == [1, 2, "out.png"]


def test_a_plugin_sees_each_picture_when_it_is_done_and_costs_none(install: Install, run: Run) -> None:
    body = "seen.append((frame.name, image.size, image.record['encoder']['name'])); 1 / 0"
    install("good", GOOD)
    install("viewer", f"{HEAD}seen = []\n@hookimpl\ndef stylize_painted(frame, image):\n    {body}\n")
    assert "plugin viewer (viewer-dist 1.5) left out: it failed in stylize_painted: ZeroDivisionError" in run()
    assert module("viewer").seen == [("photo", (12, 16), "theirs")]


def test_optical_flow_comes_from_the_first_plugin_that_knows_its_name(install: Install) -> None:
    code = "@hookimpl\ndef stylize_flow(name):\n    return 'mine' if name == 'own' else None\n"
    install("river", HEAD + code)
    host = plugin_manager()
    assert host.call("stylize_flow", name="own", device="cpu") == "mine"
    assert callable(host.call("stylize_flow", name="dis", device="cpu"))
    assert host.call("stylize_flow", name="nonsense", device="cpu") is None


FAILING = {
    "stylize_open": ("stylize_open(source)", "1 / 0", "failed in stylize_open: ZeroDivisionError"),
    "stylize_display": ("stylize_display(options)", "1 / 0", "failed in stylize_display: ZeroDivisionError"),
    "stylize_terms": ("stylize_terms(frame)", "1 / 0", "failed in stylize_terms: ZeroDivisionError"),
    "no term": ("stylize_terms(frame)", "return [5]", "failed in stylize_terms: TypeError: 5 is not a Term"),
    "no layer": (
        "stylize_terms(frame)",
        "return [Term('odd', 1.0, None, ('relu9_9',))]",
        "term odd needs relu9_9; theirs has relu1_1",
    ),
    "in a term": (
        "stylize_terms(frame)",
        "return [Term('odd', 1.0, lambda image, features: 1 / 0)]",
        "failed in its term 'odd': ZeroDivisionError",
    ),
    "an odd end": ("stylize_finish(image)", "raise GeneratorExit", "failed in stylize_finish: GeneratorExit"),
    "an odd term": (
        "stylize_terms(frame)",
        "def odd(image, features): raise GeneratorExit('x')\n    return [Term('odd', 1.0, odd)]",
        "failed in its term 'odd': GeneratorExit: x",
    ),
    "stylize_finish": ("stylize_finish(image)", "1 / 0", "failed in stylize_finish: ZeroDivisionError"),
    "no picture": ("stylize_finish(image)", "return 5", "failed in stylize_finish: TypeError: 5 is not a Picture"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_plugin_that_fails_where_it_matters_is_named_and_the_picture_is_not_written(
    install: Install, run: Run, tmp_path: Path, case: str
) -> None:
    signature, body, words = FAILING[case]
    install("good", GOOD)
    install("bad", f"{HEAD}@hookimpl\ndef {signature}:\n    {body}\n")
    said = run(check=2 if case == "no layer" else 1)
    assert words in said
    assert said.count("\n") == 1
    assert case == "no layer" or "plugin bad (bad-dist 1.5) failed" in said
    assert not (tmp_path / "out.png").exists()


# Choosing plugins


def test_a_plugin_can_be_left_out_anywhere_on_the_command_line(install: Install, pictures: tuple[Path, Path]) -> None:
    install("good", GOOD)
    install("other", GOOD)
    assert {"good", "other"} <= names(plugin_manager())
    assert "good" not in names(plugin_manager(without=["good"]))
    assert "other" in names(plugin_manager(without=["good"]))
    for words in (["--no-plugin", "good"], ["--no-plugin=good"]):
        assert without_plugins(["a", *words, "--", "--no-plugin", "x"]) == (["a", "--", "--no-plugin", "x"], ["good"])
    for words in (["--no-plugin"], ["--no-plugin="]):
        with pytest.raises(SettingsError, match="needs the name of a plugin"):
            without_plugins(words)


def test_a_plugin_that_is_left_out_or_chosen_must_be_there(install: Install) -> None:
    install("good", GOOD)
    with pytest.raises(SettingsError, match=r"unknown plugin 'god'; installed: .*\bgood\b"):
        plugin_manager(without=["god"])
    with pytest.raises(SettingsError, match="unknown plugin 'god'"):
        plugin_manager(only=["god"])


def test_the_environment_chooses_plugins(
    install: Install, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good", GOOD)
    install("tired", "raise RuntimeError")
    monkeypatch.setenv("STYLIZE_PLUGINS", " good ")
    assert run() == ""
    monkeypatch.setenv("STYLIZE_PLUGINS", "")
    with pytest.raises(SystemExit):
        main(["plugins"])
    assert "good" not in capsys.readouterr().out


def test_plugins_are_listed_with_origin_hooks_and_problems(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good", GOOD)
    install("tired", "raise RuntimeError('no sleep')")
    with pytest.raises(SystemExit) as exit:
        main(["plugins"])
    assert exit.value.code == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert re.fullmatch(r"good +good-dist 1\.5  stylize_encoders, stylize_open, stylize_step", lines["good"])
    assert re.fullmatch(r"tired +tired-dist 1\.5  left out: RuntimeError: no sleep", lines["tired"])
    assert "stylize-host" in lines["stylize.builtin"]
    with pytest.raises(SystemExit):
        main(["plugins", "--json"])
    found = {info["name"]: info for info in json.loads(capsys.readouterr().out)}
    assert found["good"]["hooks"] == ["stylize_encoders", "stylize_open", "stylize_step"]
    assert found["tired"] == {
        "name": "tired",
        "distribution": "tired-dist",
        "version": "1.5",
        "hooks": [],
        "problem": "RuntimeError: no sleep",
    }


def test_tracing_prints_every_call(install: Install, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    install("good", GOOD)
    monkeypatch.setenv("STYLIZE_TRACE_HOOKS", "1")
    lines = run().splitlines()
    steps = [line for line in lines if line.startswith("stylize: stylize_step(frame=Frame(")]
    assert len(steps) == 4  # two steps, two who look on
    assert [line.split("-> ")[1] for line in lines if "stylize_step(" in line][:2] == ["the display", "good"]
    asked = [line.split("-> ")[1] for line in lines if line.startswith("stylize: stylize_open(")]
    assert asked[0] == "good"
    assert asked[-1] == "stylize.builtin"
    assert any(line.startswith("stylize: stylize_open gave <") for line in lines)


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


def test_an_executor_of_a_plugin_paints(
    install: Install, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(
        "backwards",
        """
from pathlib import Path
from stylize import Serial, hookimpl

class Loud(Serial):
    def paint(self, run):
        Path("loud").write_text(type(run.job).__name__)
        super().paint(run)

@hookimpl
def stylize_executor(name):
    return {"loud": Loud(), "odd": 5}.get(name)
""",
    )
    install("good", GOOD)
    run("--executor", "loud")
    assert Path("loud").read_text() == "ImageJob"
    assert "a plugin gave 5 as the executor 'odd'" in run("--executor", "odd", check=1)
    assert "unknown executor 'quiet'; built in are serial and processes" in run("--executor", "quiet", check=2)


def test_every_hook_has_one_line_of_documentation_and_typed_arguments() -> None:
    assert len(hooks()) >= 9
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


def test_every_hook_is_documented_with_its_signature_and_has_a_plugin_of_ours() -> None:
    chapter = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    plugins = [path for room in ("stylize", "plugins", "video", "samples") for path in (ROOT / room).rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in plugins if path.name != "hookspecs.py")
    for function in hooks():
        arguments = ", ".join(inspect.signature(function).parameters)
        assert f"`{function.__name__}({arguments})`" in chapter, function.__name__
        assert re.search(rf"@hookimpl(\(.*\))?\n *def {function.__name__}\(", code), function.__name__


@pytest.mark.slow
def test_every_hook_is_called(install: Install, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code = [HEAD, "import stylize.hookspecs as specs", "called = set()"]
    for function in hooks():
        arguments, name = ", ".join(inspect.signature(function).parameters), function.__name__
        code.append(f"@hookimpl(tryfirst=True)\ndef {name}({arguments}):\n    called.add({name!r})")
        code.append("    return ('a thing', 'things')" if name == "stylize_sources" else "    return None")
        code[-1] = code[-1].replace("None", "[]" if "Sequence" in str(function.__annotations__["return"]) else "None")
    install("good", GOOD)
    install("all", "\n".join(code))
    run()  # a picture
    with pytest.raises(SystemExit):
        main(["flicker", "missing.mkv"])
    with pytest.raises(SystemExit):
        main(["doctor"])
    capsys.readouterr()
    picture = Picture(torch.zeros(1, 3, 8, 8))

    class Copying(Job):
        def frames(self, chain: Chain) -> Iterator[Frame]:
            yield Frame("a copy", picture, copied=True)

        def write(self, frame: Frame, painted: Painted) -> None:
            raise AssertionError

    stylizer = Stylizer(picture, Settings(encoder="tiny"), encoders=[tiny_encoder()])
    host = plugin_manager()
    stylize.run(Copying(), stylizer, host=host)
    host.endings()  # of a folder
    assert module("all").called == {function.__name__ for function in hooks()}
