"""VGG-16 and VGG-19 (Simonyan, Zisserman 2015) as feature extractors: frozen, cut after the deepest layer asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.encoders import Place, layer_names
from stylize.encoders.weights import fingerprint
from stylize.errors import SettingsError

# torchvision's input convention
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Average pooling gives smaller activations than max pooling, layer after layer, while the biases stay: the deeper
# layers fade. The paper leaves it so; we multiply by the ratio of the two means at each pooling, measured for VGG-19
# on two dozen photographs (it varies by 5 % from one to the next).
AVERAGE_POOLING_SCALES = (1.36, 1.86, 1.55, 2.29)


class VGG:
    """Features by layer name of an sRGB picture; differentiable with respect to the picture, weights frozen.

    The first convolution sees the picture's edge replicated where the paper pads with zeros: zeros are a grey frame
    after mean subtraction, and the optimisation would paint that frame. Mean and standard deviation of the input
    convention are folded into the first convolution, which is exact with this padding.

    Args:
        weights: torchvision keys ``features.N.weight``/``.bias``, float32.
        widths: output channels of the convolutions, None for a pooling.
        layers: names of the layers wanted; the network ends at the deepest.
        place: device, precision, and pooling: "max" or "average" (scaled by :data:`AVERAGE_POOLING_SCALES` if
            ``place.rescale``).
        maps: what is given of a layer in place of its activation: a weight (C', C) and a bias (C',) by layer.

    Raises:
        SettingsError: a layer this network (or this weights file) does not have.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        widths: Iterable[int | None],
        layers: Iterable[str],
        place: Place,
        maps: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        widths = tuple(widths)
        names = layer_names(widths)
        self.layers = frozenset(layers)
        self._at, self._weights = place, weights
        indices = [index for index, width in modules(widths) if width is not None]
        held = [name for name, index in zip(names, indices, strict=True) if f"features.{index}.weight" in weights]
        for layer in sorted(self.layers):
            if layer not in held:
                raise SettingsError(f"unknown layer {layer!r}; this encoder has {', '.join(held)}")
        self._program: list[tuple[str, Tensor, Tensor] | None] = []  # None: pooling
        self._maps = {
            layer: (self._place(weight[:, :, None, None]), self._place(bias))
            for layer, (weight, bias) in (maps or {}).items()
            if layer in self.layers
        }
        missing, order = set(self.layers), iter(names)
        for index, width in modules(widths):
            if not missing:
                break
            if width is None:
                self._program.append(None)
                continue
            name = next(order)
            weight, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            if index == 0:
                weight, bias = _fold_input(weight, bias)
            self._program.append((name, self._place(weight), self._place(bias)))
            missing.discard(name)

    @cached_property
    def strides(self) -> dict[str, int]:
        """How many px lie between the positions of each layer."""
        found, stride = {}, 1
        for part in self._program:
            if part is None:
                stride *= 2
            elif part[0] in self.layers:
                found[part[0]] = stride
        return found

    @cached_property
    def reach(self) -> int:
        """How many px to each side a feature of the deepest layer sees."""
        reach, stride = 0, 1
        for part in self._program:  # a 3x3 convolution sees a position further, a 2x2 pooling too, to one side
            reach += stride
            stride *= 2 if part is None else 1
        return reach

    @cached_property
    def footprint(self) -> float:
        """Bytes for each pixel of a picture that are held until its gradient is there: the activations, the indices of
        max pooling, and the two largest gradients."""
        held, widest, stride, width, item = 0.0, 0, 1, 3, self._at.dtype.itemsize
        for part in self._program:
            if part is None:
                stride *= 2
                held += width * (item + 8 * (self._at.pooling == "max")) / stride**2
            else:
                width = len(part[1])
                held += width * item / stride**2
                widest = max(widest, width if stride == 1 else 0)
        return held + 2 * widest * item

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all the weights it was made from."""
        return fingerprint(self._weights)

    def _place(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().to(self._at.device, self._at.dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Features {layer: (1, C, H', W')} of a picture (1, 3, H, W) in [0, 1], in the encoder's precision.

        A picture too small for a pooling keeps its size there, so that every layer exists at every size.
        """
        x = F.pad(image.to(self._at.dtype), (1, 1, 1, 1), mode="replicate")  # slow for channels-last
        x = x.contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        scales = iter((*AVERAGE_POOLING_SCALES, 1.0))
        for position, part in enumerate(self._program):
            if part is None:
                x = self._pool(x, next(scales))
                continue
            name, weight, bias = part
            x = F.relu_(F.conv2d(x, weight, bias, padding=1 if position else 0))
            if name in self.layers:
                found[name] = F.conv2d(x, *self._maps[name]) if name in self._maps else x
        return found

    def _pool(self, x: Tensor, scale: float) -> Tensor:
        kernel = (min(2, x.shape[2]), min(2, x.shape[3]))
        if kernel == (1, 1):
            return x
        if self._at.pooling == "max":
            return F.max_pool2d(x, kernel)
        pooled = F.avg_pool2d(x, kernel)
        return pooled * scale if self._at.rescale else pooled


def modules(widths: Iterable[int | None]) -> Iterable[tuple[int, int | None]]:
    """(index in torchvision's Sequential, width or None) for each convolution and pooling; each ReLU takes an index."""
    index = 0
    for width in widths:
        yield index, width
        index += 1 if width is None else 2


def _fold_input(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    folded = weight / std
    return folded, bias - (folded * mean).sum((1, 2, 3))
