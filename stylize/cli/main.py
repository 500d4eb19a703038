"""The entry point: plugins are loaded, they extend the command line, it runs, and errors become exit codes."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from stylize import allocator
from stylize.cli.commands import cli, run
from stylize.cli.display import print_event
from stylize.cli.inspect import doctor, plugins, presets, settings, weights
from stylize.cli.session import INTERRUPTED
from stylize.cli.status import status_command
from stylize.cli.terminal import complain, open_standard_streams
from stylize.errors import SettingsError, StylizeError
from stylize.host import Host, plugin_manager
from stylize.options import EventsOption

NO_PLUGIN = "--no-plugin"
SPINS = "10000"  # some microseconds: parallel regions follow each other faster

for command in (presets, settings, weights, plugins, doctor, status_command):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 called wrongly, 130 interrupted.

    Args:
        arguments: the words after ``stylize``; default: those of this process.
    """
    problems: list[str] = []
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    group: click.Group = cli
    if arguments is None:
        open_standard_streams()
        shorten_spinning()
        allocator.allow()
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)

    def fail(message: str, code: int) -> int:
        complain(message)
        if _prints_events(group, words):
            print_event("error", text=" ".join(message.split()), code=code)
        return code

    try:
        check_words(words)
        words_without, names = without_plugins(words)
        trace = complain if os.environ.get("STYLIZE_TRACE_HOOKS") else None
        host = plugin_manager(without=names, only=_plugins_of_environment(), trace=trace)
        group, problems = extended(host), host.problems
        code = group.main(args=words_without, prog_name="stylize", standalone_mode=False, obj=host)
    except StylizeError as error:
        code = fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        # an option or command may be unknown because the plugin that adds it was left out
        reasons = problems if isinstance(error, click.UsageError) else []
        code = fail("; ".join([error.format_message(), *reasons]), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = fail("interrupted", INTERRUPTED)
    except SystemExit:
        raise
    except BaseException as error:  # a bug of stylize or of a plugin
        if os.environ.get("STYLIZE_TRACEBACK"):
            raise
        code = fail("interrupted", INTERRUPTED) if _came_of_an_interrupt(error) else fail(_unexpected(error), 1)
    if arguments is None:
        for number in (signal.SIGINT, signal.SIGTERM):  # all work is done: these must not change the exit code now
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code if isinstance(code, int) else 0)


def shorten_spinning() -> None:
    """Let the threads of GNU OpenMP spin only shortly while they wait, unless the user has chosen: on a busy machine
    they take the CPU from those they wait for. OpenMP reads this when torch is loaded.

    Measured on two cores, a picture at 192 px by mini: on an idle machine as fast as before, where sleeping at once
    (OMP_WAIT_POLICY=passive) takes a quarter longer; beside two busy programs 4 s where it was 62.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def extended(host: Host) -> click.Group:
    """A copy of the command line with the options and commands that the host's plugins add."""
    group, command = copy.copy(cli), copy.copy(run)
    command.params = [*run.params]
    group.commands = {**cli.commands, "run": command}
    host.extend(group, command)
    return group


def check_words(words: Sequence[str]) -> None:
    """Refuse empty words. An empty path would mean the current folder, where it comes of a variable that is not set.

    Raises:
        SettingsError: says where the empty word stands.
    """
    for before, word in zip(["stylize", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            where = option or before
            raise SettingsError(f"nothing is given after {where}: an empty argument, perhaps of a variable not set")


def without_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without ``--no-plugin NAME``, wherever it stood, and the names. Plugins add options, so this one
    must be read before click parses the rest.

    Raises:
        SettingsError: no name follows.
    """
    rest: list[str] = []
    names: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            return [*rest, word, *words], names
        flag, equals, name = word.partition("=")
        if flag != NO_PLUGIN:
            rest.append(word)
            continue
        name = name if equals else next(words, "")
        if not name:
            raise SettingsError(f"{NO_PLUGIN} needs the name of a plugin; `stylize plugins` lists them")
        names.append(name)
    return rest, names


def _plugins_of_environment() -> list[str] | None:
    """The plugins that STYLIZE_PLUGINS names; None, for all of them, if it is not set."""
    named = os.environ.get("STYLIZE_PLUGINS")
    return None if named is None else [name.strip() for name in named.split(",") if name.strip()]


def _unexpected(error: BaseException) -> str:
    """What is said of an error that nobody foresaw: where the system refuses a file, which one and why."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        return f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"
    return f"unexpected {type(error).__name__}: {error}; STYLIZE_TRACEBACK=1 shows where"


def _came_of_an_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: Python 3.11 turns what is raised in the making of a class into another."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _prints_events(group: click.Group, words: Sequence[str]) -> bool:
    """Whether the command line asks for events, as far as that can be told of one that may be wrong."""
    options = [*words[: words.index("--")]] if "--" in words else words
    command = next((group.commands[word] for word in words if word in group.commands), group.commands["run"])
    flags = {flag for each in command.params if isinstance(each, EventsOption) for flag in each.opts}
    return not flags.isdisjoint(options)
