"""What is done on a device that is not the CPU, on a pretend one: the same pictures, and no wait within a step."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylize import Picture, Settings, Stylizer, colors, images, memory
from stylize.devices import resolve_device
from stylize.encoders import builtin
from stylize.errors import DeviceError, OptimizationError, SettingsError
from stylize.objective import Term, objective
from stylize.observing import Step
from stylize.optimizer import LBFGS, Adam, Optimizer
from stylize.pyramid import Scale
from stylize.settings import preset
from stylize.testing import tiny_encoder
from stylize_video.steady import WarpedHistory, temporal

from . import accelerator
from .accelerator import NAME, limited, no_waits, peak, waits
from .conftest import Call, waves
from .test_painting import spoilt_at
from .test_video import FAST, clip, frames_of, moving

# What roots by products in float32 cost against eigenvalues in float64: of the style's energy, and of the gradient.
ROOTS, ROOTS_GRADIENT = 3e-3, 2e-2
optimizers = pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
style_losses = pytest.mark.parametrize("style_loss", ["wasserstein", "gram", "match"])


@pytest.fixture(autouse=True, scope="module")
def installed(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--device") != "cpu":
        pytest.skip("the pretend device is not there beside a real one")
    if reason := accelerator.install():
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no step wait, but for the first of a scale, in which what is known from then on may still be made."""
    for kind in (LBFGS, Adam):

        def step(self: Optimizer, original: Callable[[Any], None] = kind.step) -> None:
            with no_waits() if self.values.numel() else nullcontext():
                original(self)

        monkeypatch.setattr(kind, "step", step)


# --- the device ------------------------------------------------------------------------------------------------------


def written(x: Tensor, write: Callable[[Tensor], object]) -> Tensor:
    x = x.clone()
    write(x)
    return x


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "arithmetic": lambda x: (x * 2.0 - x.mean()).square() / (1 + x),
    "slices": lambda x: x[:, 1:, ::2, 1:-1],
    "transposed": lambda x: x.transpose(2, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted rows": lambda x: x[0].permute(1, 2, 0).flatten(0, 1),
    "strided": lambda x: x.as_strided((2, 3, 2), (30, 2, 7), 4),
    "strided view": lambda x: x[:, 1:].as_strided((2, 3), (1, 2)),
    "written through a view": lambda x: written(x, lambda y: y[:, 1:, ::2].transpose(2, 3)[..., 0].add_(3)),
    "written by part": lambda x: written(x, lambda y: y.view(-1)[3:70].copy_(y.view(-1)[13:80] * 2)),
    "index_copy": lambda x: written(x, lambda y: y[0].index_copy_(0, y.new_ones(1).long(), y[0, 2:3] * 2)),
    "addmv": lambda x: written(x, lambda y: y.view(-1)[:6].addmv_(y[0, 0].T, y[0, 1, :, 0])),
    "out": lambda x: written(x, lambda y: torch.mul(y[:, 0], 2, out=y[:, 1])),
    "assigned": lambda x: written(x, lambda y: y.__setitem__((..., slice(1, 3)), y[..., 3:5] * 5)),
    "vector by matrix": lambda x: x[0, 0, 0] @ x[0, 1].T,
    "convolution": lambda x: F.relu_(F.conv2d(x, x[:, :, :3, :3].expand(4, -1, -1, -1), x[0, 0, 0, :4], padding=1)),
    "resized": lambda x: images.resize(x, 9, 4),
    "padded": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "pooled": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "made": lambda x: torch.cat([torch.eye(3, device=x.device).flatten(), torch.arange(4.0, device=x.device)]),
    "solved": lambda x: torch.linalg.solve_triangular(torch.eye(6, device=x.device) + x[0, 0, 0, 0], x[0, 0].T,
                                                      upper=True),
    "sorted": lambda x: torch.argsort(x.flatten()),
    "double": lambda x: x.double().sum((0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_operators_give_what_they_give_on_the_cpu(name: str) -> None:
    x = waves(5, 6)
    here, there = SAME[name](x), SAME[name](x.to(NAME))
    assert there.device == torch.device(NAME, 0)
    assert (there.shape, there.stride(), there.dtype) == (here.shape, here.stride(), here.dtype)
    assert torch.equal(there.cpu(), here)


def test_gradients_are_what_they_are_on_the_cpu() -> None:
    def gradient(x: Tensor) -> Tensor:
        x = x.requires_grad_()
        y = F.conv2d(x * 2, x.detach()[:, :, :3, :3]).relu() * 1
        y[..., 0].mul_(y[..., 1].detach().clone())
        y = y.transpose(2, 3)[0, 0]
        return torch.autograd.grad((y.T @ y).square().sum() + torch.stack([y.sum(), x.std()]).prod(), x)[0]

    assert torch.equal(gradient(waves(5, 6).to(NAME)).cpu(), gradient(waves(5, 6)))


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: there + here,
        lambda there, here: here * there.sum(),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: torch.cat([there, here]),
        lambda there, here: torch.stack([there.sum(), here.sum()]),
        lambda there, here: there[0, 0] @ here[0, 0].T,
        lambda there, here: there.view(-1).index_copy_(0, torch.tensor([1]), there.view(-1)[:1]),
        lambda there, here: F.conv2d(there, here),
    ],
)
def test_an_operator_given_tensors_of_two_devices_fails(mix: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        mix(waves(5, 6).to(NAME), waves(5, 6))


def test_a_scalar_of_the_host_may_come_along() -> None:
    x, half = waves(5, 6), torch.tensor(0.5)
    there = x.to(NAME)
    with no_waits():
        found = torch.where(there > half, there * half, half)
    assert torch.equal(found.cpu(), torch.where(x > half, x * half, half))


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense"),
        (lambda x: x.flatten().tolist(), "a copy to the host"),
        (lambda x: x.cpu(), "a copy to the host"),
        (lambda x: torch.empty(1, 3, 5, 6).copy_(x), "a copy to the host"),
        (lambda x: torch.tensor(0.5, device=x.device), "a copy from the host"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0.5], "index"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torch.linalg.eigh(x[0, :, 0, :3]), "_linalg_eigh"),
    ],
)
def test_what_the_host_waits_for_is_seen(wait: Callable[[Tensor], object], what: str) -> None:
    x = waves(5, 6).to(NAME)
    with waits() as found:
        wait(x)
    assert [each.what for each in found] == [what]
    with pytest.raises(AssertionError, match=f"the host waits\nelsewhere: {what}"), no_waits():
        wait(x)


def test_what_the_host_need_not_wait_for_is_no_wait() -> None:
    x = waves(5, 6).to(NAME)
    with no_waits():
        y = torch.where(x.isfinite().all(), x * torch.full((), 0.5, device=x.device), 0.0)
        y[..., 1:3] = y.flatten().argsort().view_as(y)[..., :2].float()
        torch.zeros_like(y).index_select(3, torch.arange(2, device=x.device)).copy_(y[..., :2])
        x.to("cpu", non_blocking=True)


def test_a_wait_is_located_also_on_the_way_back() -> None:
    x = waves(5, 6).to(NAME)
    with waits() as found:
        colors.match_luminance(x[:, :1], x[:, 1:2])
    assert found
    assert all(re.fullmatch(r"stylize/colors\.py:\d+", wait.where) for wait in found)

    class Waiting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * gradient.sum().item()

    with waits() as found:
        Waiting.apply(x.requires_grad_()).sum().backward()
    assert [wait.what for wait in found] == ["_local_scalar_dense"]


def test_a_device_may_lack_types_and_operators() -> None:
    x = waves(5, 6).to(NAME)
    with limited(float64=False, lacking=["tril"]):
        with pytest.raises(TypeError, match=r"has no torch\.float64"):
            x.double()
        with pytest.raises(TypeError, match=r"has no torch\.float64"):
            torch.zeros(3, dtype=torch.float64, device=NAME)
        with pytest.raises(NotImplementedError, match="tril"):
            x.tril()
        x.triu()
    assert x.tril().double().dtype == torch.float64


def test_memory_is_counted_and_runs_out() -> None:
    with peak() as most:
        x = torch.zeros(1000, device=NAME)
        view = x[10:]
        del x
        other = torch.zeros(500, device=NAME)
        del view
        torch.zeros(100, device=NAME)
    assert most == [6000]
    with limited(memory=4000):
        torch.zeros(1000, device=NAME)
        x = torch.zeros(500, device=NAME)
        with pytest.raises(torch.OutOfMemoryError):
            x + torch.zeros(500, device=NAME)
        del x
        torch.zeros(1000, device=NAME)
    del other


# --- the choice of it ------------------------------------------------------------------------------------------------


def test_an_accelerator_that_torch_knows_is_taken_by_name() -> None:
    assert resolve_device(NAME).type == NAME
    assert resolve_device(f"{NAME}:0") == torch.device(NAME, 0)
    with pytest.raises(DeviceError, match=rf"device {NAME}:1 is not there \(1 {NAME} devices found\)"):
        resolve_device(f"{NAME}:1")
    for name in (f"{NAME}:", f"{NAME}:x", f"{NAME}s", "meta"):
        with pytest.raises(SettingsError, match="it must be auto, cpu, cuda"):
            resolve_device(name)


# --- pictures --------------------------------------------------------------------------------------------------------

HOLES = (waves(50, 66, 7)[:, :1] > 0.45).float()  # an alpha
STYLE, OTHER, PHOTO = waves(40, 48, 2), waves(44, 40, 5), waves(50, 66, 1)


def stylizer(device: str, style: Any = STYLE, base: Settings | None = None, **settings: Any) -> Stylizer:
    plain = {"size": 64, "min_size": 32, "steps": (3, 2), "encoder": "tiny", "precision": "float32", "tolerance": 0.0}
    chosen = (base or Settings()).replace(**{**plain, "device": device, **settings})
    return Stylizer(style, chosen, encoders=[tiny_encoder(), *builtin()])


def painted(device: str, content: Any = PHOTO, **settings: Any) -> tuple[Tensor, list[Step]]:
    steps: list[Step] = []
    return stylizer(device, **settings)(content, on_step=steps.append).rgb, steps


def compare(exact: bool, **settings: Any) -> None:
    """Paint on both devices. Where no roots are taken the first values differ by the order of sums alone; else they
    agree as far as the roots do, whose error is a share of the style's energy, in which the distance is measured. What
    the optimizer makes of it step by step is another picture that is about as good."""
    (here, before), (there, after) = painted("cpu", **settings), painted(NAME, **settings)
    assert there.device.type == "cpu"
    assert len(after) == len(before)
    assert after[0].total == pytest.approx(
        before[0].total, rel=1e-3 if settings.get("precision") else 1e-4, abs=0 if exact else ROOTS
    )
    assert after[-1].total == pytest.approx(before[-1].total, rel=0.15)
    last = [step for step in after if step.scale == 2] or after
    assert last[-1].total <= last[0].total
    assert [set(step.terms) for step in after] == [set(step.terms) for step in before]
    apart = (there - here).square().mean().sqrt()
    assert apart < 0.05


@pytest.mark.slow
@optimizers
@style_losses
def test_a_picture_is_that_of_the_cpu(style_loss: str, optimizer: str) -> None:
    compare(style_loss == "gram", style_loss=style_loss, optimizer=optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("preset_name", ["default", "collage"])
def test_a_scale_that_begins_with_shallow_layers_is_that_of_the_cpu(preset_name: str) -> None:
    """Collage is begun anew twice, as more outlines are asked for than there can be."""
    small = {"min_size": 16, "brush": 8.0, "steps": (2, 8, 9), "min_outlines": 1.0}
    chosen = preset(preset_name)
    scales = stylizer(NAME, base=chosen, **small).scales(50, 66)
    assert [bool(scale.early) for scale in scales] == [False, False, True]
    begun = 3 if preset_name == "collage" else 1
    (here, before), (there, after) = (painted(device, base=chosen, **small) for device in ("cpu", NAME))
    assert [step.scale for step in after] == [step.scale for step in before]
    assert sum(step.scale == 1 for step in after) == 2 * begun
    assert all(("match" in step.terms) == ("match" in other.terms) for step, other in zip(after, before, strict=True))
    assert after[-1].total == pytest.approx(before[-1].total, rel=0.15)
    assert (there - here).square().mean().sqrt() < 0.05


@pytest.mark.slow
@style_losses
@pytest.mark.parametrize(
    "settings",
    [
        {"preserve_color": "luminance"},
        {"preserve_color": "match", "content": Picture(PHOTO, HOLES)},
        {"content": Picture(PHOTO, HOLES), "optimizer": "adam"},
        {"style": Picture(STYLE, HOLES[..., :40, :48])},
        {"style": [STYLE, OTHER], "style_weights": (1.0, 2.0)},
        {"tv_weight": 0.1, "init": "noise", "pooling": "average"},
        {"precision": "bfloat16", "init": "style"},
    ],
    ids=["luminance", "match", "content alpha", "style alpha", "blend", "variation", "bfloat16"],
)
def test_every_setting_paints_that_of_the_cpu(settings: dict[str, Any], style_loss: str) -> None:
    compare(style_loss == "gram", style_loss=style_loss, **settings)


@pytest.mark.slow
def test_the_embedded_encoder_paints_that_of_the_cpu() -> None:
    compare(True, encoder="mini", style_loss="gram")


def test_the_paper_s_method_is_that_of_the_cpu() -> None:
    compare(True, base=preset("gatys2015"), steps=(5,))


@pytest.mark.parametrize("size", [32, 96])
@style_losses
def test_values_and_gradients_are_those_of_the_cpu(style_loss: str, size: int) -> None:
    found = []
    for device in ("cpu", NAME):
        made = stylizer(device, style_loss=style_loss, tv_weight=0.1)
        terms = made.terms(PHOTO, Scale(size * 3 // 4, size, 1), alpha=HOLES)
        image = waves(size * 3 // 4, size, 3).to(made.engine.device)
        for term in terms:
            if term.update is not None:
                term.update(image)
        values, gradient = objective(made.engine, terms)(image)
        found.append((values.cpu(), gradient.cpu()))
    (values, gradient), (other, slope) = found
    exact = style_loss == "gram"
    np.testing.assert_allclose(other, values, rtol=1e-4, atol=0 if exact else ROOTS)
    assert (slope - gradient).norm() < (1e-4 if exact else ROOTS_GRADIENT) * gradient.norm()


@pytest.mark.slow
@optimizers
def test_a_step_that_fails_is_taken_back(optimizer: str) -> None:
    def seen(device: str) -> list[tuple[int, bool]]:
        steps: list[Step] = []
        stylizer(device, style_loss="gram", optimizer=optimizer, scales=1, steps=(7,), palette="free")(
            PHOTO, terms=lambda scale: [spoilt_at(lambda call: call in (2, 3))], on_step=steps.append
        )
        return [(step.retries, step.finite) for step in steps]

    assert seen(NAME) == seen("cpu")
    assert [retries for retries, _ in seen(NAME)][:5] == [0, 0, 1, 2, 0]


@pytest.mark.slow
def test_the_picture_can_be_seen_while_it_grows() -> None:
    seen: list[Tensor] = []
    result = stylizer(NAME, preserve_color="luminance")(PHOTO, on_step=lambda step: seen.append(step.image()))
    assert all(image.device.type == "cpu" for image in seen)
    assert torch.equal(seen[-1], result.rgb)


@pytest.mark.slow
@style_losses
def test_a_wait_within_a_step_does_not_go_unseen(style_loss: str) -> None:
    curious = Term("curious", 1.0, lambda image, _: image.sum() * 0 + image.mean().item())
    with pytest.raises(AssertionError, match=r"the host waits\nstylize/objective.py:\d+: _local_scalar_dense"):
        stylizer(NAME, style_loss=style_loss)(PHOTO, terms=lambda scale: [curious])


# --- following frames ------------------------------------------------------------------------------------------------


@optimizers
@pytest.mark.parametrize("grey", [False, True])
def test_a_following_frame_is_that_of_the_cpu(optimizer: str, grey: bool) -> None:
    generator = np.random.default_rng(0)
    start, mask = generator.random((48, 64, 3)).astype(np.float32), generator.random((48, 64)) > 0.3
    carried = WarpedHistory(start, mask, np.zeros((48, 64, 2), np.float32), 0.1, 0.1)
    begin = torch.from_numpy(carried.start).permute(2, 0, 1)[None]

    def following(device: str) -> tuple[Tensor, list[Step]]:
        made = stylizer(device, optimizer=optimizer, style_loss="gram", preserve_color="luminance" if grey else "none")
        steps: list[Step] = []
        result = made(
            waves(48, 64, 1), init=begin, terms=lambda scale: [temporal(carried, 100.0, grey=grey)], steps=5,
            on_step=steps.append,
        )  # fmt: skip
        return result.rgb, steps

    (here, before), (there, after) = following("cpu"), following(NAME)
    np.testing.assert_allclose([step.total for step in after], [step.total for step in before], rtol=1e-3)
    assert after[-1].terms["temporal"] > 0
    assert (there - here).abs().max() < 1e-2


@pytest.mark.slow
def test_a_clip_is_painted(call: Call, folder: Path) -> None:
    clip(folder / "clip.mkv", moving(3))
    images.save(waves(24, 32, 9), folder / "style.png")
    done = call("clip.mkv", "style.png", "-o", "out.mkv", *FAST, "--device", NAME)
    assert done.code == 0, done.err
    frames = frames_of(folder / "out.mkv")
    assert len(frames) == 3
    assert all(frame.std() > 1 for frame in frames)


# --- memory ----------------------------------------------------------------------------------------------------------

LARGE = waves(260, 300, 1)
SHALLOW = {"style_layers": {"relu1_1": 1.0, "relu2_1": 1.0}, "content_layer": "relu2_2"}  # margins are narrow


def large(device: str, **settings: Any) -> Stylizer:
    return stylizer(device, **{"size": 300, "scales": 1, "steps": (3,), **SHALLOW, **settings})


@pytest.mark.slow
@style_losses
def test_a_picture_in_tiles_is_that_of_the_cpu(style_loss: str, caplog: pytest.LogCaptureFixture) -> None:
    room = 407 if style_loss == "match" else 398  # MiB: it sees deeper layers
    memories = {"cpu": room + memory.LOADED // 2**20, NAME: room}  # that of the host is the whole process's
    settings = {"style_loss": style_loss, "tv_weight": 0.1, "preserve_color": "luminance"}
    content = Picture(LARGE, images.resize(HOLES, 260, 300))
    with caplog.at_level("INFO", "stylize"):
        here, there = (large(each, memory=f"{memories[each]}MiB", **settings)(content).rgb for each in memories)
    assert caplog.text.count(" tiles of ") == 2
    assert (there - here).square().mean().sqrt() < (1e-3 if style_loss == "gram" else 0.02)


@pytest.mark.slow
def test_out_of_memory_it_goes_on_in_tiles(caplog: pytest.LogCaptureFixture) -> None:
    made = large(NAME, style_loss="gram", steps=(2,))
    whole = made(LARGE).rgb  # whatever is kept is there by now
    with peak() as most:
        made(LARGE)
    with limited(memory=int(most[0] * 0.8)):
        tiled = made(LARGE).rgb
        assert "too little memory: going on in tiles of 150 px" in caplog.text
        caplog.clear()
        made(LARGE)
    assert "too little memory" not in caplog.text  # it is known by now
    assert (tiled - whole).abs().max() < 1e-3
    with limited(memory=most[0] // 20), pytest.raises(OptimizationError, match="not enough memory for 300x260"):
        made(LARGE)


@pytest.mark.slow
@optimizers
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tv_weight": 0.1},
        {"precision": "bfloat16"},
        {"preserve_color": "luminance", "memory": "398MiB"},
    ],
    ids=["default", "variation", "bfloat16", "tiles"],
)
def test_a_picture_takes_as_much_memory_as_planned_and_no_more(settings: dict[str, Any], optimizer: str) -> None:
    made = large(NAME, optimizer=optimizer, **settings)
    made(LARGE)  # the style is there by now
    plan = made.engine.plan(260, 300, 1 if "preserve_color" in settings else 3)
    assert bool(plan.side) == ("memory" in settings)
    planned = plan.peak - memory.FIXED
    with peak() as most:
        made(LARGE)
    assert 0.6 * planned < most[0] < planned


# --- lesser devices ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adam"},
        {"style_loss": "gram", "preserve_color": "match", "content": Picture(PHOTO, HOLES)},
        {"style": [STYLE, OTHER], "tv_weight": 0.1},
    ],
    ids=["default", "adam", "gram", "blend"],
)
def test_a_device_without_float64_paints_about_the_same(settings: dict[str, Any]) -> None:
    whole, before = painted(NAME, **settings)
    with limited(float64=False):
        single, after = painted(NAME, **settings)
    np.testing.assert_allclose([step.total for step in after], [step.total for step in before], rtol=0.02)
    assert (single - whole).square().mean().sqrt() < 0.01


@pytest.mark.slow
@style_losses
def test_transparency_needs_no_pooling_on_the_device(style_loss: str) -> None:
    content, style = Picture(PHOTO, HOLES), Picture(STYLE, HOLES[..., :40, :48])
    with limited(lacking=["_adaptive_avg_pool2d"]):
        compare(style_loss == "gram", style_loss=style_loss, content=content, style=style)


@pytest.mark.slow
def test_a_picture_is_resized_on_the_cpu_where_the_device_cannot() -> None:
    usual = painted(NAME, style_loss="gram")[0]
    with limited(lacking=["_upsample_bicubic2d_aa"]):
        assert torch.equal(painted(NAME, style_loss="gram")[0], usual)
        assert images.resize(waves(5, 6).to(NAME), 9, 4).device.type == NAME


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("encoder", ["tiny", "mini"])
def test_a_picture_of_one_colour_is_painted(encoder: str, level: float) -> None:
    """Its covariance is nothing but rounding of either sign, which roots by products do not tolerate."""
    for size, precision in ((128, "float32"), (64, "float32"), (64, "bfloat16")):
        rgb = torch.tensor([level, level, 0.5 * level]).view(1, 3, 1, 1).expand(1, 3, size * 3 // 4, size).contiguous()
        here = painted("cpu", rgb, size=size, encoder=encoder, precision=precision)[1]
        there = painted(NAME, rgb, size=size, encoder=encoder, precision=precision)[1]
        assert there[-1].total <= 1.5 * here[-1].total + 0.01
