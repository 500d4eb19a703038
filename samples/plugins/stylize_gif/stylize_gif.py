"""Animated GIFs, repainted frame by frame, each begun from the last result."""

from pathlib import Path

from PIL import Image, ImageSequence
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from stylize import Frame, ImageError, Job, Picture, atomic_write, hookimpl


@hookimpl(tryfirst=True)  # before the plugin for clips
def stylize_open(source, target):
    target = target or Path(f"{source.stem}-stylized.gif")
    return GifJob(source, target) if source.suffix.lower() == target.suffix.lower() == ".gif" else None


class GifJob(Job):
    def __init__(self, source, target):
        if target.resolve() == source.resolve() or not target.parent.is_dir():
            raise ImageError(f"cannot write {target}: give the path of another file, in a folder that is there")
        try:
            self.gif = Image.open(source)
        except OSError as error:
            raise ImageError(f"cannot read {source}: {error}") from error
        self.target, self.painted, self.times = target, [], []

    def frames(self, chain):
        for number, image in enumerate(ImageSequence.Iterator(self.gif), 1):
            rgb = pil_to_tensor(image.convert("RGB"))[None] / 255  # (1, 3, H, W)
            last = pil_to_tensor(self.painted[-1])[None] / 255 if self.painted else None
            self.times.append(image.info.get("duration", 100))  # milliseconds
            yield Frame(f"frame {number}", Picture(rgb), init=last, number=number, total=self.gif.n_frames)

    def write(self, frame, painted):
        self.painted.append(to_pil_image(painted.picture.rgb[0]))

    def finish(self):
        with atomic_write(self.target) as file:
            first, *rest = self.painted
            first.save(file, "GIF", save_all=True, append_images=rest, duration=self.times[: len(rest) + 1], loop=0)
        return self.target
