"""VGG-19's weights as other programs want them.

    python -m tests.bench.peer_weights WEIGHTS FOLDER PICTURE...

Writes hub/checkpoints/vgg19-dcbb9e9d.pth, which torchvision takes where TORCH_HOME names the folder, and vgg19.pth, for
neural-style-pt. The activations of the original network, by Caffe, are in the hundreds, those of torchvision's about
one; programs have losses that are balanced for the one or the other, such as STROTSS, which sums cosines and means and
covariances as they are. For torchvision the mean activation of each layer over the pictures is made to be one (Gatys,
Ecker, Bethge 2016, section 2); for neural-style-pt, which sees pixels as Caffe does, blue first and up to 256, that of
relu1_1 what it is in the original. What comes after the convolutions, which nobody uses, is zeros that take no room.
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


def balanced(tensors: Mapping[str, Tensor], pictures: Sequence[Tensor]) -> dict[str, Tensor]:
    """The same network with activations whose mean over pictures (1, 3, H, W) is one in every layer."""
    made = dict[str, Tensor]()
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    maps, index, before = [(picture - mean) / std for picture in pictures], 0, torch.ones(())
    while f"features.{index}.weight" in tensors or f"features.{index + 1}.weight" in tensors:
        if (name := f"features.{index}.weight") not in tensors:
            maps, index = [F.max_pool2d(each, 2) for each in maps], index + 1
            continue
        weight, bias = tensors[name].float(), tensors[f"features.{index}.bias"].float()
        maps = [F.relu(F.conv2d(each, weight, bias, padding=1)) for each in maps]
        size = torch.stack([each.mean() for each in maps]).mean().clamp_min(1e-12)
        made |= {name: weight * (before / size), f"features.{index}.bias": bias / size}
        index, before = index + 2, size
    return made


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
    torch.save(for_torchvision(balanced(tensors, pictures)), options.folder / TORCHVISION)
    torch.save(for_neural_style(tensors, scale), options.folder / NEURAL_STYLE)


if __name__ == "__main__":
    main()
