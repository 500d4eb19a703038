"""How firmly a photo whose parts may become other things is held.

Where parts are compared with each other (self-similarity) and pieces of the painting copied whole, a subject on an even
ground becomes the painting's things; of a town or a face hardly anything is left. No loss tells the two apart, but the
outlines do: where the photo has any, and how strong. They are measured after each scale but the fine ones. A picture
that has lost them is begun anew, from the coarsest scale on, with the photo held more firmly.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from stylize.settings import Settings

log = logging.getLogger(__name__)

WIDTH, AROUND = 1 / 128, 1 / 64  # of outlines and their surroundings: standard deviations over the longest side
FLAT = 1e-4  # deviation of the strength of a photo's outlines, below which it has none to lose


@dataclass(frozen=True)
class Hold:
    """How the settings' weights of content and matched pieces are given out.

    ``self_similarity`` and ``features`` are factors of the content weight, ``matched`` of the weight of the matched
    pieces, which may copy whole things of the painting if ``copying``. ``least`` is the share of what the settings ask
    for of the photo's outlines that must be left.
    """

    self_similarity: float
    features: float
    matched: float = 1.0
    copying: bool = True
    least: float = 1.0
    told: str = ""


# Self-similarity is multiplied by more, as such distances are smaller. A little of the features is held in any case:
# without it, skies and towns change places. The last is the recipe of the preset match, over that of collage.
LOOSE = Hold(6.0, 0.2)
HOLDS = (
    LOOSE,
    Hold(1.0, 1.0, least=0.82, told="it is held more firmly"),
    Hold(0.0, 1.15, 2 / 3, copying=False, least=0.0, told="it is painted as by --preset match"),
)


class Holding:
    """How firmly a photo is held while it is painted.

    Attributes:
        hold: as it is to be held at the next scale.
    """

    def __init__(self, least: float, name: str = "") -> None:
        self.hold = LOOSE
        self._least, self._name = least, name
        self._first: float | None = None  # share of the outlines that was left when too few were

    @classmethod
    def of(cls, settings: Settings, name: str = "") -> Holding | None:
        """That of the settings, for a photo of this name; None where it is always held in the same way."""
        loose = settings.content_loss == "self-similarity" and settings.content_weight and settings.style_weight
        return cls(settings.min_outlines, name) if loose and settings.min_outlines else None

    def is_lost(self, painted: Tensor, photo: Tensor, weights: Tensor | None = None) -> bool:
        """Whether too little of a photo's outlines is left to be kept: then it is held more firmly from now on. For the
        arguments see :func:`outlines_left`."""
        left = outlines_left(painted, photo, weights)
        if self.hold is not HOLDS[-1] and left < self._least * self.hold.least:
            self._first = max(0.0, left) if self.hold is LOOSE else self._first
            self.hold = HOLDS[HOLDS.index(self.hold) + 1]
            return True
        return False

    def tell(self) -> None:
        """Say it in a line if the photo had to be held more firmly."""
        if self.hold is not LOOSE and self._first is not None:
            whose = f"{self._name}: " if self._name else ""
            share = f"{100 * self._first:.0f} %"
            log.info("%slittle of the photo's outlines would be left (%s): %s", whose, share, self.hold.told)

    def resume(self, painted: Tensor, photo: Tensor, weights: Tensor | None = None) -> None:
        """Go on from a picture that is nearly done, such as the last frame of a clip."""
        self.hold = LOOSE if outlines_left(painted, photo, weights) >= self._least else HOLDS[1]


def outlines_left(painted: Tensor, photo: Tensor, weights: Tensor | None = None) -> float:
    """The correlation of the strength of outlines, 1 at most, in two pictures (1, 3 or 1, H, W) of one size, whichever
    colours they have and whichever side of them is the brighter; 1 for a photo without any.

    Args:
        weights: how much each position counts, (H * W,) with sum 1; None: all alike.
    """
    own, wanted = (_strength(each).flatten() for each in (painted, photo.to(painted.device)))
    counts = torch.full_like(own, 1 / len(own)) if weights is None else weights.to(own.device)
    own, wanted = own - counts @ own, wanted - counts @ wanted
    deviation = (counts @ wanted.square()).sqrt()
    left = (counts @ (own * wanted)) / ((counts @ own.square()).sqrt() * deviation).clamp_min(1e-12)
    return float(torch.where(deviation < FLAT, torch.ones_like(left), left))


def _strength(picture: Tensor) -> Tensor:
    """That of the outlines around each position of a picture (1, C, H, W): (1, 1, H, W)."""
    longest = max(picture.shape[2:])
    smooth = F.pad(_smoothed(picture.float(), WIDTH * longest), (1, 1, 1, 1), mode="replicate")
    across = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    energy = (across.square() + down.square()).mean(1, keepdim=True)
    return _smoothed(energy, AROUND * longest).add(1e-8).sqrt()


def _smoothed(maps: Tensor, deviation: float) -> Tensor:
    """Maps (1, C, H, W) convolved with a Gaussian, by their edges continued."""
    reach = max(1, math.ceil(3 * deviation))
    at = torch.arange(-reach, reach + 1, device=maps.device, dtype=torch.float32)
    kernel = torch.exp(-at.square() / (2 * deviation**2))
    kernel /= kernel.sum()
    padded = F.pad(maps, (reach,) * 4, mode="replicate").transpose(0, 1)
    made = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return made.transpose(0, 1)
