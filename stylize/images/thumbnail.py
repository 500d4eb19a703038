"""Small JPEGs to look at."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

from stylize.images.picture import fit, resize


def thumbnail(rgb: Tensor, longest: int = 320, *, quality: int = 85, comment: bytes = b"") -> bytes:
    """A JPEG of a picture.

    Args:
        rgb: (1, 3, H, W) sRGB in [0, 1], on any device.
        longest: its longest side in px, at most; a smaller picture keeps its size.
        quality: 1 to 100.
        comment: goes into the file.
    """
    small = resize(rgb.detach().float(), *fit(rgb.shape[-2], rgb.shape[-1], longest))  # on its device, which is faster
    levels = (small[0].permute(1, 2, 0).nan_to_num(0).clamp(0, 1) * 255).round().byte().cpu().numpy()  # (H, W, 3)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality, comment=comment)
    return buffer.getvalue()
