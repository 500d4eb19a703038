"""What painting commands share: the display, Ctrl-C, and the host in click's context."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from stylize.errors import PluginError, SettingsError
from stylize.host import Host

if TYPE_CHECKING:
    from types import FrameType

    from stylize.display import Display

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT, as shells have it


def current_host() -> Host:
    """The host of the command that is running."""
    return click.get_current_context().ensure_object(Host)


def encoder_options(host: Host, options: Mapping[str, Any], display: Display) -> dict[str, Any]:
    """The arguments of ``Stylizer`` that say where encoders come from; shows which plugins were left out."""
    specs = host.encoders()
    host.color_modes()  # asked now, so that the plugins whose modes are broken are among the problems
    for problem in host.problems:
        display.warning(problem)
    return {"encoders": specs, "weights": options["weights"], "progress": display.download}


@contextmanager
def showing(host: Host, options: Mapping[str, Any]) -> Iterator[Display]:
    """The display of a run: registered as a plugin while it lasts, and handler of what the package logs."""
    from stylize.display import Display

    if options["quiet"] and options["as_json"]:
        raise SettingsError("--quiet and --json cannot be combined")
    display = host.call("stylize_display", options=options)
    if not isinstance(display, Display):
        raise PluginError(f"a plugin gave {display!r} as the display, which is not a stylize.Display")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                display.warning(record.getMessage())
            else:
                display.notes([(record.getMessage(),)])

    log, handler = logging.getLogger("stylize"), Handler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    host.register(display, "the display")
    try:
        with display:
            yield display
    finally:
        log.removeHandler(handler)
        if host.is_registered(display):
            host.unregister(display)


@contextmanager
def interruptible(display: Display) -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C was pressed, so that the picture can be written as far as it is. A second
    Ctrl-C raises KeyboardInterrupt."""
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        display.stopping()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as shells have it for jobs in the background
        signal.signal(signal.SIGINT, on_signal)
    acknowledged = False

    def stop() -> bool:
        nonlocal acknowledged
        if pressed and not acknowledged:
            acknowledged = True
            display.stopped()
        return pressed

    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
