"""What a GPU makes of stylize, in sections that print as they go.

    python -m tests.bench.gpu [SECTION ...] [--device cuda] [--content FILE --style FILE] [--out FOLDER]

    device   what it is, and its measured limits: bfloat16 products, copies
    check    the default at 256 px, beside the CPU's float32: the loss of both pictures, as the CPU sees it
    waits    how often the host waits for the GPU in a step (0)
    step     bare VGG-19 forward and backward, and a step with each loss, one by one and as a CUDA graph
    error    the gradient in bfloat16, in float32 and with TF32, beside float64
    whole    a picture in memory to a picture in memory: seconds, also scale by scale, peak of memory beside the plan
    large    two steps at 8192 px, whole and in tiles
    folder   64 pictures at 512 px by the command line, in one process and in several: from the first to the last result
    clip     following frames as the command line paints them, flow and files included
    profile  the kernels that take the longest

Sections that are named run; all but profile, if none is. VGG-19's weights are seeded random numbers unless
STYLIZE_WEIGHTS names a file. ``--encoder tiny --device cpu --sizes 64`` tries the program where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from stylize import Scale, Settings, Step, Stylizer
from stylize.devices import resolve_device
from stylize.encoders import EncoderSpec, weights
from stylize.graphs import RecordedStep
from stylize.images import Picture, load, resize
from stylize.objective import objective, optimizer_for
from stylize.optimizer import Optimizer
from stylize.testing import TINY_WIDTHS, random_weights
from tests.bench.step import bare, vgg19

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
CLI = [sys.executable, "-m", "stylize"]
WARM = 3
FLOPS = 2 * 2 * 361_152  # of bare VGG-19 to relu5_1, forward and backward, for each pixel


class Bench:
    """What the sections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = resolve_device(options.device)
        self.cuda = self.device.type == "cuda"
        self.sizes = [int(size) for size in options.sizes.split(",")]
        file = os.environ.get("STYLIZE_WEIGHTS")
        widths = weights.ARCHITECTURES["vgg19"] if options.encoder == "vgg19" else TINY_WIDTHS
        real = file is not None and options.encoder == "vgg19"
        self.tensors = weights.read(Path(file), "vgg19") if file and real else random_weights(widths)
        self.spec: EncoderSpec = vgg19(self.tensors)
        self.content, self.style = load(options.content).rgb, load(options.style).rgb

    def photo(self, width: int, height: int | None = None) -> Tensor:
        return resize(self.content, height or width * 3 // 4, width)

    def stylizer(self, size: int, **settings: object) -> Stylizer:
        made = Settings(encoder="vgg19", size=size, upscale=True, device=str(self.device))
        return Stylizer(self.style, made.replace(**settings), encoders=[self.spec])

    def optimizer(self, width: int, **settings: object) -> Optimizer:
        stylizer = self.stylizer(width, **settings)
        photo = self.photo(width)
        terms = [term for term in stylizer.terms(photo, Scale(photo.shape[2], photo.shape[3], 1)) if term.weight]
        return optimizer_for(stylizer.engine, terms, photo.to(self.device))

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, once: Callable[[], object]) -> float:
        self.wait()
        begun = time.perf_counter()
        once()
        self.wait()
        return time.perf_counter() - begun

    def milliseconds(self, once: Callable[[], object], rounds: int | None = None) -> float:
        """The median, each waited for."""
        for _ in range(WARM):
            once()
        return statistics.median(self.seconds(once) for _ in range(rounds or self.options.rounds)) * 1e3

    def free(self) -> None:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @cached_property
    def judge(self) -> Stylizer:
        return self.stylizer(256, device="cpu", precision="float32")

    def losses(self, painted: Tensor) -> str:
        """Of a picture at 256 px, in float32 on the CPU."""
        photo = resize(self.content, *painted.shape[2:])
        terms = self.judge.terms(photo, Scale(photo.shape[2], photo.shape[3], 1))
        features = self.judge.engine.encode(painted)
        return ", ".join(f"{each.name} {each.function(painted, features).item():.4f}" for each in terms if each.weight)


def as_graph(once: Callable[[], object]) -> Callable[[], None]:
    """What is recorded of a call, to be launched again."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        once()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        once()
    return graph.replay


def device(bench: Bench) -> None:
    print(f"torch {torch.__version__}, {bench.device}")
    if not bench.cuda:
        return
    known = torch.cuda.get_device_properties(bench.device)
    print(f"{known.name}, {known.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN", end=" ")
    print(torch.backends.cudnn.version())
    one, other = (torch.randn(8192, 8192, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product = bench.milliseconds(lambda: one @ other)
    large = torch.randn(2**28, device=bench.device)
    target = torch.empty_like(large)
    copied = bench.milliseconds(lambda: target.copy_(large))
    print(f"bfloat16 {2 * 8192**3 / product / 1e9:.0f} TFLOP/s, copies {2 * 2**30 / copied / 1e9:.2f} TB/s")


def check(bench: Bench) -> None:
    for name, settings in (
        ("CPU float32", {"device": "cpu", "precision": "float32"}),
        ("default", {}),
        ("float32", {"precision": "float32"}),
        ("gram", {"style_loss": "gram"}),
        ("adam", {"optimizer": "adam"}),
        ("gatys2015", None),
    ):
        size = min(256, bench.sizes[0])
        if settings is None:
            from stylize import preset

            made = preset("gatys2015").replace(size=size, encoder="vgg19", device=str(bench.device), steps=(100,))
            stylizer = Stylizer(bench.style, made, encoders=[bench.spec])
        else:
            stylizer = bench.stylizer(size, **settings)
        pictures: list[Picture] = []
        seconds = bench.seconds(lambda s=stylizer, p=pictures: p.append(s(bench.content)))  # type: ignore[misc]
        print(f"{name:12} {bench.losses(pictures[0].rgb)}  ({seconds:.2f} s with set-up)", flush=True)
        if bench.options.out:
            pictures[0].save(Path(bench.options.out) / f"check-{name.replace(' ', '-')}.png")


def waits(bench: Bench) -> None:
    for settings in ({"style_loss": "wasserstein"}, {"style_loss": "gram"}, {"optimizer": "adam"}):
        optimizer = bench.optimizer(min(512, bench.sizes[0]), **settings)
        for _ in range(WARM):
            optimizer.step()
        places = []
        if bench.cuda:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                optimizer.step()
                torch.cuda.set_sync_debug_mode("default")
            places = [
                f"{Path(each.filename).name}:{each.lineno}"
                for each in found
                if "called a synchronizing" in str(each.message)
            ]
        print(f"{settings}: {len(places)} waits {sorted(set(places))}", flush=True)


def step(bench: Bench) -> None:
    for width in bench.sizes:
        image, pixels = bench.photo(width).to(bench.device), width * (width * 3 // 4)
        plain = bare(bench.tensors, image, torch.bfloat16 if bench.cuda else torch.float32)
        rows = {"bare": bench.milliseconds(plain)}
        if bench.cuda:
            rows["bare as a graph"] = bench.milliseconds(as_graph(plain))
        bench.free()
        for loss in ("gram", "wasserstein"):
            rows[f"{loss}, one by one"] = bench.milliseconds(bench.optimizer(width, style_loss=loss).step)
            bench.free()
            if bench.cuda:
                recorded = RecordedStep(bench.optimizer(width, style_loss=loss), 1000)
                rows[f"{loss}, as a graph"] = bench.milliseconds(recorded)
                del recorded
                bench.free()
        base = rows.get("bare as a graph", rows["bare"])
        for name, took in rows.items():
            share = f"{FLOPS * pixels / took / 1e9:.0f} TFLOP/s"
            print(f"{width}x{width * 3 // 4} {name:24} {took:8.2f} ms  {took / base:.2f} x bare  {share}", flush=True)


def error(bench: Bench) -> None:
    width = bench.sizes[0]
    found = {}
    for name, settings, tf32 in (
        ("float32", {"precision": "float32"}, False),
        ("TF32", {"precision": "float32"}, True),
        ("bfloat16", {"precision": "bfloat16"}, True),
        ("CPU", {"precision": "float32", "device": "cpu"}, False),
    ):
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, tf32
        stylizer = bench.stylizer(width, **settings)
        photo = bench.photo(width)
        noise = torch.rand(photo.shape, generator=torch.Generator().manual_seed(0))
        terms = [term for term in stylizer.terms(photo, Scale(photo.shape[2], photo.shape[3], 1)) if term.weight]
        values, gradient = objective(stylizer.engine, terms)(((photo + noise) / 2).to(stylizer.engine.device))
        found[name] = values.cpu(), gradient.cpu().float()
        torch.backends.cudnn.allow_tf32 = before
    exact = found["CPU"]
    for name, (values, gradient) in found.items():
        apart = (gradient - exact[1]).norm() / exact[1].norm()
        shown = ", ".join(f"{value:.5f}" for value in values.tolist())
        print(f"{name:10} values {shown}; gradient {apart:.1e} from the CPU's float32", flush=True)


def whole(bench: Bench) -> None:
    bench.stylizer(min(bench.sizes))(bench.photo(min(bench.sizes)))  # what libraries set up once
    for width in bench.sizes:
        photo = bench.photo(width)
        bench.stylizer(width)(photo)
        bench.free()
        stylizer = bench.stylizer(width)
        first = bench.seconds(lambda s=stylizer, p=photo: s(p))  # type: ignore[misc]
        peak = torch.cuda.max_memory_allocated() / 2**30 if bench.cuda else 0.0
        again = min(bench.seconds(lambda s=stylizer, p=photo: s(p)) for _ in range(3))  # type: ignore[misc]
        steps: list[Step] = []
        stylizer(photo, on_step=steps.append)
        schedule = steps[-1].schedule
        planned = 0 if schedule is None else schedule.memory or 0
        ends = {f"{step.width} px": step.seconds for step in steps}
        print(
            f"{width}x{width * 3 // 4}: {first:.2f} s, another in the same style {again:.2f} s; "
            f"peak {peak:.2f} GiB, {planned / 2**30:.2f} planned; "
            f"done by {', '.join(f'{scale} {end:.2f}' for scale, end in ends.items())}",
            flush=True,
        )
        del stylizer


def large(bench: Bench) -> None:
    size = 8192 if bench.cuda else bench.sizes[0]
    photo = bench.photo(size, size)
    for memory in ("70GiB", "24GiB"):
        bench.free()
        stylizer = bench.stylizer(size, scales=1, steps=(2,), memory=memory)
        plan = stylizer.engine.plan(size, size, steps=2, source_bytes=photo.nbytes)
        took = bench.seconds(lambda s=stylizer: s(photo))  # type: ignore[misc]
        peak = torch.cuda.max_memory_allocated() / 2**30 if bench.cuda else 0.0
        held = torch.cuda.max_memory_reserved() / 2**30 if bench.cuda else 0.0
        print(
            f"{size}x{size} in {memory}: {plan.count} tiles of {plan.side}, two steps {took:.1f} s; "
            f"peak {peak:.1f} GiB allocated, {held:.1f} reserved, {plan.peak / 2**30:.1f} planned",
            flush=True,
        )


def folder(bench: Bench) -> None:
    count, size = (64, 512) if bench.cuda else (8, bench.sizes[0])
    with tempfile.TemporaryDirectory() as place:
        photos, weights = Path(place, "photos"), Path(place, "vgg19-features.safetensors")
        photos.mkdir()
        Picture(bench.style).save(Path(place, "style.png"))
        safetensors.torch.save_file(bench.tensors, weights)
        encoder = ["--weights", str(weights)] if bench.options.encoder == "vgg19" else ["--encoder", "mini"]
        for index in range(count):
            turned = bench.photo(640 + 4 * (index % 4), 480).roll(index * 17, 3)
            Picture(turned).save(photos / f"{index:02}.jpg")
        for jobs in map(int, bench.options.jobs.split(",")):
            painted = Path(place, f"painted-{jobs}")
            call = [*CLI, str(photos), str(Path(place, "style.png")), "-o", str(painted), "--size", str(size)]
            call += ["--jobs", str(jobs), "--device", str(bench.device), *encoder]
            took = bench.seconds(lambda call=call: subprocess.run(call, check=True, capture_output=True))  # type: ignore[misc]
            times = sorted(file.stat().st_mtime for file in painted.glob("*.jpg"))
            first = min(2 * jobs, count // 2)  # each process is warm after its first
            rate = (count - first) / (times[-1] - times[first - 1])
            print(
                f"{count} pictures at {size} px, {jobs} processes: {rate:.2f} a second once all are at work, "
                f"{took:.1f} s in all",
                flush=True,
            )


def clip(bench: Bench) -> None:
    from tests.bench.gpu_clip import paint, panned

    for width, height in [(640, 360), (1280, 720)] if bench.cuda else [(bench.sizes[0], bench.sizes[0] * 9 // 16)]:
        print(paint(panned(bench.content, width, height), bench.stylizer(width)), flush=True)


def profile(bench: Bench) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    for width in bench.sizes:
        optimizer = bench.optimizer(width)
        for _ in range(WARM):
            optimizer.step()
        activities = [ProfilerActivity.CUDA if bench.cuda else ProfilerActivity.CPU]
        with profiled(activities=activities) as found:
            for _ in range(3):
                optimizer.step()
            bench.wait()
        key = "self_device_time_total" if bench.cuda else "self_cpu_time_total"
        events = sorted(found.key_averages(), key=lambda event: -getattr(event, key))
        total = sum(getattr(event, key) for event in events)
        launches = sum(event.count for event in events) / 3
        print(f"{width} px: {total / 3e3:.2f} ms of kernels in a step, {launches:.0f} launches", flush=True)
        for event in events[: bench.options.kernels]:
            took = getattr(event, key) / 3e3
            print(f"  {took:7.3f} ms  {event.count / 3:5.1f} x  {event.key[:110]}", flush=True)


SECTIONS = {each.__name__: each for each in (device, check, waits, step, error, whole, large, folder, clip, profile)}


@contextmanager
def told(name: str) -> Iterator[None]:
    """A section's heading, and its error in a line rather than the end of all."""
    begun = time.perf_counter()
    print(f"\n## {name}", flush=True)
    try:
        yield
    except Exception as error:  # the other sections are worth their time
        print(f"failed: {type(error).__name__}: {str(error)[:600]}", flush=True)
        if os.environ.get("TRACEBACK"):
            import traceback

            traceback.print_exc()
    print(f"({time.perf_counter() - begun:.1f} s)", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", choices=[*SECTIONS, []])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="512,1024,2048,4096", help="widths of pictures of 4:3")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", default="1,2,4", help="processes that paint a folder")
    parser.add_argument("--encoder", choices=("vgg19", "tiny"), default="vgg19")
    parser.add_argument("--content", type=Path, default=SAMPLES / "bridge.jpg")
    parser.add_argument("--style", type=Path, default=SAMPLES / "starry-night.jpg")
    parser.add_argument("--out", help="folder for the pictures painted")
    parser.add_argument("--kernels", type=int, default=25)
    options = parser.parse_args(arguments)
    bench = Bench(options)
    for name in options.sections or [each for each in SECTIONS if each != "profile"]:
        with told(name):
            SECTIONS[name](bench)


if __name__ == "__main__":
    main()
