"""Moments at which a process that is tested stops, is killed or waits, by itself.

A signal that a test sends arrives whenever the machine lets it. What is tested is what comes after a moment of the
process's own, such as the fifth step of a picture: :func:`plugin` makes a plugin, and the environment of
:func:`moment` tells it of one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conftest import PATIENCE, installed

VARIABLE = "TEST_MOMENT"
ACTIONS = ("stop", "kill", "wait", "tell")

CODE = f"""
import json, os, signal, threading, time
from pathlib import Path
from stylize import hookimpl

past = set()

def reached(moment, name):
    text = os.environ.get("{VARIABLE}", "")
    told = None if not text or text in past else json.loads(text)
    if told is None or told["moment"] != moment or told["name"] not in name:
        return
    past.add(text)
    if told["action"] == "tell":
        Path(f"{{told['file']}}.{{os.getpid()}}").touch()
        return
    if told["file"]:
        try:
            Path(told["file"]).touch(exist_ok=False)
        except FileExistsError:
            return
    if told["action"] == "wait":
        time.sleep(100000)
    number = signal.SIGSTOP if told["action"] == "stop" else signal.SIGKILL
    signal.pthread_kill(threading.get_ident(), number)  # this thread goes no further

@hookimpl
def stylize_step(frame, step):
    reached(f"step {{step.number}}", frame.name)

rename = Path.replace

def replace(self, target):
    reached("before", str(target))
    done = rename(self, target)
    reached("after", str(target))
    return done

if os.environ.get("{VARIABLE}", "") and "step" not in os.environ["{VARIABLE}"]:
    Path.replace = replace
"""


def plugin(folder: Path) -> Path:
    """A folder that, on PYTHONPATH, is an installed distribution with the plugin."""
    return installed(folder, "moments", CODE)


def moment(action: str, moment: str, name: str = "", file: Path | None = None) -> Mapping[str, str]:
    """The environment of a process that stops, is killed or waits at a moment.

    Args:
        action: one of :data:`ACTIONS`; a thread that waits does so for ever, and the others go on; a process that tells
            makes a file of this name and its number, and goes on.
        moment: ``"step 5"`` of a frame, ``"before"`` or ``"after"`` a file gets its name.
        name: what the name of that frame or file contains.
        file: a file that is made then. Of several processes of that environment only the one that makes it does so.
    """
    assert action in ACTIONS
    told = {"action": action, "moment": moment, "name": name, "file": None if file is None else str(file)}
    return {VARIABLE: json.dumps(told)}


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
