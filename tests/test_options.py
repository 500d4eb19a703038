"""Options of plugins: which source takes which, how plugins share one, and the defaults of all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from stylize import (
    Chain,
    Frame,
    Host,
    Job,
    Painted,
    PluginError,
    Settings,
    SettingsError,
    StylizeError,
    hookimpl,
    plugin_manager,
    report_option,
)
from stylize.cli.main import extended
from tests.conftest import Call

FAST = ("--encoder", "tiny", "--size", "16", "--steps", "1")


def run_options(host: Host) -> list[click.Option]:
    command = extended(host).commands["run"]
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def ours() -> Host:
    return plugin_manager(only=["batch", "video"])


def a_value(option: click.Option) -> list[str]:
    """Words that give an option a value it takes."""
    flag = max(option.opts, key=len)
    if option.is_flag:
        return [flag]
    if isinstance(option.type, click.Choice):
        return [flag, str(option.type.choices[0])]
    if isinstance(option.type, (click.IntRange, click.FloatRange)):
        return [flag, str(max(1, option.type.min or 0))]
    if option.type.name == "rate":
        return [flag, "24"]
    return [flag, *["value.html"] * option.nargs]


# source, styles, what it is, and whose options it takes
SOURCES = {
    "picture": (("photo.png", "starry.png"), "photo.png is a picture", "pictures"),
    "folder": (("photos", "starry.png"), "photos is painted as a folder", "folders"),
    "folder of styles": (("photo.png", "photos"), "photo.png is painted as a folder", "folders"),
    "clip": (("in.mkv", "starry.png"), "in.mkv is a clip", "clips"),
}


def wrong() -> Iterator[Any]:
    """Every option that an owner declares, with every kind of source that none of its owners opens."""
    host = ours()
    for option in run_options(host):
        owners = host.owners(str(option.name))
        for kind, (_, _, opener) in SOURCES.items():
            if owners and opener not in owners.split(" and "):
                yield pytest.param(option, owners, kind, id=f"{max(option.opts, key=len)}-{kind}")


@pytest.fixture
def sources(folder: Path, pictures: tuple[Path, Path], make_clip: Callable[[Path], None]) -> Path:
    (folder / "photos").mkdir()
    Image.new("RGB", (20, 16), "red").save(folder / "photos" / "a.png")
    make_clip(folder / "in.mkv")
    return folder


@pytest.fixture
def make_clip() -> Callable[[Path], None]:
    def make(path: Path) -> None:
        import av
        import numpy as np

        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            for value in (50, 60):
                frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), value, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return make


def test_there_are_options_of_pictures_folders_and_clips() -> None:
    host = ours()
    owners = {host.owners(str(option.name)) for option in run_options(host)}
    assert owners == {
        "",
        "folders",
        "clips",
        "pictures and folders",
        "pictures and folders and clips",
        "folders and clips",
    }
    assert len([*wrong()]) > 40


@pytest.mark.parametrize(("option", "owners", "kind"), [*wrong()])
def test_an_option_is_refused_on_the_sources_of_others(
    call: Call, sources: Path, option: click.Option, owners: str, kind: str
) -> None:
    words, source, _ = SOURCES[kind]
    before = sorted(sources.rglob("*"))
    done = call(*words, *FAST, *a_value(option))
    assert done.err == f"stylize: {max(option.opts, key=len)} belongs to {owners}; {source}\n"
    assert (done.code, done.out) == (2, "")
    assert sorted(sources.rglob("*")) == before


def test_an_option_is_refused_even_if_its_default_is_given(call: Call, sources: Path) -> None:
    assert "--flow belongs to clips" in call("photo.png", "starry.png", *FAST, "--flow", "dis").err


def test_pairing_one_picture_with_one_style_is_refused_as_an_option_of_folders(call: Call, sources: Path) -> None:
    done = call("photo.png", "starry.png", *FAST, "--pair", "cycle", "-o", "out.png")
    assert done.err == "stylize: --pair belongs to folders; photo.png is a picture\n"
    done = call("photo.png", "starry.png", "photos/a.png", *FAST, "--pair", "cycle", "-o", "out.png")
    assert done.err == (
        "stylize: --pair can make several results: give -o the name of a folder for the results, not out.png\n"
    )


# Plugins made up


def plugin(**hooks: Callable[..., object]) -> object:
    return type("Plugin", (), {name: staticmethod(hookimpl(function)) for name, function in hooks.items()})()


def adding(*options: click.Option) -> Callable[..., None]:
    def stylize_options(command: click.Command) -> None:
        command.params.extend(options)

    return stylize_options


def with_plugins(**plugins: object) -> tuple[Host, click.Command]:
    host = plugin_manager(only=[])
    for name, each in plugins.items():
        host.register(each, name)
    command = click.Command("run")
    host.extend(click.Group(), command)
    return host, command


def test_two_plugins_may_have_one_option_which_is_then_for_the_sources_of_both() -> None:
    apples = plugin(stylize_options=adding(report_option()), stylize_sources=lambda: ("an apple", "apples"))
    pears = plugin(stylize_options=adding(report_option()), stylize_sources=lambda: ("a pear", "pears"))
    host, command = with_plugins(one=apples, other=pears)
    assert host.problems == []
    assert [parameter.name for parameter in command.params].count("report") == 1
    assert host.owners("report") == "apples and pears"


@pytest.mark.parametrize(
    "second",
    [
        click.Option(["--cold"], type=int),
        click.Option(["--cold"], is_flag=True, default=True),
        click.Option(["--cold", "hot"], is_flag=True),
        click.Option(["--icy", "cold"], is_flag=True),
        click.Option(["--cold"], is_flag=True, callback=lambda context, parameter, value: value),
    ],
)
def test_an_option_that_is_not_the_same_is_refused(second: click.Option) -> None:
    one = plugin(stylize_options=adding(click.Option(["--cold"], is_flag=True, help="Freeze.")))
    other = plugin(stylize_options=adding(click.Option(["--warm"]), second))
    host, command = with_plugins(one=one, other=other)
    (problem,) = host.problems
    assert re.fullmatch(r"plugin other left out: ValueError: the option .*cold.* exists already", problem)
    assert {"cold", "warm"} & {parameter.name for parameter in command.params} == {"cold"}
    assert host.owners("cold") == "the plugin one"


def test_a_plugin_may_not_add_one_option_twice() -> None:
    host, command = with_plugins(one=plugin(stylize_options=adding(report_option(), report_option())))
    assert host.problems == ["plugin one left out: ValueError: the option --report, report exists already"]
    assert "report" not in {parameter.name for parameter in command.params}


def test_words_for_sources_must_be_two(folder: Path) -> None:
    host, _ = with_plugins(odd=plugin(stylize_sources=lambda: ["things"]))
    (problem,) = host.problems
    assert problem.startswith("plugin odd left out: TypeError: ")


class NoJob(Job):
    """What opens but never paints."""

    def frames(self, chain: Chain) -> Iterator[Frame]:
        return iter(())

    def write(self, frame: Frame, painted: Painted) -> None:
        raise AssertionError


def opening(host: Host, *given: str) -> object:
    return host.open(Path("in.apple"), (), None, Settings(), {}, given=given)


def test_an_option_of_a_plugin_that_opens_nothing_is_for_all_sources() -> None:
    job = NoJob()
    grain = plugin(stylize_options=adding(click.Option(["--grain"])))
    host, _ = with_plugins(grain=grain, apples=plugin(stylize_open=lambda source: job))
    assert opening(host, "grain") is job


def test_a_plugin_without_words_for_its_sources_is_named_itself() -> None:
    pears = plugin(stylize_open=lambda source: None, stylize_options=adding(click.Option(["--pear"])))
    host, _ = with_plugins(pears=pears, apples=plugin(stylize_open=lambda source: NoJob()))
    with pytest.raises(SettingsError) as error:
        opening(host, "pear")
    assert str(error.value) == "--pear belongs to the plugin pears; in.apple is opened by the plugin apples"


def test_a_source_that_nobody_opens_and_a_job_that_is_none_are_errors(tmp_path: Path) -> None:
    host, _ = with_plugins(apples=plugin(stylize_open=lambda source: 5 if source.suffix == ".apple" else None))
    with pytest.raises(
        PluginError, match=r"plugin apples opened in\.apple as 5, which is not derived from stylize\.Job"
    ):
        opening(host)
    with pytest.raises(StylizeError, match="is a folder, which no installed plugin opens"):
        host.open(tmp_path, (), None, Settings(), {})


def test_the_defaults_are_those_of_the_command_line() -> None:
    host = ours()
    with extended(host).commands["run"].make_context("run", ["photo.png", "starry.png"]) as context:
        settings = {*Settings().to_dict(), "scales", "preset_name", "config", "content", "styles"}
        assert host.default_options() == {name: context.params[name] for name in context.params if name not in settings}
    assert host.default_options()["temporal_weight"] == 2.0


def test_the_defaults_know_the_options_of_every_plugin() -> None:
    host, _ = with_plugins(grain=plugin(stylize_options=adding(click.Option(["--grain"], default=0.5))))
    assert host.default_options()["grain"] == 0.5
