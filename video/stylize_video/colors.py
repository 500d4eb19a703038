"""HDR and wide gamuts: what is brighter or more saturated than BT.709 can show, brought within it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize_video.probe import Clip

Array = NDArray[Any]

HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
WHITE = 203.0  # cd/m2: diffuse white in HDR (ITU-R BT.2408)
PEAK = 1000.0  # cd/m2 of the display that HLG is made for
KNEE = 0.75  # of diffuse white: what is brighter is compressed
GAMMA = 2.2  # of SDR displays

# x and y of red, green, blue in CIE 1931; the white of all is D65 (SMPTE 431 has another, and is shown with this one).
_BT2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_BT709 = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES = {"bt2020": _BT2020, "smpte431": _P3, "smpte432": _P3}
_D65 = (0.3127, 0.3290)


def is_hdr(clip: Clip) -> bool:
    return clip.transfer in HDR


def described(clip: Clip) -> str:
    """What of the clip's colours BT.709 cannot hold; empty if it can hold all."""
    if is_hdr(clip):
        return f"HDR ({HDR[clip.transfer]})"
    return f"a wide gamut ({clip.primaries})" if clip.primaries in _PRIMARIES else ""


def converter(clip: Clip) -> Callable[[Array], Array] | None:
    """What brings frames (H, W, 3 or 4) in uint8 or uint16, RGB as stored, into BT.709; None where they are already."""
    if not described(clip):
        return None
    given = _PRIMARIES.get(clip.primaries, _BT2020 if is_hdr(clip) else _BT709)
    matrix = (np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(given)).astype(np.float32)
    tables = {kind: _linear(clip.transfer, np.iinfo(kind).max + 1) for kind in (np.uint8, np.uint16)}

    def convert(frame: Array) -> Array:
        light = tables[frame.dtype.type][frame[..., :3]]
        if clip.transfer == "arib-std-b67":  # from the scene to the display
            luma = light @ np.array((0.2627, 0.6780, 0.0593), np.float32)
            light *= np.float32(PEAK / WHITE) * luma[..., None] ** np.float32(0.2)
        light = light @ matrix.T
        if is_hdr(clip):
            light = compressed(light)
        most = np.iinfo(frame.dtype).max
        frame = frame.copy()
        frame[..., :3] = (light.clip(0, 1) ** np.float32(1 / GAMMA) * most).round()
        return frame

    return convert


def compressed(light: Array) -> Array:
    """Linear light (..., 3), 1 being diffuse white, with what lies above the knee rolled off towards 1; hues stay."""
    brightest = light.max(-1, keepdims=True)
    above = np.maximum(brightest - KNEE, 0) / (1 - KNEE)
    rolled = np.minimum(brightest, KNEE) + (1 - KNEE) * above / (1 + above)
    return np.asarray(light * (rolled / np.maximum(brightest, 1e-6)))


def _linear(transfer: str, levels: int) -> Array:
    """Linear light of each level, in float32: of the scene for HLG, else relative to diffuse white."""
    signal = np.linspace(0, 1, levels)
    if transfer == "smpte2084":
        power = signal ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        return np.asarray(light * 10_000 / WHITE, np.float32)
    if transfer == "arib-std-b67":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
    return np.asarray(signal**GAMMA, np.float32)


def _to_xyz(primaries: tuple[float, ...]) -> Array:
    """The matrix from linear RGB to XYZ."""
    x, y = np.array(primaries[::2]), np.array(primaries[1::2])
    columns = np.stack([x / y, np.ones(3), (1 - x - y) / y])
    white = np.array([_D65[0] / _D65[1], 1, (1 - _D65[0] - _D65[1]) / _D65[1]])
    return np.asarray(columns * np.linalg.solve(columns, white))
