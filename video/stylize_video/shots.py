"""Where one shot of a clip ends and the next begins."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST = 5  # frames of a shot


def cuts(frames: Iterable[NDArray[Any]], rate: Fraction) -> tuple[int, list[int]]:
    """The number of frames (H, W, 3) in uint8, and the numbers, from 0, of those that begin a shot, except the first.

    PySceneDetect's adaptive detector: frames are compared with their neighbours rather than a fixed threshold.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(min_scene_len=SHORTEST)
    found: set[int] = set()
    last = FrameTimecode(0, rate)
    count = 0
    for frame in frames:
        last = FrameTimecode(count, rate)
        found |= {cut.frame_num for cut in detector.process_frame(last, np.ascontiguousarray(frame[..., ::-1]))}
        count += 1
    found |= {cut.frame_num for cut in detector.post_process(last)}
    return count, sorted(cut for cut in found if 0 < cut < count)
