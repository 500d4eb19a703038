"""What every encoder keeps to, the VGG against plain torch, and the choice of encoder, device and precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.devices import resolve_device, resolve_dtype
from stylize.encoders import (
    EncoderConfig,
    EncoderSpec,
    builtin,
    choose,
    layer_names,
    plain,
    winograd,
)
from stylize.encoders.vgg import AVERAGE_POOLING_SCALES, VGG
from stylize.errors import DeviceError, SettingsError
from stylize.losses import Gaussian, content, gram, gram_matrix, moments, position_weights, wasserstein
from stylize.testing import TINY_WIDTHS, EncoderContract, random_weights, tiny_encoder

SIZES = [(1, 1), (1, 37), (15, 16), (33, 47)]
LAYERS = layer_names(TINY_WIDTHS)
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
poolings = pytest.mark.parametrize("pooling", ["max", "average"])


def photo(size: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# --- the contract, for every encoder ---------------------------------------------------------------------------


class TestContract(EncoderContract):
    @pytest.fixture(params=["max", "average"])
    def place(self, request: pytest.FixtureRequest, device: str) -> EncoderConfig:
        return EncoderConfig(torch.device(device), torch.float32, request.param)

    @pytest.fixture(params=[tiny_encoder(), choose("mini", builtin())], ids=lambda spec: spec.name)
    def spec(self, request: pytest.FixtureRequest) -> EncoderSpec:
        found: EncoderSpec = request.param
        return found


# --- VGG ---------------------------------------------------------------------------------------------------------


def tiny_vgg(
    layers: Iterable[str],
    weights: Mapping[str, Tensor] | None = None,
    pooling: str = "max",
    dtype: torch.dtype = torch.float32,
    rescale: bool = True,
) -> VGG:
    place = EncoderConfig(torch.device("cpu"), dtype, pooling, rescale=rescale)
    return VGG(random_weights(TINY_WIDTHS) if weights is None else weights, TINY_WIDTHS, layers, place)


def reference(image: Tensor, pooling: str, rescale: bool) -> dict[str, Tensor]:
    """A VGG as one writes it down: normalised input with its edge replicated, then torchvision's sequence."""
    mean, std = image.new_tensor([0.485, 0.456, 0.406]), image.new_tensor([0.229, 0.224, 0.225])
    x = (image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    weights, names = random_weights(TINY_WIDTHS), iter(LAYERS)
    found, index, poolings = {}, 0, 0
    for width in TINY_WIDTHS:
        if width is None:
            window = [min(2, side) for side in x.shape[2:]]
            if pooling == "max":
                x = x.unfold(2, window[0], window[0]).unfold(3, window[1], window[1]).amax((-2, -1))
            else:
                x = x.unfold(2, window[0], window[0]).unfold(3, window[1], window[1]).mean((-2, -1))
                x = x * (AVERAGE_POOLING_SCALES[poolings] if rescale and window != [1, 1] else 1)
            index, poolings = index + 1, poolings + 1
            continue
        x = F.pad(x, (1, 1, 1, 1), mode="constant" if index else "replicate")
        kernel, bias = weights[f"features.{index}.weight"].to(x), weights[f"features.{index}.bias"].to(x)
        x = F.conv2d(x, kernel, bias).clamp_min(0)
        found[next(names)] = x
        index += 2
    return found


@sizes
@poolings
@pytest.mark.parametrize("rescale", [True, False], ids=["rescaled", "as in the paper"])
def test_vgg_equals_plain_torch_on_a_normalised_picture(size: tuple[int, int], pooling: str, rescale: bool) -> None:
    found = tiny_vgg(LAYERS, pooling=pooling, rescale=rescale)(photo(size))
    expected = reference(photo(size, dtype=torch.float64), pooling, rescale)
    assert list(found) == list(expected)
    for layer in LAYERS:
        largest = expected[layer].abs().max().item()
        np.testing.assert_allclose(found[layer], expected[layer], rtol=0, atol=2e-5 * largest)


@sizes
@poolings
@pytest.mark.parametrize("rescale", [True, False], ids=["rescaled", "as in the paper"])
def test_the_plain_vgg_has_the_features_and_gradients_of_the_other(
    size: tuple[int, int], pooling: str, rescale: bool
) -> None:
    """The gradient of the two differs by rounding alone, though one is written out and the other left to autograd."""
    weights = random_weights(TINY_WIDTHS)
    for dtype, close in ((torch.float64, 2e-6), (torch.float32, 2e-5)):
        pictures = [photo(size, dtype=dtype).requires_grad_() for _ in range(2)]
        simple = plain.features(pictures[0], weights, TINY_WIDTHS, pooling, rescale=rescale)
        ours = tiny_vgg(LAYERS, pooling=pooling, rescale=rescale, dtype=dtype)(pictures[1])
        for layer in LAYERS:
            torch.testing.assert_close(
                ours[layer], simple[layer], rtol=0, atol=close * simple[layer].abs().max().item()
            )
        for found in (simple, ours):
            torch.stack([found[layer].square().sum() for layer in LAYERS]).sum().backward()
        expected, gradient = pictures[0].grad, pictures[1].grad
        assert expected is not None
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=0, atol=close * 10 * expected.abs().max().item())


@poolings
@pytest.mark.parametrize("size", [(1, 1), (5, 6), (9, 16)])
def test_vgg_gradient_equals_finite_differences(size: tuple[int, int], pooling: str) -> None:
    encoder = tiny_vgg(LAYERS, pooling=pooling, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    image = photo(size, dtype=torch.float64).requires_grad_()
    for layer in LAYERS[::3]:
        pick = torch.randn(encoder(image)[layer].shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((encoder(image)[layer] * pick).sum(), image)
        for _ in range(4):
            way = torch.randn(image.shape, generator=generator, dtype=torch.float64) * 1e-6
            ends = [(encoder((image + sign * way).detach())[layer] * pick).sum() for sign in (1, -1)]
            slope = (gradient * way).sum().item()
            assert (ends[0] - ends[1]).item() / 2 == pytest.approx(slope, rel=1e-5, abs=1e-10)


def wide_vgg(layers: Iterable[str], dtype: torch.dtype = torch.float32) -> VGG:
    """One with convolutions that are computed the fast way in float32."""
    widths = (8, 96, None, 96, 112, None, 100)
    return VGG(random_weights(widths), widths, layers, EncoderConfig(torch.device("cpu"), dtype))


@pytest.mark.parametrize("size", [(33, 47), (64, 96), (97, 30)])
def test_fast_convolutions_give_what_float64_gives(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_gains", lambda: True)
    image, layers = photo(size), ["relu1_2", "relu2_1", "relu2_2", "relu3_1"]
    found, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        leaf = image.to(dtype).requires_grad_()
        features = wide_vgg(layers, dtype)(leaf)
        found.append(features)
        picks = [torch.linspace(-1, 2, features[layer].numel()).view(features[layer].shape) for layer in layers]
        total = torch.stack([(features[layer] * pick).sum() for layer, pick in zip(layers, picks, strict=True)]).sum()
        gradients.append(torch.autograd.grad(total, leaf)[0])
    assert wide_vgg(layers).alignment == 16
    assert wide_vgg(layers, torch.float64).alignment == 4
    for layer in layers:
        assert (found[0][layer] - found[1][layer]).norm() <= 2e-6 * found[1][layer].norm()
    # an activation at zero to rounding passes a gradient in one of them only, or is not the largest of four
    assert (gradients[0] - gradients[1]).abs().median() <= 2e-6 * gradients[1].abs().median()


STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["style", "content", "both", "masked", "few positions"])
@pytest.mark.parametrize("encoder", ["tiny", "mini"])
def test_gradients_in_closed_form_are_those_of_autograd(
    kind: str, encoder: str, dtype: torch.dtype, device: str
) -> None:
    """Losses leave their gradients with a VGG, but not with what was made of its features, as a product with one."""
    specs = {"tiny": tiny_encoder(), "mini": choose("mini", builtin())}
    network = specs[encoder].load(None, None)(STYLE_LAYERS, EncoderConfig(torch.device(device), dtype))
    size = (5, 6) if kind == "few positions" else (33, 47)
    with torch.no_grad():
        aims = {layer: feature.float() for layer, feature in network(photo(size, seed=1).to(device)).items()}

    def total(features: Mapping[str, Tensor]) -> Tensor:
        values = []
        for layer, feature in features.items():
            weight = None
            if kind == "masked":
                weight = position_weights(photo(size, seed=2)[:, :1].to(device), *feature.shape[2:])
            if kind != "content":
                values.append(wasserstein(feature, Gaussian.of(*moments(aims[layer])), weight))
                values.append(3 * gram(feature, gram_matrix(aims[layer]), 10.0, weight))
            if kind not in ("style", "few positions"):
                values.append(content(feature, aims[layer], 7.0, weight))
            if kind == "both" and layer == "relu2_1":
                values.append(feature.float().sum() / 50)
        return torch.stack(values).sum()

    gradients = []
    for once in (False, True):
        image = photo(size).to(device).requires_grad_()
        features = {layer: feature * 1 if once else feature for layer, feature in network(image).items()}
        gradients.append(torch.autograd.grad(total(features), image)[0])
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= (2e-6 if dtype == torch.float32 else 2e-2) * gradients[1].norm()


def test_a_layer_that_only_a_style_sees_has_its_gradient_alone() -> None:
    """Nothing comes from deeper layers, and nothing through autograd."""
    network = tiny_vgg(LAYERS)
    image = photo((33, 47)).requires_grad_()
    features = network(image)
    aim = gram_matrix(network(photo((33, 47), seed=1))["relu2_1"])
    (gradient,) = torch.autograd.grad(gram(features["relu2_1"], aim, 1.0), image)
    shallow = tiny_vgg(["relu2_1"])(leaf := photo((33, 47)).requires_grad_())["relu2_1"]
    apart = shallow[0].flatten(1) @ shallow[0].flatten(1).T / (shallow.shape[2] * shallow.shape[3]) - aim
    (expected,) = torch.autograd.grad(apart.square().sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


def test_the_way_back_is_gone_once() -> None:
    image = photo((15, 16)).requires_grad_()
    total = tiny_vgg(LAYERS)(image)["relu3_1"].sum()
    torch.autograd.grad(total, image, retain_graph=True)
    with pytest.raises(RuntimeError, match="encode the picture again"):
        torch.autograd.grad(total, image)


def test_vgg_replicates_the_edge_of_the_picture() -> None:
    """Else a flat picture would have a frame in its features."""
    first = tiny_vgg(["relu1_1"])(torch.full((1, 3, 8, 9), 0.25))["relu1_1"]
    np.testing.assert_allclose(first, first[..., 4:5, 4:5].expand_as(first), atol=1e-6)


def test_vgg_needs_no_weights_beyond_the_deepest_layer() -> None:
    weights = random_weights(TINY_WIDTHS)
    shallow = {key: value for key, value in weights.items() if int(key.split(".")[1]) <= 5}
    found, expected = (tiny_vgg(["relu2_1"], held)(photo((15, 16)))["relu2_1"] for held in (shallow, weights))
    assert torch.equal(found, expected)


def test_vgg_names_the_layers_that_its_weights_hold() -> None:
    weights = {key: value for key, value in random_weights(TINY_WIDTHS).items() if int(key.split(".")[1]) <= 5}
    with pytest.raises(SettingsError) as caught:
        tiny_vgg(["relu2_2"], weights)
    assert str(caught.value) == "unknown layer 'relu2_2'; this encoder has relu1_1, relu1_2, relu2_1"


@pytest.mark.parametrize("layer", ["relu6_1", "relu1_3", "conv1_1", ""])
def test_an_unknown_layer_lists_those_there_are(layer: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tiny_vgg(["relu1_1", layer])
    assert repr(layer) in str(caught.value)
    assert all(name in str(caught.value) for name in LAYERS)


def test_vgg_does_no_work_beyond_the_deepest_layer() -> None:
    broken = random_weights(TINY_WIDTHS)
    broken["features.7.weight"] = torch.zeros(1)  # would fail in any convolution
    assert set(tiny_vgg(["relu2_1"], broken)(photo((15, 16)))) == {"relu2_1"}


# --- built-in encoders ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "configuration"), [("vgg19", "E"), ("vgg16", "D")])
def test_built_in_layers_are_those_of_torchvision(name: str, configuration: str) -> None:
    from torchvision.models.vgg import cfgs

    from stylize.encoders.weights import ARCHITECTURES

    widths = tuple(None if width == "M" else width for width in cfgs[configuration])
    assert ARCHITECTURES[name] == widths
    expected, block, number = [], 1, 0
    for width in cfgs[configuration]:
        block, number = (block + 1, 0) if width == "M" else (block, number + 1)
        if number:
            expected.append(f"relu{block}_{number}")
    assert choose(name, builtin()).layers == tuple(expected)


def test_choose_finds_by_name() -> None:
    specs = [tiny_encoder("one"), tiny_encoder("two")]
    assert choose("two", specs) is specs[1]


def test_an_unknown_encoder_lists_those_there_are() -> None:
    with pytest.raises(SettingsError) as caught:
        choose("resnet", builtin())
    assert "'resnet'" in str(caught.value)
    assert "vgg19" in str(caught.value)
    assert "vgg16" in str(caught.value)


# --- device and precision ------------------------------------------------------------------------------------------


def test_auto_is_cuda_where_there_is_cuda_and_the_cpu_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


def test_devices_are_taken_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda").type == "cuda"
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:99999", 1), ("mps", 0)])
def test_a_device_that_is_not_there_is_a_device_error(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"device {name} is not there"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["tpu", "", "CUDA", "cuda:", "cuda:x", "cuda:-1", "gpu", "meta", "xpu"])
def test_what_is_no_device_name_is_a_settings_error(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_device(name)
    assert str(caught.value) == f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps"


@pytest.mark.parametrize(
    ("known", "fast"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_auto_is_bfloat16_on_cpus_with_instructions_for_it(
    known: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert resolve_dtype("auto", cpu) == (torch.bfloat16 if fast else torch.float32)
    assert resolve_dtype("float32", cpu) == torch.float32
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_dtype("auto", cpu) == torch.float32


@pytest.mark.parametrize(
    ("capability", "hip", "fast"), [((7, 5), None, False), ((8, 0), None, True), ((9, 0), "6", False)]
)
def test_auto_is_bfloat16_on_gpus_with_tensor_cores_for_it(
    capability: tuple[int, int], hip: str | None, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert resolve_dtype("auto", torch.device("cuda")) == (torch.bfloat16 if fast else torch.float32)


def test_auto_is_float32_where_torch_does_not_know_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32


def test_bfloat16_on_a_gpu_without_it_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(DeviceError, match="bfloat16"):
        resolve_dtype("bfloat16", torch.device("cuda"))
    assert resolve_dtype("float32", torch.device("cuda")) == torch.float32
