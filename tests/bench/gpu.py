"""All that is worth knowing of a GPU, in one run and one table.

    python -m tests.bench.gpu [--device cuda] [--sizes 512,1024,2048] [--whole 4096] [--tiles 1024,2048] [--rounds 10]

Columns: float32 without TF32, with it in the convolutions (what float32 means to stylize where a GPU has it), and
bfloat16. Rows, at each width (pictures are 4:3): bare VGG-19 to relu5_1, forward and back; a step with Gram and with
Wasserstein, and that with the encoder compiled, whose first step is given apart; how far the gradient is from that of
float32, relative; the loss of a whole run's picture as float32 without TF32 sees it, and the run's seconds; how often
the host waits for the GPU in a step, and where first. At the width --whole: the gradient of the picture seen as a whole
and in tiles, and the peak of memory. What a device cannot do is a dash, with the reason below. Run by hand;
--encoder tiny, small numbers and --device cpu try it out.

VGG-19's weights are seeded random numbers unless STYLIZE_WEIGHTS names a file; losses mean something only then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from stylize import Scale, Settings, Stylizer, Term, tiling
from stylize.encoders import EncoderSpec, resolve_device, weights
from stylize.errors import StylizeError
from stylize.images import load, resize
from stylize.optimizer import Optimizer
from stylize.pyramid import equivalent_steps
from stylize.testing import TINY_WIDTHS, random_weights
from tests.bench.step import bare, vgg19

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
MODES = ("float32", "TF32", "bfloat16")
WAITED = "called a synchronizing"  # what torch says then; it does not see all of them
WARM = 3  # steps that are not counted: the first fill caches and the history


class DashError(Exception):
    """The device cannot do this; the reason."""


@dataclass
class Table:
    """Rows of a cell for each mode; a cell that fails is a dash, with the number of the reason that stands below."""

    rows: list[list[str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def row(self, what: str, width: int, cell: Callable[[str], str]) -> None:
        cells = [what, str(width)]
        for name in MODES:
            try:
                with mode(name):
                    cells.append(cell(name))
            except Exception as error:  # whatever a device or its compiler raises
                why = reason(error)
                if why not in self.reasons:
                    self.reasons.append(why)
                cells.append(f"— ({self.reasons.index(why) + 1})")
            torch.cuda.empty_cache()
        self.rows.append(cells)
        print(".", end="", flush=True, file=sys.stderr)

    def __str__(self) -> str:
        lines = [["", "width", *MODES], ["---"] * (2 + len(MODES)), *self.rows]
        table = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([*table, "", *(f"({number}) {why}" for number, why in enumerate(self.reasons, 1))])


def reason(error: Exception) -> str:
    """The first line of an error, with its class where that says more."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return line if isinstance(error, DashError) else f"{type(error).__name__}: {line}".rstrip(": ")


@contextmanager
def mode(name: str) -> Iterator[None]:
    """TF32 in the convolutions, or not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = name != "float32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class Bench:
    """What is measured, on one device."""

    def __init__(
        self, device: torch.device, tensors: dict[str, torch.Tensor], rounds: int, steps: tuple[int, ...]
    ) -> None:
        self.device, self.tensors, self.rounds, self.steps = device, tensors, rounds, steps
        self.spec: EncoderSpec = vgg19(tensors)
        self._peaks: dict[tuple[int, str], int] = {}
        self.content, self.style = (load(SAMPLES / name).rgb for name in ("bridge.jpg", "starry-night.jpg"))

    def picture(self, width: int) -> torch.Tensor:
        return resize(self.content, width * 3 // 4, width)

    def able(self, name: str) -> None:
        if name == "TF32" and (self.device.type != "cuda" or torch.cuda.get_device_capability(self.device) < (8, 0)):
            raise DashError("the device has no TF32")

    def stylizer(self, name: str, width: int, loss: str = "wasserstein") -> Stylizer:
        self.able(name)
        precision = "bfloat16" if name == "bfloat16" else "float32"
        settings = Settings(encoder="vgg19", size=width, upscale=True, style_loss=loss, precision=precision)
        settings = settings.replace(device=str(self.device), steps=self.steps, tolerance=0.0)
        return Stylizer(self.style, settings, encoders=[self.spec])

    def terms(self, stylizer: Stylizer, width: int) -> list[Term]:
        photo = self.picture(width)
        made = stylizer.terms(photo, Scale(photo.shape[2], photo.shape[3], 1))
        return [term for term in made if term.weight]

    def optimizer(self, name: str, width: int, loss: str, compiled: bool = False) -> Optimizer:
        """As a job has it; its step() is what is measured."""
        stylizer = self.stylizer(name, width, loss)
        terms, engine = self.terms(stylizer, width), stylizer.engine
        if compiled:
            torch.compiler.reset()
            encoder = engine.encoder
            engine.encoder = torch.compile(lambda image: encoder(image), dynamic=False)  # type: ignore[assignment]
        return engine.optimizer(terms, self.picture(width).to(self.device))

    def step(self, width: int, loss: str, name: str) -> Callable[[], None]:
        return self.optimizer(name, width, loss).step

    def bare(self, width: int, name: str) -> Callable[[], None]:
        self.able(name)
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        return bare(self.tensors, self.picture(width).to(self.device), dtype)

    def seconds(self, once: Callable[[], object]) -> float:
        """One call, waited for."""
        self._wait()
        begun = time.perf_counter()
        once()
        self._wait()
        return time.perf_counter() - begun

    def timed(self, make: Callable[[str], Callable[[], object]], name: str) -> str:
        """Milliseconds, the median."""
        once = make(name)
        for _ in range(WARM):
            once()
        return f"{statistics.median(self.seconds(once) for _ in range(self.rounds)) * 1e3:.1f}"

    def compiled(self, width: int, name: str) -> str:
        """Milliseconds of a step, and the seconds of the first.

        The padding is left as it is: compiled for the CPU, torch 2.14 takes its gradient for contiguous, which it is
        not for channels-last, and gives up.
        """
        plain = self.optimizer(name, width, "wasserstein")
        pad = torch.compiler.disable(torch.nn.functional.pad)
        with mock.patch("torch.nn.functional.pad", pad):
            made = self.optimizer(name, width, "wasserstein", compiled=True)
            first = self.seconds(made.step)
            for once in (made.step, plain.step, plain.step):
                once()
            if not torch.isclose(made.values[0], plain.values[0], rtol=0.02):
                raise DashError(f"it computes {made.values[0]:.4f} where {plain.values[0]:.4f} is right")
            return f"{self.timed(lambda _: made.step, name)} (first {first:.0f} s)"

    def gradient(self, name: str, width: int) -> torch.Tensor:
        """Of the content, half way to noise, so that both terms pull."""
        stylizer = self.stylizer(name, width)
        noise = torch.rand(self.picture(width).shape, generator=torch.Generator().manual_seed(0))
        image = ((self.picture(width) + noise) / 2).to(self.device)
        (found,) = torch.autograd.grad(self._total(stylizer, self.terms(stylizer, width), image), image)
        return found.float()

    def _total(self, stylizer: Stylizer, terms: Sequence[Term], image: torch.Tensor) -> torch.Tensor:
        features = stylizer.engine.encoder(image.requires_grad_())
        return torch.stack([term.weight * term.function(image, features) for term in terms]).sum()

    def apart(self, width: int, name: str) -> str:
        """The gradient from that of float32."""
        found = self.gradient(name, width)
        with mode("float32"):
            exact = self.gradient("float32", width)
        return f"{((found - exact).norm() / exact.norm()).item():.1e}"

    def painted(self, width: int, name: str) -> str:
        """The loss of a run's picture, and the seconds of the run."""
        stylizer, pictures = self.stylizer(name, width), []
        seconds = self.seconds(lambda: pictures.append(stylizer(self.picture(width))))
        full = equivalent_steps(stylizer.scales(width * 3 // 4, width))
        with mode("float32"):
            judge = self.stylizer("float32", width)
            loss = self._total(judge, self.terms(judge, width), pictures[0].rgb.to(self.device))
        return f"{loss.item():.4f} ({seconds:.1f} s, {full:.0f} full-size steps)"

    def waits(self, width: int, loss: str, name: str) -> str:
        """How often, and where first."""
        if self.device.type != "cuda":
            raise DashError("only CUDA tells when the host waits")
        once = self.step(width, loss, name)
        for _ in range(WARM):
            once()
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                once()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        places = [f"{Path(each.filename).name}:{each.lineno}" for each in found if WAITED in str(each.message)]
        return f"{len(places)} ({places[0]})" if places else "0"

    def evaluated(self, width: int, side: int, name: str) -> str:
        """Milliseconds of values and gradient: the picture as a whole, or in tiles of ``side`` px."""
        if side >= width:
            raise DashError("one tile would be the whole")
        stylizer = self.stylizer(name, width)
        terms, image = self.terms(stylizer, width), self.picture(width).to(self.device)
        encoder = tiling.tileable(stylizer.engine.encoder, *image.shape[2:])
        assert encoder is not None

        def whole() -> None:
            leaf = image.clone()
            torch.autograd.grad(self._total(stylizer, terms, leaf), leaf)

        once = partial(tiling.evaluate, image, terms, encoder, side) if side else whole
        if self.device.type != "cuda":
            return self.timed(lambda _: once, name)
        torch.cuda.reset_peak_memory_stats(self.device)
        taken = self.timed(lambda _: once, name)
        self._peaks[side, name] = torch.cuda.max_memory_allocated(self.device)
        return taken

    def peak(self, side: int, name: str) -> str:
        """GiB that :meth:`evaluated` took."""
        if self.device.type != "cuda":
            raise DashError("torch counts memory on CUDA only")
        if (side, name) not in self._peaks:
            raise DashError("it did not come to an end")
        return f"{self._peaks[side, name] / 2**30:.2f}"

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(bench: Bench, options: argparse.Namespace) -> Table:
    table = Table()
    for width in map(int, options.sizes.split(",")):
        table.row("bare VGG-19, ms", width, partial(bench.timed, partial(bench.bare, width)))
        for loss in ("gram", "wasserstein"):
            table.row(f"step with {loss}, ms", width, partial(bench.timed, partial(bench.step, width, loss)))
        if not options.no_compile:
            table.row("the same, encoder compiled, ms", width, partial(bench.compiled, width))
        table.row("gradient, from float32's", width, partial(bench.apart, width))
        table.row(f"loss after {options.steps}", width, partial(bench.painted, width))
        for loss in ("gram", "wasserstein"):
            table.row(f"waits in a step with {loss}", width, partial(bench.waits, width, loss))
    for side in (0, *map(int, options.tiles.split(","))):
        what = f"gradient in tiles of {side} px" if side else "gradient as a whole"
        table.row(f"{what}, ms", options.whole, partial(bench.evaluated, options.whole, side))
        table.row(f"{what}, GiB", options.whole, partial(bench.peak, side))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="512,1024,2048")
    parser.add_argument("--whole", type=int, default=4096)
    parser.add_argument("--tiles", default="1024,2048")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", default="40,16,33")
    parser.add_argument("--encoder", choices=("vgg19", "tiny"), default="vgg19")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args(arguments)
    try:
        device = resolve_device(options.device)
    except StylizeError as error:
        raise SystemExit(str(error)) from error
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # the first step of a program compiled anew is told
    file = os.environ.get("STYLIZE_WEIGHTS")
    widths = weights.ARCHITECTURES["vgg19"] if options.encoder == "vgg19" else TINY_WIDTHS
    real = file is not None and options.encoder == "vgg19"
    tensors = weights.read(file, "vgg19") if file is not None and real else random_weights(widths)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    bench = Bench(device, tensors, options.rounds, tuple(map(int, options.steps.split(","))))
    found = measure(bench, options)
    network = f"{options.encoder} with {'its' if real else 'random'} weights"
    print(f"{name}, torch {torch.__version__}, {network}, medians of {options.rounds}\n\n{found}")


if __name__ == "__main__":
    main()
