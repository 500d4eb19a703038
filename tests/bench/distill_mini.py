"""Train the embedded encoder ``mini``: a narrow VGG that predicts VGG-19's features (Hinton, Vinyals, Dean 2015).

    python -m tests.bench.distill_mini --teacher vgg19-features.safetensors --pictures DIR... --paintings DIR...
                                       [--without NAME,...] [--work FOLDER] [--output FILE] [--steps N] [--seed N]

At each layer of :data:`ERRORS` the student's features, through a linear map learnt with them, predict the
teacher's; the loss is the squared error relative to the teacher's energy. Optimising a picture against an encoder
exploits that encoder's errors, which show far from photographs. So every :data:`WALK_EVERY` steps pictures are stylized
with the current student, and the teacher's features of the results are learnt along with those of photographs and
paintings. Dead channels, whose ReLU is zero everywhere and passes no gradient, are initialised again then: otherwise
two fifths of relu4_2's and most of relu5_1's channels end up dead.

The student's final features of a layer are its predictions along their principal axes (all but :data:`LEFT_OUT` of
their energy): distances between its features approximate distances between the teacher's.

Kernels and maps are trained with Muon (Jordan et al. 2024; torch 2.9 or newer), biases with AdamW. In 400 steps Muon
brought the weighted errors to 3.0, AdamW to 4.0; after thousands of steps the two are close.

Runs are deterministic for a machine and a number of threads, and resume from FOLDER/checkpoint.pt when called again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize import images
from stylize.devices import resolve_dtype
from stylize.encoders import Encoder, EncoderConfig, EncoderSpec, Progress, mini, weights
from stylize.encoders.vgg import MEAN, STD, VGG, modules
from stylize.images import resize
from stylize.settings import Settings
from stylize.stylizer import Stylizer

ERRORS = {"relu1_1": 2.0, "relu2_1": 2.0, "relu3_1": 2.0, "relu4_1": 1.5, "relu4_2": 2.5, "relu5_1": 0.5}  # weights
# Crops a step and their side in px: many small ones first, later fewer that are wide enough for the deep layers to see
# more than the padding at their edges.
SMALL, LARGE, LARGE_FROM = (6, 80), (2, 128), 0.46  # of all steps
RATE, WARM_UP, DECAY = 5e-3, 200, 1e-4
WALK_EVERY, WALK_PICTURES, WALKS_KEPT = 200, 3, 240
WALK_SIZE = 192  # px, longest side
WALK_SHARE, PAINTING_SHARE = 0.4, 0.2  # of the crops; the rest are photographs
LOG_EVERY = 200
LARGEST = 640  # px, longest side of a picture in memory
WAKE_UNTIL, WAKE_FROM = 0.5, 12  # dead channels: looked for up to this fraction of all steps, in so many batches
LEFT_OUT = 3e-3  # of a layer's energy: with 1e-2 pictures score worse, with nothing no better
AXES_FROM = 12  # batches whose predictions give the axes


@dataclass
class Training:
    """The state of the training: the student's parameters, the pictures to learn from, and the steps done."""

    teacher: VGG
    photos: Sequence[Tensor]
    paintings: Sequence[Tensor]
    steps: int
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    widths: tuple[int | None, ...] = mini.WIDTHS
    dtype: torch.dtype = torch.float32  # of what the teacher and the student compute
    done: int = 0
    walks: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            seen = self.teacher(self._batch(generator).to(self.device))
        # activations run to hundreds; the student learns them as multiples of their size
        self.unit = {layer: seen[layer].float().square().mean().sqrt().item() for layer in ERRORS}
        made: dict[str, Tensor] = {}
        channels = 3
        for index, layer, width in modules(self.widths):
            if width is None:
                continue
            made |= self._begin(index, width, channels, generator)
            if layer in ERRORS:
                wide = seen[layer].shape[1]
                made[f"{layer}.weight"] = torch.randn(wide, width, generator=generator) / width**0.5
                made[f"{layer}.bias"] = torch.zeros(wide)
            channels = width
        self._shapes = {key: value.shape for key, value in made.items()}
        flat = {key: value.flatten(1) if value.dim() > 1 else value for key, value in made.items()}
        self.parameters = {key: value.to(self.device).requires_grad_() for key, value in flat.items()}
        matrices, vectors = ([p for p in self.parameters.values() if p.dim() == dims] for dims in (2, 1))
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(vectors, lr=RATE, weight_decay=DECAY),
        )

    @staticmethod
    def _begin(index: int, width: int, channels: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial weights of a convolution (He et al. 2015, eq. 10)."""
        spread = (2 / (9 * channels)) ** 0.5
        return {
            f"features.{index}.weight": torch.randn(width, channels, 3, 3, generator=generator) * spread,
            f"features.{index}.bias": torch.full((width,), 0.05),
        }

    def train(self, log: Callable[[str], object], save: Callable[[], object] = lambda: None) -> None:
        """Train up to the last step; ``save`` is called at every line of the log."""
        begun, recent = time.perf_counter(), []
        while self.done < self.steps:
            if self.done and self.done % WALK_EVERY == 0:
                self.refresh(self.done)
            recent.append(self.step())
            if self.done % LOG_EVERY == 0 or self.done == self.steps:
                mean = {layer: sum(error[layer] for error in recent) / len(recent) for layer in ERRORS}
                line = {"step": self.done, **{k: round(v, 4) for k, v in mean.items()}}
                log(json.dumps(line | {"seconds": round(time.perf_counter() - begun)}))
                recent.clear()
                save()

    def step(self) -> dict[str, float]:
        """One step of the optimizers; the relative error of every layer."""
        rate = RATE * min(1, (self.done + 1) / WARM_UP) * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
        batch = self._batch(self._generator(self.done)).to(self.device)
        errors = self.errors(batch)
        torch.stack([ERRORS[layer] * error for layer, error in errors.items()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 2.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.done += 1
        return {layer: error.item() for layer, error in errors.items()}

    def errors(self, batch: Tensor) -> dict[str, Tensor]:
        """Squared error of the prediction over the teacher's energy, by layer, for pictures (B, 3, H, W)."""
        with torch.no_grad():
            wanted = self.teacher(batch)
        found = {}
        for layer, predicted in self._predict(batch).items():
            target = wanted[layer].float() / self.unit[layer]
            found[layer] = (predicted.float() - target).square().sum() / target.square().sum().clamp_min(1e-12)
        return found

    def _activations(self, image: Tensor) -> dict[str, Tensor]:
        """The student's activations of pictures (B, 3, H, W), by layer."""
        mean, std = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = F.pad((image - mean) / std, (1, 1, 1, 1), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        own = self._own()
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            for index, layer, width in modules(self.widths):
                if width is None:
                    x = F.max_pool2d(x, 2)
                    continue
                weight, bias = own[f"features.{index}.weight"], own[f"features.{index}.bias"]
                x = found[layer] = F.relu(F.conv2d(x, weight, bias, padding=min(index, 1)))
        return found

    def _predict(self, image: Tensor) -> dict[str, Tensor]:
        """The teacher's features as the student predicts them, in units of :attr:`unit`."""
        own, seen = self._own(), self._activations(image)
        with torch.autocast(image.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return {
                layer: F.conv2d(seen[layer], own[f"{layer}.weight"][:, :, None, None], own[f"{layer}.bias"])
                for layer in ERRORS
            }

    def _own(self) -> dict[str, Tensor]:
        """The parameters in their shapes."""
        return {key: value.view(self._shapes[key]) for key, value in self.parameters.items()}

    def folded(self) -> dict[str, Tensor]:
        """The tensors of the encoder: convolutions as they are, maps along the axes that matter."""
        moments, means = dict[str, Tensor](), dict[str, Tensor]()
        with torch.no_grad():
            for number in range(AXES_FROM):
                seen = self._predict(self._batch(self._generator(-1 - number)).to(self.device))
                for layer, predicted in seen.items():
                    rows = predicted.transpose(0, 1).flatten(1).double().cpu()  # (C, B*H*W)
                    moments[layer] = moments.get(layer, 0) + rows @ rows.T
                    means[layer] = means.get(layer, 0) + rows.sum(1)
        own = {key: value.detach().cpu() for key, value in self._own().items()}
        made = {key: value for key, value in own.items() if key.startswith("features.")}
        for layer, moment in moments.items():
            energy, axes = torch.linalg.eigh(moment)
            axes = axes[:, energy.cumsum(0) > LEFT_OUT * energy.sum()].flip(1).T * self.unit[layer]
            axes *= (axes @ means[layer]).sign()[:, None]  # activations are positive on average
            for kind in ("weight", "bias"):
                made[f"{layer}.{kind}"] = (axes @ own[f"{layer}.{kind}"].double()).float()
        return made

    def state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "unit": self.unit,
            "parameters": {key: value.detach() for key, value in self.parameters.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "walks": [*self.walks],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.done, self.unit, self.walks = state["done"], state["unit"], [*state["walks"]]
        with torch.no_grad():
            for key, value in state["parameters"].items():
                self.parameters[key].copy_(value)
        for optimizer, known in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(known)

    def _generator(self, number: int) -> torch.Generator:
        """Random numbers of one step, the same whether or not the run was interrupted; negative numbers are for
        :meth:`refresh` and :meth:`folded`."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + number)

    def _batch(self, generator: torch.Generator) -> Tensor:
        crops = []
        count, side = SMALL if self.done < LARGE_FROM * self.steps else LARGE
        for _ in range(count):
            draw = _uniform(generator)
            if draw < WALK_SHARE and self.walks:
                source: Sequence[Tensor] = self.walks
            elif WALK_SHARE <= draw < WALK_SHARE + PAINTING_SHARE:
                source = self.paintings
            else:
                source = self.photos
            crops.append(augment(_pick(source, generator), side, generator, gentle=source is self.walks))
        return torch.stack(crops)

    def refresh(self, number: int) -> None:
        """Every :data:`WALK_EVERY` steps: initialise dead channels again, and stylize pictures to learn from."""
        if number < WAKE_UNTIL * self.steps:
            self._wake(number)
        self._walk(number)

    @torch.no_grad()
    def _wake(self, number: int) -> None:
        """Initialise channels again that are zero everywhere."""
        generator = self._generator(-1 - number)
        most: dict[str, Tensor] = {}
        for _ in range(WAKE_FROM):
            for layer, x in self._activations(self._batch(generator).to(self.device)).items():
                largest = x.amax((0, 2, 3))
                most[layer] = torch.maximum(most.get(layer, largest), largest)
        own = self._own()
        for index, layer, width in modules(self.widths):
            if width is None:
                continue
            asleep = most[layer] <= 0
            for key, value in self._begin(index, width, own[f"features.{index}.weight"].shape[1], generator).items():
                own[key][asleep] = value.to(self.device)[asleep]
            if layer in ERRORS:
                own[f"{layer}.weight"][:, asleep] = 0

    def _walk(self, number: int) -> None:
        """Stylize some pictures with the current student, and keep the results to learn from."""
        generator = self._generator(-1 - number)
        tensors = self.folded()

        def load(file: Path | None, progress: Progress | None) -> Callable[[Iterable[str], EncoderConfig], Encoder]:
            return lambda layers, place: mini.encoder(tensors, layers, place, self.widths)

        spec = EncoderSpec("student", tuple(ERRORS), load, mini.CONTENT)
        for _ in range(WALK_PICTURES):
            noisy = _uniform(generator) < 0.15
            settings = Settings(
                size=WALK_SIZE,
                min_size=WALK_SIZE // 2,
                upscale=True,
                steps=(5 + int(35 * _uniform(generator)), 5 + int(25 * _uniform(generator))),
                content_weight=0.02 * 10 ** _uniform(generator),
                init="noise" if noisy else "content",
                seed=number,
                device=str(self.device),
                encoder="student",
            )
            style, content = (_pick(source, generator) for source in (self.paintings, self.photos))
            made = Stylizer(_float(style), settings, encoders=[spec])(_float(content))
            self.walks.append((made.rgb[0] * 255).round().to(torch.uint8))
        del self.walks[:-WALKS_KEPT]


def augment(picture: Tensor, side: int, generator: torch.Generator, *, gentle: bool = False) -> Tensor:
    """A crop (3, side, side) in [0, 1] of a picture (3, H, W) in uint8: scaled and turned, its colours changed,
    sometimes noisy; ``gentle`` only crops and flips."""

    def draw(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * _uniform(generator)

    height, width = picture.shape[1:]
    taken = min(height, width, side if gentle else round(side * 2 ** draw(-0.6, 1.2)))
    top, left = (int(draw(0, free + 1)) for free in (height - taken, width - taken))
    crop = resize(_float(picture[:, top : top + taken, left : left + taken]), side, side)[0]
    if draw() < 0.5:
        crop = crop.flip(2)
    if gentle:
        return crop
    if draw() < 0.2:
        crop = crop.flip(1)
    if draw() < 0.5:
        gain = torch.rand(3, 1, 1, generator=generator) * 0.8 + 0.6
        crop = (crop - 0.5) * gain + 0.5 + (torch.rand(3, 1, 1, generator=generator) - 0.5) * 0.4
    if draw() < 0.1:
        crop = crop.mean(0, keepdim=True).expand(3, -1, -1)
    if draw() < 0.25:
        crop = crop + torch.randn(crop.shape, generator=generator) * draw(0, 0.2)
    return crop.clamp(0, 1)


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _pick(pictures: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    return pictures[int(torch.randint(len(pictures), (), generator=generator))]


def _float(picture: Tensor) -> Tensor:
    return picture[None].float() / 255


def gather(folders: Iterable[Path], without: Iterable[str] = ()) -> list[Tensor]:
    """The pictures (3, H, W) in uint8 of some folders, in order of their names, without those of these stems."""
    left_out, found = set(without), []
    for path in sorted(path for folder in folders for path in folder.iterdir() if path.is_file()):
        if path.stem in left_out:
            continue
        picture = images.load(path, longest=LARGEST)
        found.append((picture.rgb[0] * 255).round().to(torch.uint8))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="weights of VGG-19")
    parser.add_argument("--pictures", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument("--paintings", type=Path, nargs="+", required=True, help="folders of style pictures")
    parser.add_argument("--without", default="", help="names, without ending, of pictures to leave out")
    parser.add_argument("--work", type=Path, default=Path("distill"), help="folder for the checkpoint and the log")
    parser.add_argument("--output", type=Path, default=mini.FILE)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    tensors = weights.read(options.teacher, "vgg19")
    dtype = resolve_dtype("auto", device)
    teacher = VGG(tensors, weights.ARCHITECTURES["vgg19"], ERRORS, EncoderConfig(device, dtype))
    without = options.without.split(",")
    photos, paintings = (gather(folders, without) for folders in (options.pictures, options.paintings))
    training = Training(teacher, photos, paintings, options.steps, options.seed, device, dtype=dtype)
    options.work.mkdir(parents=True, exist_ok=True)
    checkpoint, log = options.work / "checkpoint.pt", options.work / "log.jsonl"
    if checkpoint.exists():
        training.restore(torch.load(checkpoint, weights_only=True))

    def note(line: str) -> None:
        print(line, flush=True)
        with log.open("a") as file:
            file.write(line + "\n")

    def save() -> None:
        unfinished = checkpoint.with_suffix(".tmp")
        torch.save(training.state(), unfinished)
        unfinished.replace(checkpoint)

    training.train(note, save)
    errors = json.loads(log.read_text().splitlines()[-1]) if log.exists() else {}
    mini.save(
        training.folded(),
        options.output,
        {
            "teacher": f"VGG-19, SHA-256 of its weights {weights.fingerprint(tensors)}",
            "data": f"{len(photos)} photographs, {len(paintings)} paintings, and pictures stylized on the way",
            "seed": str(options.seed),
            "steps": str(options.steps),
            "errors": json.dumps({layer: errors.get(layer) for layer in ERRORS}),
        },
    )
    print(options.output)


if __name__ == "__main__":
    main()
