"""Animated GIFs, repainted frame by frame, each begun from the last result."""

from pathlib import Path

from PIL import Image, ImageSequence
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from stylize import Frame, Job, Picture, atomic_write, hookimpl


@hookimpl
def stylize_open(source, target):
    target = target or Path(f"{source.stem}-stylized.gif")
    ours = source.suffix.lower() == target.suffix.lower() == ".gif"
    return GifJob(source, target) if ours else None


class GifJob(Job):
    def __init__(self, source, target):
        self.source, self.target, self.painted, self.times = source, target, [], []

    def frames(self):
        with Image.open(self.source) as gif:
            for number, image in enumerate(ImageSequence.Iterator(gif), 1):
                rgb = pil_to_tensor(image.convert("RGB"))[None] / 255  # (1, 3, H, W)
                last = pil_to_tensor(self.painted[-1])[None] / 255 if self.painted else None
                yield Frame(f"frame {number}", Picture(rgb), init=last, number=number, total=gif.n_frames)
                self.times.append(image.info.get("duration", 100))  # milliseconds

    def write(self, frame, result):
        self.painted.append(to_pil_image(result.rgb[0]))

    def finish(self):
        with atomic_write(self.target) as file:
            times = self.times[: len(self.painted)] or 100
            self.painted[0].save(file, "GIF", save_all=True, append_images=self.painted[1:], duration=times, loop=0)
        return self.target
