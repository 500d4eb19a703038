"""What painting commands share: the display, Ctrl-C, and the host in click's context."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from stylize.cli.preview import PreviewFile
from stylize.errors import PluginError, SettingsError
from stylize.host import Host

if TYPE_CHECKING:
    from types import FrameType

    from stylize.display import Display

PREVIEW = "the preview"  # its name as a plugin
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
    preview = preview_file(options)
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
    if preview is not None:
        host.register(preview, PREVIEW)
    try:
        with display:
            yield display
    finally:
        log.removeHandler(handler)
        for each in (display, preview):
            if each is not None and host.is_registered(each):
                host.unregister(each)


def preview_file(options: Mapping[str, Any]) -> PreviewFile | None:
    """What writes the file of ``--preview-file``, if that is given.

    Raises:
        SettingsError, ImageError: it cannot be written there.
    """
    path = options["preview_file"]
    if path is None:
        return None
    if options["output"] is not None and os.path.realpath(path) == os.path.realpath(options["output"]):
        raise SettingsError(f"--preview-file {path} is also the file of the result; give it another name")
    return PreviewFile(path)


def current_preview(host: Host) -> PreviewFile | None:
    """What writes the file of ``--preview-file`` in the run that :func:`showing` shows."""
    found = host.get_plugin(PREVIEW)
    assert found is None or isinstance(found, PreviewFile)
    return found


@contextmanager
def interruptible(display: Display) -> Iterator[Callable[[], bool]]:
    """A function that tells whether to stop, so that the picture can be written as far as it is: Ctrl-C was pressed,
    SIGTERM or SIGHUP was received, or nobody reads the display any more. A second Ctrl-C raises KeyboardInterrupt."""
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            if number != signal.SIGINT:  # which may come to the process and again to its group
                return
            raise KeyboardInterrupt
        pressed = True
        display.stopping()

    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as shells have it for jobs in the background, and nohup
            signal.signal(number, on_signal)
    acknowledged = False

    def stop() -> bool:
        nonlocal acknowledged
        if not acknowledged and (display.abandoned or pressed):  # in this order: a signal may come amid the first
            acknowledged = True
            display.stopped()
        return acknowledged

    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
