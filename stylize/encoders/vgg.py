"""VGG-16 and VGG-19 (Simonyan, Zisserman 2015) as feature extractors: frozen, cut after the deepest layer asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylize import cuda
from stylize.encoders import EncoderConfig, layer_names
from stylize.encoders.weights import fingerprint
from stylize.encoders.winograd import OUT, Winograd
from stylize.errors import SettingsError
from stylize.streams import mark

if TYPE_CHECKING:
    from stylize.gradients import ClosedFormGradient

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

    The backward pass is written out rather than left to autograd, which saves memory: gradients of the features that
    are known in closed form (:class:`stylize.gradients.ClosedFormGradient`) are added to it in place, as a product, and
    masks are applied in place. It works once for each forward pass.

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
        place: EncoderConfig,
        maps: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        widths = tuple(widths)
        self.layers = frozenset(layers)
        self._at, self._weights = place, weights
        self._kernels = cuda.kernels(place.device) if place.dtype == torch.bfloat16 else None
        held = [layer for index, layer, _ in modules(widths) if layer and f"features.{index}.weight" in weights]
        for layer in sorted(self.layers):
            if layer not in held:
                raise SettingsError(f"unknown layer {layer!r}; this encoder has {', '.join(held)}")
        self._program: list[_Convolution | None] = []  # None: pooling
        self._maps = {
            layer: (self._place(weight[:, :, None, None]), self._place(bias))
            for layer, (weight, bias) in (maps or {}).items()
            if layer in self.layers
        }
        missing = set(self.layers)
        for index, name, width in modules(widths):
            if not missing:
                break
            if width is None:
                self._program.append(None)
                continue
            weight, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            if index == 0:
                weight, bias = _fold_input(weight, bias)
            placed, fused = (self._place(weight), self._place(bias)), self._kernels is not None
            self._program.append(_Convolution(name, *placed, first=index == 0, fused=fused))
            missing.discard(name)

    @cached_property
    def strides(self) -> dict[str, int]:
        """How many px lie between the positions of each layer."""
        found, stride = {}, 1
        for part in self._program:
            if part is None:
                stride *= 2
            elif part.name in self.layers:
                found[part.name] = stride
        return found

    @cached_property
    def receptive_field_radius(self) -> int:
        """How many px to each side a feature of the deepest layer sees."""
        reach, stride = 0, 1
        for part in self._program:  # a 3x3 convolution sees a position further, a 2x2 pooling too, to one side
            reach += stride
            stride *= 2 if part is None else 1
        return reach

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Bytes for each pixel of a picture that are held until its gradient is there: the picture in all its forms,
        the activations and what is given of them, the indices of max pooling, and the two largest gradients."""
        held, widest, stride, width, item = 24.0, 0, 1, 9, self._at.dtype.itemsize
        held += width * item
        for part in self._program:
            if part is None:
                stride *= 2
                indices = 0 if self._at.pooling != "max" else 8 if self._kernels is None else 1
                held += width * (item + indices) / stride**2
                continue
            width = len(part.weight)
            held += width * item / stride**2
            if part.name in self._maps:
                held += len(self._maps[part.name][0]) * item / stride**2
            widest = max(widest, width if stride == 1 else 0)
        return held + 2 * widest * item

    @cached_property
    def operations_per_pixel(self) -> float:
        """Multiplications and additions for each pixel of a picture, without the way back."""
        found, stride = 0.0, 1
        for part in self._program:
            if part is None:
                stride *= 2
                continue
            found += part.weight.numel() / stride**2
            if part.name in self._maps:
                found += self._maps[part.name][0].numel() / stride**2
        return found

    @cached_property
    def channels(self) -> dict[str, int]:
        """How many channels each layer has, as it is given."""
        given = {layer: len(weight) for layer, (weight, _) in self._maps.items()}
        return {
            part.name: given.get(part.name, len(part.weight))
            for part in self._program
            if part is not None and part.name in self.layers
        }

    @cached_property
    def fixed_bytes(self) -> int:
        """Bytes that are held whatever the size of the picture: the weights, as they are read and as they are used,
        and what fast convolutions need."""
        parts = [part for part in self._program if part is not None]
        read = sum(tensor.nbytes for tensor in self._weights.values()) if self._at.device.type == "cpu" else 0
        used = sum(part.weight.nbytes * (1 + part.has_turned) for part in parts)
        fast = sum(fast.values_bytes for fast in self._fast) + max((fast.room for fast in self._fast), default=0)
        return read + used + fast

    @cached_property
    def alignment(self) -> int:
        """The px on whose multiples a part of a picture should begin, for the rounding errors that it has there."""
        return max(self.strides.values(), default=1) * (OUT if self._fast else 1)

    @cached_property
    def _fast(self) -> list[Winograd]:
        return [part.fast for part in self._program if part is not None and part.fast is not None]

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
        if not (torch.is_grad_enabled() and image.requires_grad):
            return dict(self._features(image))
        names = [part.name for part in self._program if part is not None and part.name in self.layers]
        return dict(zip(names, _Network.apply(image, self, names), strict=True))

    def _features(self, image: Tensor, trail: list[_Passed] | None = None) -> Iterator[tuple[str, Tensor]]:
        """The features by layer; in ``trail``, what the way back needs."""
        x = F.pad(image.to(self._at.dtype), (1, 1, 1, 1), mode="replicate")  # slow for channels-last
        x = x.contiguous(memory_format=torch.channels_last)
        scales = iter((*AVERAGE_POOLING_SCALES, 1.0))
        for part in self._program:
            before, indices, scale = x, None, 1.0
            if part is not None:
                x = part.forward(x)
                if part.name in self.layers:
                    yield part.name, F.conv2d(x, *self._maps[part.name]) if part.name in self._maps else x
            else:
                kernel, scale = _window(x), next(scales) if self._at.rescale else 1.0
                if kernel == (1, 1):
                    continue
                if self._at.pooling == "max" and self._kernels is not None and kernel == (2, 2):
                    x, indices = self._kernels.pool(x)
                elif self._at.pooling == "max":
                    x, indices = F.max_pool2d(x, kernel, return_indices=True)
                else:
                    x = F.avg_pool2d(x, kernel).mul_(scale)
            if trail is not None:
                trail.append(_Passed(part, before.detach(), x.detach(), indices, scale))

    def _back(self, trail: list[_Passed], given: Mapping[str, tuple[Tensor | None, list[Any]]]) -> Tensor:
        """The gradient with respect to the picture, from those with respect to the features and those deferred."""
        gradient: Tensor | None = None
        masked = False  # whether the gradient is that with respect to the input of the ReLU
        while trail:  # popped, so that activations are freed on the way
            passed = trail.pop()
            if passed.part is None:
                if gradient is not None and passed.indices is not None and passed.indices.dtype == torch.uint8:
                    assert self._kernels is not None
                    size = passed.input.shape[2:]
                    gradient = self._kernels.unpool(gradient, passed.output, passed.indices, *size)
                    masked = True
                elif gradient is not None:
                    gradient = passed.unpooled(gradient)
                continue
            plain, deferred = given.get(passed.part.name, (None, []))
            weight = self._maps[passed.part.name][0] if passed.part.name in self._maps else None
            if gradient is None and (deferred or plain is not None):
                gradient = torch.zeros_like(passed.output)
            if gradient is None:
                continue
            if plain is not None:
                gradient += plain if weight is None else F.conv2d(plain, weight.transpose(0, 1))
            masked = masked and plain is None and not deferred
            while deferred:
                closed = deferred.pop(0)
                if not deferred and weight is None and self._adds(closed, passed.output):
                    assert self._kernels is not None
                    self._kernels.add(gradient, passed.output, closed.matrix, closed.shift)
                    masked = True
                    continue
                (closed if weight is None else closed.through(weight[:, :, 0, 0].float())).add_to(gradient)
            gradient, masked = passed.part.back(gradient, passed, masked=masked), False
        assert gradient is not None
        for side in (gradient, gradient.transpose(2, 3)):  # what the padding replicated
            side[:, :, 1] += side[:, :, 0]
            side[:, :, -2] += side[:, :, -1]
        return gradient[:, :, 1:-1, 1:-1]

    def _adds(self, closed: ClosedFormGradient, output: Tensor) -> bool:
        """Whether a kernel can add this gradient with respect to an output of the network, and mask the sum."""
        if self._kernels is None or closed.weight is not None or not closed.matrix.dim():
            return False
        own = closed.features.data_ptr() == output.data_ptr() and closed.features.shape == output.shape
        channels: int = output.shape[1]
        return own and bool(channels % self._kernels.COLUMNS == 0 and channels <= self._kernels.WIDEST)


class _Network(torch.autograd.Function):
    """All of the network as one function. Whoever knows a gradient of its output number N in closed form may leave it
    in ``output.grad_fn.deferred[N]`` when backward reaches it, and give None; ``output.grad_fn.ready[N]`` says when
    that output is there."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, network: VGG, names: Sequence[str]) -> tuple[Tensor, ...]:
        ctx.network, ctx.names, ctx.trail, ctx.kind = network, names, [], image.dtype
        ctx.deferred = [list[Any]() for _ in names]
        ctx.set_materialize_grads(False)
        found, ctx.ready = [], []
        for _, feature in network._features(image, ctx.trail):
            found.append(feature)
            ctx.ready.append(mark(feature.device))
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        if not ctx.trail:
            raise RuntimeError("the way back through the network can be gone once; encode the picture again")
        given = dict(zip(ctx.names, zip(gradients, ctx.deferred, strict=True), strict=True))
        return ctx.network._back(ctx.trail, given).to(ctx.kind), None, None


class _Convolution:
    """A convolution and its ReLU; the first one finds its input padded."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor, *, first: bool, fused: bool = False) -> None:
        self.name, self.weight, self._bias = name, weight, bias
        self._padding, self._fused = 0 if first else 1, fused
        self.fast = None if first else Winograd.of(weight)
        self._turned: Tensor | None = None  # cuDNN's forward convolutions are faster than its backward ones
        if fused and not first:
            self._turned = weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)

    @property
    def has_turned(self) -> bool:
        """Whether there is a second copy of the weight, for the backward pass."""
        return self._turned is not None

    def forward(self, x: Tensor) -> Tensor:
        if self.fast is not None and self.fast.pays(*x.shape[2:]):
            return self.fast.forward(x, self._bias)
        if self._fused:
            return cuda.fused_convolution(x, self.weight, self._bias, self._padding)
        return F.relu_(F.conv2d(x, self.weight, self._bias, padding=self._padding))

    def back(self, gradient: Tensor, passed: _Passed, *, masked: bool) -> Tensor:
        """From the gradient with respect to the output, which is written over, that with respect to the input;
        ``masked``: it is that with respect to the input of the ReLU already."""
        if not masked:
            torch.ops.aten.threshold_backward.grad_input(gradient, passed.output, 0, grad_input=gradient)
        if self._turned is not None:
            return F.conv2d(gradient, self._turned, padding=1)
        if self.fast is not None and self.fast.pays(*gradient.shape[2:]):
            return self.fast.back(gradient)
        padding = (self._padding, self._padding)
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, passed.input, self.weight, None, (1, 1), padding, (1, 1), False, (0, 0), 1, (True, False, False)
        )[0]
        return found


class _Passed(NamedTuple):
    """A convolution, or a pooling, that was passed: what went in and what came out."""

    part: _Convolution | None
    input: Tensor
    output: Tensor
    indices: Tensor | None  # of max pooling: torch's, or in uint8 our kernel's
    scale: float  # of average pooling

    def unpooled(self, gradient: Tensor) -> Tensor:
        """From the gradient with respect to the output of a pooling, that with respect to its input."""
        kernel, operations = _window(self.input), torch.ops.aten
        found: Tensor
        if self.indices is not None:
            rest = (kernel, kernel, (0, 0), (1, 1), False, self.indices)
            found = operations.max_pool2d_with_indices_backward(gradient, self.input, *rest)
        else:
            found = operations.avg_pool2d_backward(
                gradient, self.input, kernel, kernel, (0, 0), False, True, None
            ).mul_(self.scale)
        return found


def _window(x: Tensor) -> tuple[int, int]:
    """What a pooling takes together: 2x2 where there are as many."""
    return min(2, x.shape[2]), min(2, x.shape[3])


def modules(widths: Iterable[int | None]) -> Iterable[tuple[int, str, int | None]]:
    """(index in torchvision's Sequential, layer, width) for each convolution, and (index, "", None) for each pooling;
    each ReLU takes an index."""
    widths = tuple(widths)
    index, names = 0, iter(layer_names(widths))
    for width in widths:
        yield index, "" if width is None else next(names), width
        index += 1 if width is None else 2


def _fold_input(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(each, dtype=torch.float32).view(1, 3, 1, 1) for each in (MEAN, STD))
    folded = weight / std
    return folded, bias - (folded * mean).sum((1, 2, 3))
