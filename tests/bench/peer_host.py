"""Runs a program of others that asks for what is not here: VGG-16, imageio, a GPU.

    python peer_host.py PROGRAM.py ARGUMENTS...

STROTSS and NNST build torchvision's VGG-16 and take features from it by number. Here they get VGG-19's of the same
names under the same numbers (torchvision finds its weights where TORCH_HOME tells). imageio, where it is not installed,
is replaced by Pillow; where there is no GPU, tensor.cuda() and torch.cuda.synchronize() do nothing. A program with
relative imports is run as a part of the package that its folder is.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

VGG16 = (2, 2, 3, 3, 3)  # convolutions of its blocks
VGG19 = (2, 2, 4, 4, 4)


def renumbered(features: nn.Sequential) -> nn.Sequential:
    """VGG-19's modules as those of VGG-16: in the place of each pooling, what VGG-19 has before it besides."""
    modules, made = list(features), []
    for ours, theirs in zip(VGG16, VGG19, strict=True):
        block = [modules.pop(0) for _ in range(2 * theirs + 1)]  # each convolution with its ReLU, and the pooling
        made += block[: 2 * ours]
        made.append(nn.Sequential(*block[2 * ours :]))
    return nn.Sequential(*made)


def vgg16(*_: Any, **__: Any) -> types.SimpleNamespace:
    """What stands for torchvision's function of that name."""
    from torchvision import models

    return types.SimpleNamespace(features=renumbered(models.vgg19(weights=models.VGG19_Weights.IMAGENET1K_V1).features))


def imread(path: str, *_: Any, **__: Any) -> np.ndarray[Any, Any]:
    """A picture (H, W, C) of whole numbers, or (H, W)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB") if picture.mode not in ("L", "RGB") else picture)


def imwrite(path: str, pixels: np.ndarray[Any, Any], *_: Any, **__: Any) -> None:
    """Write pixels, of whole numbers or from 0 to 1."""
    if pixels.dtype != np.uint8:
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)


def prepare() -> None:
    """Put everything in its place."""
    import torchvision

    torchvision.models.vgg16 = vgg16
    if importlib.util.find_spec("imageio") is None:
        module = types.ModuleType("imageio")
        vars(module).update(imread=imread, imwrite=imwrite)
        sys.modules["imageio"] = module
    if not torch.cuda.is_available():
        torch.cuda.synchronize = lambda *_: None
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]


def main() -> None:
    program = Path(sys.argv[1]).resolve()
    sys.argv = sys.argv[1:]
    prepare()
    parted = "\nfrom ." in program.read_text() or "\nfrom  ." in program.read_text()
    sys.path[0] = str(program.parent.parent if parted else program.parent)
    if parted:
        runpy.run_module(f"{program.parent.name}.{program.stem}", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
