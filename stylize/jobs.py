"""The job for one picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.contracts import Chain, Frame, Job, Painted
from stylize.errors import ImageError, TargetError

if TYPE_CHECKING:
    from stylize.regions import Areas


class ImageJob(Job):
    """One picture file to another; ``keep`` are other files of the run that must not be written over, ``areas`` what of
    the picture is painted, and in which styles.

    A picture much larger than ``size``, the longest side of the result in px, is shrunk as it is read.

    Raises:
        ImageError: the source cannot be read, or the target cannot be written or is a source.
    """

    def __init__(
        self,
        source: Path,
        target: Path | None,
        *,
        bits: int | None = None,
        location: bool = True,
        profile: str = "srgb",
        quality: int | None = None,
        size: int | None = None,
        keep: Sequence[Path] = (),
        areas: Areas | None = None,
    ) -> None:
        from stylize import images

        self.image = images.load(source, longest=size and size * images.SPARE, profile=profile)
        self.target = target if target is not None else Path(f"{source.stem}-stylized.png")
        painted = None if size is None else images.fit(*self.image.size, size)
        images.check_target(self.target, bits=bits, quality=quality, size=painted)
        check_distinct(self.target, source, *keep)
        self._options: dict[str, Any] = {"bits": bits, "quality": quality, "location": location}
        self._areas = areas
        if areas is not None:
            areas.check_proportions(*self.image.size)

    def frames(self, chain: Chain) -> Iterator[Frame]:
        if self._areas is None:
            yield Frame(self.image.name, self.image)
        else:
            yield Frame(self.image.name, self.image, mask=self._areas.mask, regions=self._areas.regions)

    def write(self, frame: Frame, painted: Painted) -> None:
        painted.picture.save(self.target, **self._options)

    def finish(self) -> Path | None:
        return self.target


def check_distinct(target: Path, *sources: Path) -> None:
    """Refuse to write over a source.

    Raises:
        TargetError: names the file.
        ImageError: the paths cannot be compared.
    """
    for source in sources:
        try:
            same = os.path.realpath(target) == os.path.realpath(source)
            if not same and os.path.exists(target) and os.path.exists(source):  # noqa: PTH110, Path's raises OSError
                same = target.samefile(source)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
        if same:
            raise TargetError(f"the target {target} is also a source; choose another name with -o")
