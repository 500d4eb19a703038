"""Colours told by numbers: primaries and transfer functions, in floating point -> sRGB.

What CICP (H.273), gAMA and cHRM of PNG, EXIF's Adobe RGB and ICC profiles of a matrix and curves say. The colour engine
for all other profiles takes 8 bits.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Curve = Callable[[Array], Array]

D65 = (0.3127, 0.3290)
D50 = np.array([0.9642, 1.0, 0.8249])  # of the profile connection space
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SDR_WHITE = 203.0  # cd/m2 of diffuse white in HDR pictures (ITU-R BT.2408)
_KNEE = 0.75  # of white: what is darker is not changed by tone mapping
_STRIP = 2**20  # pixels converted at once

Primaries = tuple[tuple[float, float], ...]  # x, y of red, green, blue and white
SRGB: Primaries = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
ADOBE: Primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
_C = (0.310, 0.316)
_PRIMARIES: dict[int, Primaries] = {  # by their number in H.273
    1: SRGB,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
PQ, HLG = 16, 18  # transfer functions


@dataclass(frozen=True)
class Encoding:
    """A colour space: ``linear`` brings values in [0, 1] to linear light, ``matrix`` that to the linear light of sRGB.

    Light beyond white is tone-mapped where ``hdr``, otherwise cut off.
    """

    matrix: Array
    linear: Curve
    hdr: bool = False

    @property
    def has_srgb_primaries(self) -> bool:
        """Whether no colour it can tell lies outside sRGB."""
        return np.allclose(self.matrix, np.eye(3), atol=0.02)

    def to_srgb(self, values: Array) -> Array:
        """(H, W, 3 or more) float32 in [0, 1] -> the same with sRGB in the first three channels, in place."""
        rows = max(1, _STRIP // max(1, values.shape[1]))
        peak = 1.0
        if self.hdr:
            step = max(1, values.shape[0] * values.shape[1] // _STRIP)
            sample = self._light(values.reshape(-1, values.shape[2])[None, ::step, :3])
            peak = float(np.quantile(sample.max(axis=2), 0.999)) if sample.size else 1.0
        for top in range(0, values.shape[0], rows):
            part = values[top : top + rows, :, :3]
            light = self._light(part)
            if peak > 1:
                light = _tone_mapped(light, peak)
            part[...] = encode_srgb(np.clip(light, 0, 1))
        return values

    def _light(self, values: Array) -> Array:
        light: Array = self.linear(values) @ self.matrix.T.astype(np.float32)
        return light


def encode_srgb(light: Array) -> Array:
    """Linear light in [0, 1] -> sRGB."""
    encoded: Array = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return encoded


def decode_srgb(values: Array) -> Array:
    """sRGB -> linear light."""
    light: Array = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return light


def _tone_mapped(light: Array, peak: float) -> Array:
    """Light of which ``peak`` is to be white, the ratios of the channels kept; what is below the knee is not changed.

    Between knee and peak a curve whose slope is 1 at the knee: as in Reinhard et al. 2002, eq. 4, moved to the knee.
    """
    brightest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    span, most = 1 - _KNEE, (peak - _KNEE) / (1 - _KNEE)
    above = np.clip((brightest - _KNEE) / span, 0, most)
    mapped = _KNEE + span * above * (1 + above / most**2) / (1 + above)
    return np.where(brightest > _KNEE, light * np.minimum(mapped, 1) / brightest, light)


def power(gamma: float) -> Curve:
    def linear(values: Array) -> Array:
        light: Array = np.maximum(values, 0) ** np.float32(gamma)
        return light

    return linear


def _pq(values: Array) -> Array:
    """SMPTE ST 2084: 1 is diffuse white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = np.maximum(values.astype(np.float64), 0) ** (1 / m2)
    light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (light * (10_000 / _SDR_WHITE)).astype(np.float32)


def _hlg(weights: Array) -> Curve:
    """ARIB STD-B67 with the system gamma of a display of 1000 cd/m2; ``weights`` are those of luminance."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073

    def linear(values: Array) -> Array:
        values = np.maximum(values, 0)
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((np.minimum(values, 1) - c) / a) + b) / 12)
        bright = np.maximum(scene @ weights, 1e-6)[..., None]
        shown: Array = scene * bright**0.2 * (1000 / _SDR_WHITE)
        return shown.astype(np.float32)

    return linear


def _to_xyz(primaries: Primaries) -> Array:
    xy = np.array(primaries, np.float64)
    columns = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    matrix: Array = columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
    return matrix


def _adapted(matrix: Array, white: Array, to: Array) -> Array:
    gains = (_BRADFORD @ to) / (_BRADFORD @ white)
    adapted: Array = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ matrix
    return adapted


def _to_srgb_matrix(primaries: Primaries) -> Array:
    matrix, srgb = _to_xyz(primaries), _to_xyz(SRGB)
    made: Array = np.linalg.inv(srgb) @ _adapted(matrix, matrix.sum(1), srgb.sum(1))
    return made


@functools.cache
def adobe_rgb() -> Encoding:
    return Encoding(_to_srgb_matrix(ADOBE), power(563 / 256))


def linear_srgb() -> Encoding:
    return Encoding(np.eye(3), lambda values: values)


def of_cicp(primaries: int, transfer: int) -> Encoding | None:
    """The encoding of two numbers of H.273; None for sRGB and for what is unknown or left open."""
    matrix = _to_srgb_matrix(_PRIMARIES.get(primaries, SRGB))
    if transfer == PQ:
        return Encoding(matrix, _pq, hdr=True)
    if transfer == HLG:
        weights = _to_xyz(_PRIMARIES.get(primaries, SRGB))[1]
        return Encoding(matrix, _hlg(weights), hdr=True)
    # The curve of video cameras (BT.709 and its like) is shown as that of sRGB.
    curve = {4: power(2.2), 5: power(2.8), 8: linear_srgb().linear}.get(transfer, decode_srgb)
    if curve is decode_srgb and np.allclose(matrix, np.eye(3), atol=0.02):
        return None
    return Encoding(matrix, curve)


def of_png(gamma: float | None, chromaticities: Primaries | None) -> Encoding | None:
    """The encoding of a PNG's gAMA, such as 0.45455, and cHRM; None for sRGB and for nonsense."""
    try:
        matrix = np.eye(3) if chromaticities is None else _to_srgb_matrix(chromaticities)
    except (np.linalg.LinAlgError, FloatingPointError):
        matrix = np.eye(3)
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 10:
        matrix = np.eye(3)
    same = np.allclose(matrix, np.eye(3), atol=0.02)
    if gamma is None or not 0.05 <= gamma <= 20 or (same and abs(gamma - 1 / 2.2) < 0.02):
        return None if same else Encoding(matrix, decode_srgb)
    return Encoding(matrix, power(1 / gamma))


def of_icc(profile: bytes, channels: int) -> Encoding | None:
    """The encoding of an ICC profile of a matrix and curves, or for one channel of a grey curve; None for others."""
    try:
        tags = icc_tags(profile)
        space = profile[16:20]
        if space == b"GRAY" and channels == 1:
            return Encoding(np.eye(3), curve(tags[b"kTRC"]))
        if space != b"RGB " or b"A2B0" in tags or profile[20:24] != b"XYZ ":
            return None
        columns = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
        curves = [curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
    except (KeyError, struct.error, ValueError, IndexError):
        return None
    srgb = _to_xyz(SRGB)
    matrix = np.linalg.inv(srgb) @ _adapted(columns, D50, srgb.sum(1))

    def linear(values: Array) -> Array:
        return np.stack([curve(values[..., index]) for index, curve in enumerate(curves)], axis=-1)

    return Encoding(matrix, linear)


def icc_tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    found = {}
    for index in range(min(count, 200)):
        name, start, length = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        found[name] = profile[start : start + length]
    return found


def _xyz(tag: bytes) -> Array:
    if tag[:4] != b"XYZ ":
        raise ValueError("no XYZ")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def curve(tag: bytes) -> Curve:
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return lambda values: values
        if count == 1:
            return power(struct.unpack_from(">H", tag, 12)[0] / 256)
        table = np.frombuffer(tag, ">u2", count, 12).astype(np.float32) / 65535
        grid = np.linspace(0, 1, count, dtype=np.float32)
        return lambda values: np.interp(values, grid, table).astype(np.float32)
    if tag[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}[kind]
    g, *rest = (value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12))
    if kind in (0, 3, 4):
        a, b, c, d, e, f = {0: (1.0, 0.0, 0.0, -1.0, 0.0, 0.0), 3: (*rest, 0.0, 0.0), 4: (*rest,)}[kind]
    else:  # the curve ends where its base is 0
        a, b, c, d, e, f = rest[0], rest[1], 0.0, -rest[1] / rest[0], *([rest[2]] * 2 if kind == 2 else [0.0, 0.0])
    return lambda v: np.where(v >= d, np.maximum(a * v + b, 0) ** g + e, c * v + f).astype(np.float32)


def srgb_to_xyz() -> Array:
    """The matrix from linear light of sRGB to XYZ relative to D50."""
    srgb = _to_xyz(SRGB)
    return _adapted(srgb, srgb.sum(1), D50)


def lab_to_srgb(lab: Array) -> Array:
    """(..., 3) of L* in 0 to 100, a* and b*, relative to D50 -> sRGB in [0, 1]."""
    return xyz_to_srgb(lab_to_xyz(lab))


def lab_to_xyz(lab: Array) -> Array:
    """(..., 3) of L* in 0 to 100, a* and b* -> XYZ, both relative to D50."""
    y = (lab[..., 0] + 16) / 116
    ratios = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz: Array = np.where(ratios > 6 / 29, ratios**3, (ratios - 4 / 29) * 3 * (6 / 29) ** 2) * D50
    return xyz


def xyz_to_srgb(xyz: Array) -> Array:
    """(..., 3) of XYZ relative to D50 -> sRGB in [0, 1]."""
    srgb = _to_xyz(SRGB)
    matrix = np.linalg.inv(srgb) @ _adapted(np.eye(3), D50, srgb.sum(1))
    return encode_srgb(np.clip(xyz @ matrix.T, 0, 1)).astype(np.float32)
