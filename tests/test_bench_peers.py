"""The benchmark against other programs: what it decides, and a run of it against one that only follows the commands."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from stylize.encoders import weights
from stylize.encoders.vgg import MEAN, STD
from stylize.testing import TINY_WIDTHS, random_weights
from tests import preloaded
from tests.bench import peer_host, peer_plot, peer_weights, peers
from tests.bench.peer_runs import FailedError, Run, Seen, run
from tests.conftest import waves

# It takes the commands of both programs, wants their weights, and paints everything black, first a smaller one.
FAKE = """
import argparse, os, pathlib
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("pictures", nargs="*")
parser.add_argument("-o", "-output_image", dest="target")
parser.add_argument("-s", "-image_size", dest="size", type=int)
parser.add_argument("--save-every")
parser.add_argument("-content_image")
parser.add_argument("-style_image")
parser.add_argument("-model_file", default=os.environ["TORCH_HOME"] + "/hub/checkpoints/vgg19-dcbb9e9d.pth")
parser.add_argument("-gpu")
options = parser.parse_args()
assert pathlib.Path(options.model_file).stat().st_size
content = Image.open(options.content_image or options.pictures[0])
for size, target in ((options.size // 2, "early.png"), (options.size, options.target)):
    content.resize((size, size * content.height // content.width)).point(lambda value: 0).save(target)
"""

# The darker, the worse.
SCORE = """
import json, sys
from PIL import Image

stylized, content, style, option, weights = sys.argv[1:]
assert option == "--weights" and open(weights, "rb").read(8)
dark = 255 - Image.open(stylized).convert("L").resize((1, 1)).getpixel((0, 0))
print(json.dumps({"style": dark / 255, "held": dark / 128, "content": dark, "gram": 0}))
"""


def scores(style: float, held: float, content: float) -> dict[str, float]:
    return {"style": style, "held": held, "content": content}


def test_one_dominates_that_is_better_in_all_three() -> None:
    assert peers.dominates(scores(1, 1, 1), scores(2, 2, 2))
    assert not peers.dominates(scores(1, 1, 2), scores(2, 2, 2))
    assert not peers.dominates(scores(2, 2, 2), scores(1, 1, 1))


def test_the_first_better_picture_is_found_though_a_later_one_is_not() -> None:
    curve = [(Seen(float(n), Path(f"{n}.png"), n), scores(each, each, each)) for n, each in enumerate((3, 1, 0, 2))]
    assert peers.first_better(curve, scores(2, 2, 2)) == curve[1][0]
    assert peers.first_better(curve, scores(0, 9, 9)) is None


def test_medians_are_taken_score_by_score() -> None:
    assert peers.medians([scores(1, 5, 0), scores(2, 4, 0), scores(9, 9, 3)]) == scores(2, 5, 0)


def test_a_thinned_curve_keeps_its_end() -> None:
    seen = [Seen(float(n), Path(f"{n}.png")) for n in range(60)]
    kept = peers.thinned(seen)
    assert len(kept) == peers.CURVE
    assert kept[-1] == seen[-1]
    assert kept == sorted(kept, key=lambda each: each.seconds)
    assert peers.thinned(seen[:5]) == seen[:5]


def test_steps_of_coarse_scales_count_by_their_area(tmp_path: Path) -> None:
    steps = [(1, 1, 32), (1, 2, 32), (2, 1, 64)]
    lines: list[dict[str, object]] = [
        {"scale": s, "number": n, "height": side, "width": side, "seconds": 10.0 * n, "looked": 2.0 * s}
        for s, n, side in steps
    ]
    lines[1]["picture"] = "1-00002.png"
    Path(tmp_path, "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = Run(30.0, 0.0, 0, tmp_path / "out.png", ())
    assert peers.traced(tmp_path, whole) == [
        Seen(20.0, tmp_path / "1-00002.png", 0.5),
        Seen(26.0, tmp_path / "out.png", 1.5),
    ]


def test_the_table_has_medians_and_what_the_others_result_costs_with_stylize() -> None:
    def runs(*seconds: float) -> list[Run]:
        return [Run(each, each * 2, 2**30, Path("out.png"), ()) for each in seconds]

    bench = peers.Bench(
        peers.Pair(Path("a.jpg"), Path("b.jpg")),
        256,
        {peers.OURS: runs(30), peers.CROWSON: runs(500, 900, 700), peers.PROGAMER: runs(99)},
    )
    bench.results = {
        peers.OURS: scores(0.2, 0.2, 0.5),
        peers.CROWSON: scores(0.3, 0.3, 0.6),
        peers.PROGAMER: scores(0.1, 0.3, 0.6),
    }
    bench.curves[peers.OURS] = [(Seen(12.0, Path("a.png"), 20.25), scores(0.2, 0.2, 0.5))]
    assert peers.table([bench]).splitlines()[2:] == [
        "| 256 | stylize | 30.0 | 60.0 | 1.00 | 0.200 | 0.200 | 0.500 |  |",
        "| 256 | style-transfer-pytorch | 700.0 | 1400.0 | 1.00 | 0.300 | 0.300 | 0.600 | step 20.2, 12.0 s |",
        "| 256 | neural-style-pt | 99.0 | 198.0 | 1.00 | 0.100 | 0.300 | 0.600 | never |",
    ]


def features(image: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """relu3_1 of a picture as the network wants it."""
    for index, pools in ((0, False), (2, True), (5, False), (7, True), (10, False)):
        image = F.relu(
            F.conv2d(image, tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"], padding=1)
        )
        image = F.max_pool2d(image, 2) if pools else image
    return image


def test_neural_style_gets_the_same_network_for_its_own_pixels() -> None:
    tensors, picture = random_weights(TINY_WIDTHS), waves(48, 48)
    mean, std, caffe = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD, peer_weights.CAFFE_MEAN))
    ours = features((picture - mean) / std, tensors)
    theirs = features((picture * 256 - caffe).flip(1), peer_weights.for_neural_style(tensors, 7.0))
    inside = (..., slice(3, -3), slice(3, -3))  # what the borders are padded with is not quite the same
    torch.testing.assert_close(theirs[inside], ours[inside] * 7, rtol=1e-3, atol=1e-3)


def test_balanced_weights_are_the_same_network_with_mean_activations_of_one() -> None:
    tensors, pictures = random_weights(TINY_WIDTHS), [waves(48, 48), waves(32, 64, seed=1)]
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    found = peer_weights.balanced(tensors, pictures)
    ours, theirs = ([features((picture - mean) / std, own) for picture in pictures] for own in (tensors, found))
    size = torch.stack([each.mean() for each in ours]).mean()
    assert torch.stack([each.mean() for each in theirs]).mean() == pytest.approx(1, rel=1e-4)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other * size, one, rtol=1e-3, atol=1e-3 * float(one.max()))


def test_torchvision_takes_the_whole_network() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = torchvision.models.vgg19(init_weights=False)
    shapes = weights.expected("vgg19").items()
    made = peer_weights.for_torchvision({name: torch.zeros(()).expand(shape) for name, shape in shapes})
    network.load_state_dict(made, assign=True)
    assert sum(tensor.untyped_storage().nbytes() for name, tensor in made.items() if "classifier" in name) < 1000


def test_programs_that_ask_for_vgg16_get_the_features_of_vgg19_under_its_numbers() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        deep, small = torchvision.models.vgg19(init_weights=False), torchvision.models.vgg16(init_weights=False)
    made = peer_host.renumbered(deep.features)
    assert len(made) == len(small.features)
    for index, (ours, theirs) in enumerate(zip(made, small.features, strict=True)):
        if isinstance(theirs, torch.nn.Conv2d):
            assert ours.weight.shape == theirs.weight.shape, index
        else:
            assert type(ours[-1] if isinstance(ours, torch.nn.Sequential) else ours) is type(theirs), index
    flat = [each for each in made.modules() if not isinstance(each, torch.nn.Sequential)]
    assert flat == list(deep.features)


@pytest.mark.slow
@pytest.mark.parametrize("relative", [False, True])
def test_a_program_is_run_as_it_stands_or_within_its_package(tmp_path: Path, relative: bool) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    Path(folder, "near.py").write_text("import torch\nfrom imageio import imread, imwrite\n")
    begin = "from .near import *" if relative else "from near import *"
    rest = (
        "import sys\ntorch.zeros(1).cuda()\ntorch.cuda.synchronize()\nimwrite(sys.argv[2], imread(sys.argv[1]) / 255.0)"
    )
    Path(folder, "main.py").write_text(f"import torch\n{begin}\n{rest}\n")
    Image.new("RGB", (7, 5), (77, 77, 77)).save(tmp_path / "in.png")
    command = [sys.executable, peer_host.__file__, str(folder / "main.py"), "in.png", "out.png"]
    done = preloaded.run(command, cwd=tmp_path, capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out.png") as image:
        assert (image.size, image.getpixel((3, 2))) == ((7, 5), (77, 77, 77))


def test_the_mean_of_further_yardsticks_is_over_programs_that_ran_everywhere() -> None:
    pair = peers.Pair(Path("photo.jpg"), Path("wave.jpg"))
    first = peers.Bench(pair, 256, further={peers.OURS: {"ssim": 0.5}, peers.NNST: {"ssim": 0.25}})
    second = peers.Bench(pair, 512, further={peers.OURS: {"ssim": 0.75}})
    assert peers.further_table([first, second]).splitlines() == [
        "| pair | size | program | ssim |",
        "|---|---|---|---|",
        "| photo x wave | 256 | stylize | 0.500 |",
        "| photo x wave | 256 | nnst | 0.250 |",
        "| photo x wave | 512 | stylize | 0.750 |",
        "| mean |  | stylize | 0.625 |",
    ]


def test_ticks_are_round_numbers_between_the_ends() -> None:
    assert peer_plot.seconds_ticks(3.0, 120.0) == [5, 10, 20, 50, 100]
    assert peer_plot.score_ticks(0.24, 0.61) == [0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit('no such network')", "exit code 1: no such network"),
        ("print('done')", "exit code 0: done"),
    ],
)
def test_a_run_without_a_picture_says_why(tmp_path: Path, program: str, why: str) -> None:
    with pytest.raises(FailedError, match=why):
        run([sys.executable, "-c", program], {}, tmp_path / "run")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="nowhere: No such file"):
        run([str(tmp_path / "nowhere")], {}, tmp_path / "run")


@pytest.mark.slow
def test_a_whole_run_against_a_program_that_paints_black(
    tmp_path: Path,
    pictures: tuple[Path, Path],
    plugin_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(plugin_folder))
    monkeypatch.setattr(subprocess, "Popen", preloaded.Popen)
    Path(tmp_path, "fake.py").write_text(FAKE)
    Path(tmp_path, "score.py").write_text(SCORE)
    first = {f"features.0.{kind}": torch.rand(shape) for kind, shape in (("weight", (64, 3, 3, 3)), ("bias", (64,)))}
    save_file(first, tmp_path / "weights.safetensors")
    fake = shlex.join([sys.executable, str(tmp_path / "fake.py")])
    files = ["--score", str(tmp_path / "score.py"), "--weights", str(tmp_path / "weights.safetensors")]
    files += ["--plot", str(tmp_path / "plot.png"), "--keep", str(tmp_path / "kept"), "--runs", "2"]
    files += ["--sheet", str(tmp_path / "sheet.jpg"), "--independent", str(tmp_path / "other.py")]
    Path(tmp_path, "other.py").write_text('print(\'{"picture": "a.png", "ssim": 0}\')')
    others = ["--style-transfer-pytorch", fake, "--neural-style-pt", str(tmp_path / "nowhere")]
    options = ["--sizes", "32", "--rounds", "1", "--every", "2", "--options", "stylize=--encoder tiny --steps 4"]
    with pytest.raises(SystemExit, match="--keep for the next"):  # two runs of three
        peers.main([*map(str, pictures), *files, *others, *options])
    assert capfd.readouterr().out == ""
    peers.main([*map(str, pictures), *files, *others, *options])
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines if line.startswith("| 32")] == ["stylize", "style-transfer-pytorch"]
    assert "| step " in lines[3]
    assert lines[5] == "| pair | size | program | ssim |"
    assert lines[7:9] == [f"| photo x starry | 32 | {name} | 0.000 |" for name in ("stylize", "style-transfer-pytorch")]
    assert any(line.startswith("- neural-style-pt is left out: ") and "No such file" in line for line in lines)
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size == (peer_plot.WIDTH, peer_plot.HEIGHT)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.height > 288
        assert sheet.width > 4 * 288
        last = sheet.convert("L").crop((sheet.width - 300, 60, sheet.width - 20, 300))
        assert np.asarray(last).max() < 16  # what the other program painted is black
    seen = tmp_path / "kept" / "1-photo-starry" / "32-0-style-transfer-pytorch" / "seen"
    sizes = set()
    for path in seen.iterdir():
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert sizes == {(16, 12), (32, 24)}
