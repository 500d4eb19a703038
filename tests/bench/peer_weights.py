"""VGG-19's weights as other programs want them.

    python -m tests.bench.peer_weights WEIGHTS FOLDER PICTURE...

Writes hub/checkpoints/vgg19-dcbb9e9d.pth, which torchvision takes where TORCH_HOME names the folder, and vgg19.pth, for
neural-style-pt. That one sees pixels as Caffe does, blue first and up to 256, and balances its losses for the
activations of the original network: input and mean activation of relu1_1 over the pictures are made to be the same.
What comes after the convolutions, which nobody uses, is zeros that take no room.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.encoders import weights
from stylize.encoders.vgg import MEAN, STD
from stylize.errors import StylizeError
from stylize.images import as_picture
from stylize.terms import PAPER_ACTIVATION

TORCHVISION, NEURAL_STYLE = "hub/checkpoints/vgg19-dcbb9e9d.pth", "vgg19.pth"
CAFFE_MEAN = (123.68, 116.779, 103.939)  # red, green, blue
CLASSIFIER = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}


def for_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of VGG-19, classifier included."""
    made = {name: tensor.float() for name, tensor in tensors.items()}
    for index, shape in CLASSIFIER.items():
        made[f"classifier.{index}.weight"] = torch.zeros(()).expand(shape)
        made[f"classifier.{index}.bias"] = torch.zeros(()).expand(shape[0])
    return made


def for_neural_style(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The same for 256 times the picture, blue first, less Caffe's mean; all activations times ``scale``."""
    made = for_torchvision(tensors)
    mean, std, caffe = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD, CAFFE_MEAN))
    first = made["features.0.weight"] / std
    made["features.0.bias"] = made["features.0.bias"] + (first * (caffe / 256 - mean)).sum((1, 2, 3))
    made["features.0.weight"] = first.flip(1) * scale / 256
    for name in made:
        if name.endswith("bias"):
            made[name] = made[name] * scale
    return made


def activation(tensors: Mapping[str, Tensor], pictures: Sequence[Tensor]) -> float:
    """The mean of relu1_1 over pictures (1, 3, H, W)."""
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    weight, bias = tensors["features.0.weight"].float(), tensors["features.0.bias"].float()
    found = [F.relu(F.conv2d((picture - mean) / std, weight, bias, padding=1)).mean() for picture in pictures]
    return float(torch.stack(found).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        tensors = weights.read(options.weights, "vgg19")
        pictures = [as_picture(path, 512).rgb for path in options.pictures]
    except StylizeError as error:
        raise SystemExit(str(error)) from error
    scale = PAPER_ACTIVATION / activation(tensors, pictures)
    (options.folder / TORCHVISION).parent.mkdir(parents=True)
    torch.save(for_torchvision(tensors), options.folder / TORCHVISION)
    torch.save(for_neural_style(tensors, scale), options.folder / NEURAL_STYLE)


if __name__ == "__main__":
    main()
