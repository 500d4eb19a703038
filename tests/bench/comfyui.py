"""The nodes of stylize in ComfyUI's real server: progress, previews, cache, batches, clips, masks and interruption,
counted.

    stylize comfyui install DIR
    PYTHON -m tests.bench.comfyui DIR          # PYTHON: that of ComfyUI, with stylize in it; the last line is JSON

The server runs on the CPU, on 127.0.0.1 only, with folders of its own for input, output and its database, and ends with
the script. ``--keep FOLDER`` keeps what it wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FRAMES = 3  # of the clip
PREVIEW = 1  # type of a binary message of the server that holds a picture
Workflow = dict[str, dict[str, Any]]


@dataclass
class Seen:
    """What a client hears of one prompt."""

    end: str = ""
    error: str = ""
    progress: list[tuple[int, int]] = field(default_factory=list)
    previews: int = 0
    cached: list[str] = field(default_factory=list)
    interrupt_seconds: float | None = None
    steps_after_interrupt: int = 0
    outputs: Mapping[str, Any] = field(default_factory=dict)


def workflow(
    size: int = 96, *, batch: int = 1, mask: bool = False, steps: str = "40", weight: float = -1.0
) -> Workflow:
    """A photo, a painting, a node of stylize with its settings, and the picture saved."""
    settings = {"size": size, "steps": steps, "encoder": "mini", "tolerance": 0.0, "scales": 1}
    nodes: Workflow = {
        "photo": {"class_type": "LoadImage", "inputs": {"image": "cat.jpg"}},
        "style": {"class_type": "LoadImage", "inputs": {"image": "waves.jpg"}},
        "settings": {"class_type": "StylizeSettings", "inputs": {**defaults(), **settings}},
        "stylize": {
            "class_type": "Stylize",
            "inputs": {
                "content": ["photo", 0],
                "style": ["style", 0],
                "settings": ["settings", 0],
                "preset": "default",
                "size": 0,
                "content_weight": weight,
                "preserve_color": "auto",
                "encoder": "auto",
            },
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["stylize", 0], "filename_prefix": "stylized"}},
    }
    if batch > 1:
        nodes["batch"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["photo", 0], "amount": batch}}
        nodes["stylize"]["inputs"]["content"] = ["batch", 0]
    if mask:
        solid = {"value": 1.0, "width": 200, "height": 150}
        nodes["mask"] = {"class_type": "SolidMask", "inputs": solid}
        nodes["stylize"]["inputs"]["mask"] = ["mask", 0]
    return nodes


def clip_workflow(*, steps: str = "40") -> Workflow:
    """Three frames of a camera that moves, as a clip."""
    nodes = workflow(steps=steps)
    for number in range(FRAMES):
        nodes[f"frame {number}"] = {"class_type": "LoadImage", "inputs": {"image": f"frame{number}.png"}}
    del nodes["photo"]
    for number, first in ((1, "frame 0"), (2, "frames 1")):
        pair = {"image1": [first, 0], "image2": [f"frame {number}", 0]}
        nodes[f"frames {number}"] = {"class_type": "ImageBatch", "inputs": pair}
    own = {"frames": [f"frames {FRAMES - 1}", 0], "style": ["style", 0], "settings": ["settings", 0]}
    nodes["stylize"] = {"class_type": "StylizeClip", "inputs": {**defaults("StylizeClip"), **own, "size": 0}}
    return nodes


def texture_workflow() -> Workflow:
    """The style alone."""
    nodes = workflow()
    del nodes["photo"]
    own = {"style": ["style", 0], "settings": ["settings", 0]}
    nodes["stylize"] = {"class_type": "StylizeTexture", "inputs": {**defaults("StylizeTexture"), **own, "size": 0}}
    return nodes


def defaults(node: str = "StylizeSettings") -> dict[str, Any]:
    """What the widgets of a node hold at first."""
    from stylize_comfyui.nodes import NODE_CLASS_MAPPINGS

    inputs: dict[str, Any] = NODE_CLASS_MAPPINGS[node].INPUT_TYPES()["required"]  # type: ignore[attr-defined]
    widgets = {name: (kind, *options) for name, (kind, *options) in inputs.items() if kind != "IMAGE"}
    return {
        name: options[0]["default"] if options and "default" in options[0] else kind[0]
        for name, (kind, *options) in widgets.items()
    }


class Server:
    """ComfyUI on a free port, ended with the block."""

    def __init__(self, comfy: Path, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "server.log"
        self.output = folder / "output"
        for name in ("input", "user"):
            (folder / name).mkdir(exist_ok=True)
        for name in ("cat.jpg", "waves.jpg"):
            shutil.copy(SAMPLES / name, folder / "input" / name)
        with Image.open(SAMPLES / "cat.jpg") as photo:
            for number in range(FRAMES):
                photo.crop((8 * number, 0, 8 * number + 240, 160)).save(folder / "input" / f"frame{number}.png")
        flags = ["--cpu", "--disable-api-nodes", "--preview-method", "auto", "--port", str(self.port)]
        folders = [f"--{name}-directory={folder / name}" for name in ("input", "output", "temp", "user")]
        database = f"--database-url=sqlite:///{folder / 'comfyui.db'}"
        command = [sys.executable, "main.py", *flags, *folders, database]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=comfy, stdout=log, stderr=subprocess.STDOUT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until it answers."""
        for _ in range(3000):
            if self._process.poll() is not None:
                raise RuntimeError(self.log.read_text())
            try:
                async with session.get(f"{self.url}/system_stats") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.5)
        raise RuntimeError("ComfyUI does not answer")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(300)


async def send(session: aiohttp.ClientSession, url: str, prompt: Workflow, interrupt_after: int = 0) -> Seen:
    """Run a workflow, as ComfyUI's own page does, and interrupt it after so many events of progress."""
    client, seen, asked = uuid.uuid4().hex, Seen(), 0.0
    async with session.ws_connect(f"{url}/ws?clientId={client}", max_msg_size=0) as events:
        async with session.post(f"{url}/prompt", json={"prompt": prompt, "client_id": client}) as answer:
            reply = await answer.json()
            if answer.status != 200:
                return Seen("refused", json.dumps(reply))
        async for message in events:
            if message.type == aiohttp.WSMsgType.BINARY:
                seen.previews += struct.unpack(">I", message.data[:4])[0] == PREVIEW
                continue
            event = json.loads(message.data)
            kind, data = event["type"], event["data"]
            if kind == "progress":
                seen.progress.append((data["value"], data["max"]))
                seen.steps_after_interrupt += bool(asked)
                if len(seen.progress) == interrupt_after:
                    asked = time.monotonic()
                    await session.post(f"{url}/interrupt")
            elif kind == "execution_cached":
                seen.cached = data["nodes"]
            elif kind in ("execution_error", "execution_interrupted", "execution_success"):
                seen.end, seen.error = kind.removeprefix("execution_"), str(data.get("exception_message", "")).strip()
                seen.interrupt_seconds = round(time.monotonic() - asked, 2) if asked else None
                break
    seen.outputs = await outputs(session, f"{url}/history/{reply['prompt_id']}", reply["prompt_id"])
    return seen


async def outputs(session: aiohttp.ClientSession, url: str, prompt: str) -> Mapping[str, Any]:
    """What the nodes of a prompt have put out; it is in the history a moment after the last event."""
    for _ in range(50):
        async with session.get(url) as answer:
            found = await answer.json()
        if prompt in found:
            break
        await asyncio.sleep(0.1)
    return dict(found.get(prompt, {}).get("outputs", {}))


def told(seen: Seen) -> dict[str, Any]:
    """A run in numbers."""
    values = [value for value, _ in seen.progress]
    return {
        "end": seen.end,
        **({"error": seen.error} if seen.error else {}),
        "progress": len(values),
        "rises": values == sorted(values),
        "full": bool(seen.progress) and seen.progress[-1][0] == seen.progress[-1][1],
        "previews": seen.previews,
        "cached": sorted(seen.cached),
        "pictures": len(seen.outputs.get("save", {}).get("images", [])),
        **(
            {"interrupt_seconds": seen.interrupt_seconds, "steps_after_interrupt": seen.steps_after_interrupt}
            if seen.interrupt_seconds is not None
            else {}
        ),
    }


async def measure(comfy: Path, folder: Path) -> dict[str, Any]:
    """All runs, each in numbers."""
    server = Server(comfy, folder)
    try:
        async with aiohttp.ClientSession() as session:
            await server.ready(session)
            async with session.get(f"{server.url}/object_info") as answer:
                nodes = sorted(name for name in await answer.json() if name.startswith("Stylize"))
            runs = {
                "once": (workflow(256), 0),
                "again": (workflow(256), 0),
                "other weight": (workflow(128, weight=0.2), 0),
                "batch of 3": (workflow(batch=3), 0),
                "mask": (workflow(mask=True), 0),
                "interrupted": (workflow(512, weight=0.3, steps="400"), 10),
                "after that": (workflow(96, weight=0.3), 0),
                "clip": (clip_workflow(), 0),
                "clip again": (clip_workflow(), 0),
                "clip interrupted": (clip_workflow(steps="400"), 10),
                "texture": (texture_workflow(), 0),
            }
            found = {name: told(await send(session, server.url, *run)) for name, run in runs.items()}
            wrong = workflow()
            wrong["settings"]["inputs"]["steps"] = "many"
            found["bad setting"] = told(await send(session, server.url, wrong))
            return {"nodes": nodes, **found}
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, metavar="DIR", help="a checkout of ComfyUI with the nodes installed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep pictures and the server's log")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        found = asyncio.run(measure(arguments.comfyui.resolve(), folder.resolve()))
    for name, numbers in found.items():
        print(f"{name}: {numbers}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
