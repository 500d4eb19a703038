"""The paper: its comparison figure, cell by cell, and its equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylize import Picture, Settings, SettingsError, Step, Stylizer, grid
from stylize.encoders import EncoderConfig, EncoderSpec
from stylize.images import resize
from stylize.paper import GRAY, MARGIN
from stylize.pyramid import Scale
from tests.conftest import waves

LAYERS = {"relu1_1": 1.0, "relu2_1": 2.0, "relu3_1": 0.5}
SETTINGS = Settings(encoder="tiny", size=64, steps=(4,), scales=1, style_layers=LAYERS, tolerance=0.0, device="cpu")
WEIGHTS = (0.05, 3.0)
PHOTO, STARRY = waves(36, 48, 1), waves(40, 40, 2)


def cells(sheet: Picture, height: int, width: int, rows: int, columns: int) -> list[list[Tensor]]:
    """The pictures of a figure, which end MARGIN from its right and lower edge."""
    top = sheet.size[0] - rows * (height + MARGIN)
    left = sheet.size[1] - columns * (width + MARGIN)
    return [
        [sheet.rgb[..., y : y + height, x : x + width] for x in range(left, sheet.size[1], width + MARGIN)]
        for y in range(top, sheet.size[0], height + MARGIN)
    ]


@pytest.mark.slow
def test_every_cell_is_the_picture_its_row_and_column_stand_for(tiny: EncoderSpec) -> None:
    sheet = grid(PHOTO, STARRY, SETTINGS, content_weights=WEIGHTS, encoders=[tiny])
    found = cells(sheet, 36, 48, 3, 2)
    assert [len(row) for row in found] == [2, 2, 2]
    names = list(LAYERS)
    seen = []
    for row, pictures in enumerate(found):
        for column, cell in enumerate(pictures):
            layers = {name: LAYERS[name] for name in names[: row + 1]}
            settings = SETTINGS.replace(style_layers=layers, content_weight=WEIGHTS[column])
            wanted = Stylizer(STARRY, settings, encoders=[tiny])(PHOTO).rgb
            assert torch.equal((cell * 255).round(), (wanted * 255).round()), (row, column)
            seen.append(cell)
    assert not any(torch.equal(a, b) for index, a in enumerate(seen) for b in seen[:index])


def test_rows_and_columns_are_labelled_outside_of_the_cells(tiny: EncoderSpec) -> None:
    settings = SETTINGS.replace(size=128, steps=(1,))
    sheet = grid(waves(96, 128), STARRY, settings, content_weights=WEIGHTS, encoders=[tiny])
    top, left = sheet.size[0] - 3 * (96 + MARGIN), sheet.size[1] - 2 * (128 + MARGIN)
    assert 10 < top < 60
    assert 30 < left < 160
    dark = sheet.rgb.mean(1, keepdim=True) < 0.5
    for row in range(3):
        y = top + row * (96 + MARGIN)
        assert dark[..., y : y + 96, :left].any(), row
    for column in range(2):
        x = left + column * (128 + MARGIN)
        assert dark[..., :top, x : x + 128].any(), column
    assert not dark[..., :top, :left].any()
    assert not dark[..., :, left - MARGIN // 2 : left].any()  # labels keep off the pictures
    assert torch.equal(sheet.rgb[0, :, -1, -1], torch.full((3,), GRAY / 255))


def test_layers_without_weight_have_no_row(tiny: EncoderSpec) -> None:
    settings = SETTINGS.replace(style_layers={"relu1_1": 1.0, "relu2_1": 0.0}, steps=(1,))
    sheet = grid(PHOTO, STARRY, settings, content_weights=(0.1,), encoders=[tiny])
    assert 36 < sheet.size[0] < 2 * 36 + 12
    assert 48 < sheet.size[1] < 48 + 160


def test_steps_are_reported_with_the_number_of_their_cell(tiny: EncoderSpec) -> None:
    seen: list[tuple[int, int]] = []

    def observe(cell: int, step: Step) -> None:
        seen.append((cell, step.number))

    grid(PHOTO, STARRY, SETTINGS.replace(size=16), content_weights=WEIGHTS, encoders=[tiny], on_step=observe)
    assert seen == [(cell, number) for cell in range(6) for number in range(1, 5)]


def test_once_stopped_the_cells_not_begun_stay_empty(tiny: EncoderSpec) -> None:
    seen: list[int] = []
    sheet = grid(
        PHOTO,
        STARRY,
        SETTINGS,
        content_weights=WEIGHTS,
        encoders=[tiny],
        on_step=lambda cell, step: seen.append(cell),
        stop=lambda: len(seen) >= 6,
    )
    first, second, *rest = [cell for row in cells(sheet, 36, 48, 3, 2) for cell in row]
    assert seen == [0, 0, 0, 0, 1, 1]
    assert first.std() > 0.05
    assert second.std() > 0.05
    assert len(rest) == 4
    assert all(torch.equal(cell, torch.ones_like(cell)) for cell in rest)


def test_a_small_photo_is_not_enlarged_and_a_large_one_is_reduced(tiny: EncoderSpec) -> None:
    one = SETTINGS.replace(style_layers={"relu1_1": 1.0}, steps=(1,))
    widths = {
        size: grid(
            PHOTO, STARRY, one.replace(size=size, upscale=upscale), content_weights=WEIGHTS, encoders=[tiny]
        ).size[1]
        for size, upscale in ((24, False), (48, False), (512, False), (96, True))
    }
    assert 2 * 24 <= widths[48] - widths[24] < 4 * 24  # the labels grow a little too
    assert widths[512] == widths[48]
    assert 2 * 48 <= widths[96] - widths[48] < 4 * 48


def test_no_content_weights_are_refused(tiny: EncoderSpec) -> None:
    with pytest.raises(SettingsError):
        grid(PHOTO, STARRY, SETTINGS, content_weights=(), encoders=[tiny])


def test_the_terms_in_the_papers_units_are_its_equations(tiny: EncoderSpec) -> None:
    """Eq. 1 and 4, of features brought to the size they have in the paper's network.

    There the mean of relu1_1 over photographs and paintings is 32, as its input runs from 0 to 255.
    """
    layers = {"relu1_1": 1.0, "relu3_1": 3.0}
    settings = SETTINGS.replace(size=48, normalize="paper", style_loss="gram", style_layers=layers)
    settings = settings.replace(content_layer="relu4_2", precision="float32")
    stylizer = Stylizer(STARRY, settings, encoders=[tiny])
    image, scale = waves(36, 48, 5), Scale(36, 48, 1)
    found = {
        term.name: float(term.function(image, stylizer.engine.encode(image))) for term in stylizer.terms(PHOTO, scale)
    }

    def features(picture: Tensor, unit: Tensor) -> dict[str, Tensor]:
        seen = tiny.load(None, None)(tiny.layers, EncoderConfig(torch.device("cpu"), torch.float32))
        own = float(seen(unit)["relu1_1"].mean())
        return {layer: feature[0].flatten(1).double() * 32 / own for layer, feature in seen(picture).items()}  # (N, M)

    f, p = (features(picture, PHOTO)[settings.content_layer] for picture in (image, PHOTO))
    assert found["content"] == pytest.approx(float((f - p).square().sum()) / 2, rel=1e-4)
    style = resize(STARRY, 48, 48)
    expected = 0.0
    for layer, weight in layers.items():
        f, a = (features(picture, style)[layer] for picture in (image, style))
        g, a = f @ f.T / f.shape[1], a @ a.T / a.shape[1]  # per position, as the pictures differ in size
        expected += weight / 4 * float((g - a).square().sum()) / (4 * len(f) ** 2)
    assert found["style"] == pytest.approx(expected, rel=1e-4)
