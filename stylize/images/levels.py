"""Which numbers are black and white in pictures of deep samples, where the type alone does not tell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize.errors import ImageError

Array = NDArray[Any]

SIXTEEN = 65535
DEEP = 30  # more bits than this hold all kinds of numbers: of 16 bits, of a detector of 20, of the whole range
PART = 16  # the range of signed numbers is not that of their type if they take up less than this part of it


def float_white(values: Array) -> float:
    """What counts as white among numbers in floating point: 1, or where most are above 1, that of 8 or 16 bits.

    Raises:
        ImageError: there are NaN or infinite ones.
    """
    if not np.isfinite(values).all():
        raise ImageError("it holds NaN or infinite values; write it anew without them")
    visible = values[values > 0]
    if not visible.size or float(np.median(visible)) <= 1:
        return 1.0
    highest = float(values.max())
    return next((white for white in (255.0, float(SIXTEEN)) if highest <= white), highest)


def whole_range(
    lowest: int, highest: int, bits: int, *, signed: bool = False, told: tuple[int | None, int | None] = (None, None)
) -> tuple[int, int]:
    """Black and white of whole numbers of so many bits, of which a picture has these as its ends.

    Black is 0 and white the largest number that the bits hold. Of more than 30 bits only as many count as the highest
    number needs, and at least 16. Signed numbers that are not just scattered about 0 go from the least to the largest
    that the bits hold, or if they take up less than a sixteenth of that, from the lowest to the highest. Both but for
    files that tell black and white, as ``told``.
    """
    least, largest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    negative = lowest < -highest / PART
    if not negative and bits <= DEEP:
        return 0, largest
    if told != (None, None):
        black = told[0] if told[0] is not None else least if negative else 0
        white = told[1] if told[1] is not None else largest
        if black <= max(0, lowest) and max(highest, black + 1) <= white:
            return black, white
    if negative:
        return (least, largest) if highest - lowest >= (largest - least) / PART else (lowest, highest)
    needed = max(highest, 2 ** max(0, highest - 1).bit_length() - 1)  # a power of two itself may be white
    return 0, min(largest, max(SIXTEEN, needed))


def whole_levels(
    values: Array,
    bits: int,
    *,
    signed: bool = False,
    told: tuple[int | None, int | None] = (None, None),
    alpha: int = 0,
) -> tuple[Array, int, str]:
    """Whole numbers (H, W, C), the last ``alpha`` of C opacity, as numbers of which 0 is black; what is white; and what
    is to be said of that. See :func:`whole_range`."""
    if not values.size:
        return values, 2**bits - 1, ""
    colours = values[..., : values.shape[2] - alpha]
    lowest, highest = int(colours.min()), int(colours.max())
    black, white = whole_range(lowest, highest, bits, signed=signed, told=told)
    note = ""
    if (black or white < 2 ** (bits - signed) - 1) and (black, white) != (0, SIXTEEN):
        note = f"whole numbers of {bits} bits, from {lowest} to {highest}: {black} is taken as black, {white} as white"
    if black:
        wide = values.astype(np.float64)
        wide[..., : colours.shape[2]] -= black
        values = wide
    if alpha:
        opaque = whole_range(0, int(values[..., -1].max()), bits, signed=signed)[1]
        if opaque != white - black:
            values = values.astype(np.float64)
            values[..., -1] *= (white - black) / opaque
    return values, white - black, note
