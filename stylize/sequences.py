"""Frames in memory painted as a clip, by whatever plugin opens clips: each starts from the one before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.errors import PluginError, SettingsError
from stylize.executors import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stylize.contracts import Frame
    from stylize.host import Host
    from stylize.images import Picture
    from stylize.observing import Step
    from stylize.stylizer import Stylizer

CLIP, RESULT, MASKS = "clip.mkv", "painted", "masks"
FORMATS = {  # of pixels, by type and number of channels: as they are, and as they are stored without loss
    ("uint8", 3): ("rgb24", "bgr0"),
    ("uint8", 4): ("rgba", "bgra"),
    ("uint16", 3): ("rgb48le", "rgb48le"),
    ("uint16", 4): ("rgba64le", "rgba64le"),
}


def paint_frames(
    frames: Iterable[NDArray[Any]],
    stylizer: Stylizer,
    host: Host,
    *,
    options: Mapping[str, Any] | None = None,
    masks: Iterable[NDArray[Any]] | None = None,
    rate: int = 25,
    on_step: Callable[[Frame, Step], object] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Picture]:
    """The frames of a clip, repainted; all are painted before the first is given.

    They pass through a temporary folder, without loss, so that memory holds only one of them.

    Args:
        frames: (H, W, 3), or (H, W, 4) with alpha, in uint8 or uint16; all alike.
        stylizer: for the size and style of the results, which have 8 or 16 bits like the frames, and even sides.
        host: whose plugins open the clip, add terms, observe and finish.
        options: of the command line, by name, such as ``temporal_weight``; those not given have their defaults.
        masks: what of each frame is painted, (H, W) of booleans or in [0, 1]: elsewhere the frames stay as they are.
        rate: frames per second, by which changes of scene are told from motion.
        on_step: called after every step of a frame, whose ``number`` counts from 1.
        stop: asked after every step; once True, only the frames finished so far are given.

    Raises:
        SettingsError: there are no frames, or they are not alike.
        PluginError: no plugin opens clips.
        StylizeError: whatever is wrong with the settings, weights or the device.
    """
    all_options = {**host.default_options(), **(options or {}), "partial": True}
    if "temporal_weight" not in all_options:
        raise PluginError("no plugin for clips is at work; install or enable the plugin video")
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        source, target = Path(folder, CLIP), Path(folder, RESULT)
        _write(frames, source, rate)
        if masks is not None:
            all_options["mask"] = str(_written(masks, Path(folder, MASKS)))
        job = host.open(source, (), target, stylizer.settings, all_options)
        run(job, stylizer, host=host, options=all_options, on_step=on_step, stop=stop)
        yield from _read(target)


def _write(frames: Iterable[NDArray[Any]], path: Path, rate: int) -> None:
    import av
    import numpy as np

    shape: tuple[int, ...] = ()
    with closing(av.open(str(path), "w")) as container:
        stream = container.add_stream("ffv1", rate=rate)
        for frame in frames:
            formats = FORMATS.get((frame.dtype.name, frame.shape[2] if frame.ndim == 3 else 0))
            if formats is None:
                kind = f"{frame.shape} of {frame.dtype}"
                raise SettingsError(f"a frame must be (H, W, 3 or 4) in uint8 or uint16, not {kind}")
            if not shape:
                shape = frame.shape
                stream.height, stream.width, stream.pix_fmt = frame.shape[0], frame.shape[1], formats[1]
            if frame.shape != shape:
                raise SettingsError(f"the frames of a clip must be of one size; they are {shape} and {frame.shape}")
            made = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=formats[0])
            container.mux(stream.encode(made.reformat(format=formats[1])))
        if not shape:
            raise SettingsError("a clip must have at least one frame")
        container.mux(stream.encode())


def _written(masks: Iterable[NDArray[Any]], folder: Path) -> Path:
    """Masks as numbered pictures in a new folder."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number, mask in enumerate(masks, 1):
        levels = (np.asarray(mask, np.float64).clip(0, 1) * 65535).round().astype(np.uint16)
        Image.fromarray(levels).save(folder / f"{number:06}.png", compress_level=1)
    return folder


def _read(folder: Path) -> Iterator[Picture]:
    from stylize.images import load

    for path in sorted(folder.glob("*.png")) if folder.is_dir() else ():
        yield load(path)
