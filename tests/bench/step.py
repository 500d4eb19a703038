"""One optimisation step over the bare VGG forward and backward: what the method costs beside its encoder.

    python -m tests.bench.step [--size 256] [--rounds 15] [--device cpu] [--precision float32]

Bare: the truncated VGG-19 (to relu5_1) run forward on the picture and back to it, in plain torch, with no loss but a
sum. The bare run and both style losses, on VGG-19 and on mini, alternate within one process; printed are medians and
ratios to the bare one. With one thread on a CPU they are of processor time, which other programs hardly change.
VGG-19's weights are seeded random numbers unless STYLIZE_WEIGHTS names a file: the arithmetic is the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from stylize.encoders import EncoderConfig, EncoderSpec, builtin, choose, layer_names, weights
from stylize.encoders.vgg import VGG
from stylize.objective import optimizer_for
from stylize.pyramid import Scale
from stylize.settings import Settings
from stylize.stylizer import Stylizer
from stylize.testing import random_weights


def bare(
    tensors: dict[str, torch.Tensor], image: torch.Tensor, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """Forward to relu5_1 and back to the picture."""
    fmt = torch.channels_last
    program: list[tuple[torch.Tensor, torch.Tensor] | None] = []
    index, convolutions = 0, 0
    for width in weights.ARCHITECTURES["vgg19"]:
        if width is None:
            program.append(None)
            index += 1
            continue
        weight, bias = tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"]
        program.append((weight.to(image.device, dtype, memory_format=fmt), bias.to(image.device, dtype)))
        index, convolutions = index + 2, convolutions + 1
        if convolutions == 13:  # conv5_1
            break

    def once() -> None:
        x = leaf = image.detach().to(dtype, memory_format=fmt).requires_grad_()
        for part in program:
            x = F.max_pool2d(x, 2) if part is None else F.relu_(F.conv2d(x, *part, padding=1))
        torch.autograd.grad(x.sum(), leaf)

    return once


def vgg19(tensors: dict[str, torch.Tensor]) -> EncoderSpec:
    widths = weights.ARCHITECTURES["vgg19"]

    def build(layers: object, place: EncoderConfig) -> VGG:
        return VGG(tensors, widths, layers, place)  # type: ignore[arg-type]

    return EncoderSpec("vgg19", layer_names(widths), lambda file, progress: build)


def step(spec: EncoderSpec, image: torch.Tensor, style: torch.Tensor, loss: str, precision: str) -> Callable[[], None]:
    """One step of the optimizer as a job takes it."""
    settings = Settings(
        encoder=spec.name, style_loss=loss, precision=precision, device=str(image.device), scales=1, steps=(1,)
    )
    stylizer = Stylizer(style.cpu(), settings, encoders=[spec])
    scale = Scale(image.shape[2], image.shape[3], 1)
    optimizer = optimizer_for(stylizer.engine, stylizer.terms(image.cpu(), scale), image)
    return optimizer.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="width; the height is three quarters of it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    file = os.environ.get("STYLIZE_WEIGHTS")
    tensors = weights.read(file, "vgg19") if file else random_weights(weights.ARCHITECTURES["vgg19"])
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, options.size * 3 // 4, options.size, generator=generator).to(options.device)
    style = torch.rand(1, 3, options.size, options.size, generator=generator)
    contestants = {"bare": bare(tensors, image, getattr(torch, options.precision))}
    for spec in (vgg19(tensors), choose("mini", builtin())):
        contestants |= {
            f"{spec.name} {loss}": step(spec, image, style, loss, options.precision) for loss in ("gram", "wasserstein")
        }
    clock = time.process_time if torch.get_num_threads() == 1 and not image.is_cuda else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.rounds + 3):
        for name, once in contestants.items():
            begun = clock()
            once()
            if image.is_cuda:
                torch.cuda.synchronize()
            if turn >= 3:  # the first fill caches and the history
                seconds[name].append(clock() - begun)
    where = f"{options.device}, {options.precision}, torch {torch.__version__}"
    print(f"{image.shape[3]}x{image.shape[2]}, {where}, {options.rounds} rounds")
    for name, found in seconds.items():
        ratio = statistics.median(ours / base for ours, base in zip(found, seconds["bare"], strict=True))
        print(f"{name:18} {statistics.median(found) * 1e3:8.1f} ms   {ratio:.3f} x bare")


if __name__ == "__main__":
    main()
