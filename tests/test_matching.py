"""Matched cells, against the definitions written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylize import Region, Settings, Stylizer
from stylize.encoders import EncoderSpec
from stylize.matching import MOST, StyleCells, View
from stylize.observing import Step
from stylize.pyramid import Scale
from stylize.terms import Positions
from tests.conftest import waves

SIDES = {"fine": 2, "coarse": 1}
SETTINGS = Settings(
    encoder="tiny", size=64, min_size=64, steps=(4,), tolerance=0.0, style_loss="match", device="cpu", palette="free"
)


def features(height: int, width: int, seed: int) -> dict[str, Tensor]:
    """Of two layers, one with two positions per cell and side."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "fine": torch.randn(1, 3, height, width, generator=generator),
        "coarse": torch.randn(1, 5, height // 2, width // 2, generator=generator),
    }


def cells_of(*styles: dict[str, Tensor], shares: Sequence[float] = ()) -> StyleCells:
    pairs = [
        (share, [View(each, lambda height, width: None)])
        for share, each in zip(shares or [1.0] * len(styles), styles, strict=True)
    ]
    return StyleCells.of(pairs, SIDES)


def test_vectors_hold_all_positions_of_a_cell_about_the_style_s_mean_over_its_spread() -> None:
    style, picture = features(8, 12, 1), features(9, 10, 2)  # an odd row belongs to no cell
    found = cells_of(style).layers.vectors(picture)
    assert found.shape == (4 * 5, 3 * 4 + 5)
    scaled = {}
    for layer in style:
        mean = style[layer].mean((0, 2, 3), keepdim=True)
        scaled[layer] = (picture[layer] - mean) / (style[layer] - mean).square().sum(1).mean().sqrt()
    for row, column in [(0, 0), (3, 4), (2, 1)]:
        block = scaled["fine"][0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
        expected = torch.cat([block, scaled["coarse"][0, :, row, column]])
        torch.testing.assert_close(found[row * 5 + column], F.normalize(expected, dim=0))


def test_the_likeness_and_its_gradient_are_those_of_automatic_differentiation() -> None:
    layers, picture = cells_of(features(8, 12, 1)).layers, features(9, 10, 2)
    wanted = torch.randn(20, 17, generator=torch.Generator().manual_seed(3))
    plain = {layer: own.clone().requires_grad_() for layer, own in picture.items()}
    closed = {layer: own.clone().requires_grad_() for layer, own in picture.items()}
    expected = (layers.vectors(plain) * wanted).sum()
    found = layers.alike(closed, layers.maps(wanted, (4, 5)))
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    for layer in picture:
        torch.testing.assert_close(closed[layer].grad, plain[layer].grad)


@pytest.mark.parametrize("most", [7, 4096])  # seen in parts, and as a whole
def test_matches_are_the_nearest_both_ways(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    style = cells_of(features(8, 12, 1), features(6, 6, 4), shares=(1.0, 3.0))
    vectors = style.layers.vectors(features(8, 10, 2))
    weights = torch.rand(20, generator=torch.Generator().manual_seed(5))
    weights[3] = 0
    weights /= weights.sum()
    monkeypatch.setattr("stylize.matching.MOST", most)
    found = style.matched(vectors, (4, 5), weights, copying=True)
    expected = torch.zeros_like(vectors)
    likeness = vectors @ style.vectors.T
    for cell in range(20):
        expected[cell] += weights[cell] / 2 * style.vectors[likeness[cell].argmax()]
    likeness[3] = -9
    for number in range(len(style.vectors)):
        expected[likeness[:, number].argmax()] += style.weights[number] / 2 * style.vectors[number]
    torch.testing.assert_close(found, expected)
    assert style.weights[:24].sum() == pytest.approx(0.25)
    assert style.weights.sum() == pytest.approx(1.0)


def test_what_is_transparent_in_a_painting_is_no_match() -> None:
    alpha = torch.ones(1, 1, 8, 12)
    alpha[..., :6] = 0
    style = StyleCells.of([(1.0, [View(features(8, 12, 1), Positions(alpha, torch.device("cpu")).of_map)])], SIDES)
    vectors, weights = style.layers.vectors(features(8, 12, 1)), torch.full((24,), 1 / 24)
    found = style.matched(vectors, (4, 6), weights, copying=True)
    own = (F.normalize(found, dim=1) * vectors).sum(1).view(4, 6)
    assert (own[:, 3:] > 0.99).all()
    assert (own[:, :3] < 0.99).all()


def test_things_are_not_copied_unless_they_may_be() -> None:
    seen = features(24, 24, 1)
    style = cells_of(seen)
    part = {layer: own[..., own.shape[2] // 3 :, :] for layer, own in seen.items()}  # the lower part of the painting
    vectors, weights = style.layers.vectors(part), torch.full((96,), 1 / 96)

    def like_themselves(*, copying: bool) -> Tensor:
        found = style.matched(vectors, (8, 12), weights, copying=copying)
        return (F.normalize(found, dim=1) * vectors).sum(1) > 0.999

    likely = like_themselves(copying=True)
    assert likely.float().mean() > 0.5  # the rest is what cells above are most like, too
    assert not like_themselves(copying=False).any()


def terms_of(stylizer: Stylizer, scale: Scale) -> dict[str, float]:
    return {term.name: term.weight for term in stylizer.terms(waves(scale.height, scale.width, 1), scale)}


def test_cells_are_matched_where_deep_layers_are_seen(tiny: EncoderSpec) -> None:
    stylizer = Stylizer(waves(64, 64, 2), SETTINGS, encoders=[tiny], style_weight=2.0)
    assert terms_of(stylizer, Scale(48, 64, 1))["match"] == pytest.approx(0.4)
    assert "match" not in terms_of(stylizer, Scale(48, 64, 1, symmetric=True))
    assert terms_of(stylizer, Scale(48, 64, 1, detail=0.75))["match"] == pytest.approx(0.4)
    assert "match" not in terms_of(stylizer, Scale(48, 64, 1, detail=0.75, shallow=True))
    plain = Stylizer(waves(64, 64, 2), SETTINGS, encoders=[tiny], style_loss="wasserstein")
    assert "match" not in terms_of(plain, Scale(48, 64, 1))


@pytest.mark.parametrize("shape", [(4, 64), (64, 7)])
def test_what_is_thinner_than_a_cell_is_painted_without(tiny: EncoderSpec, shape: tuple[int, int]) -> None:
    thick, thin = waves(64, 64, 2), waves(*shape, 3)
    stylizer = Stylizer(thick, SETTINGS, encoders=[tiny])
    assert stylizer(thin).size == shape
    assert "match" not in terms_of(stylizer, Scale(*shape, 1))
    assert "match" not in terms_of(Stylizer(thin, SETTINGS, encoders=[tiny]), Scale(48, 64, 1))
    both, alone = (Stylizer(styles, SETTINGS, encoders=[tiny]) for styles in ([thick, thin], [thick]))
    assert "match" in terms_of(both, Scale(48, 64, 1))
    assert terms_of(alone, Scale(8, 64, 1))["match"] > 0  # a single row of cells


@pytest.mark.parametrize("most", [MOST, 12 * 12])
def test_what_lies_half_a_cell_further_is_found_in_small_paintings(
    tiny: EncoderSpec, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.terms.MOST", most)
    rough = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))

    def distance(down: int, right: int) -> float:
        photo = rough[..., down : down + 64, right : right + 64]
        settings = SETTINGS.replace(size=96, content_loss="self-similarity")  # which lets things be copied
        stylizer = Stylizer(rough, settings, encoders=[tiny])
        term = {each.name: each for each in stylizer.terms(photo, Scale(96, 96, 1))}["match"]
        assert term.update is not None
        term.update(photo)
        return float(term.function(photo, stylizer.engine.maps(photo, term.layers)))

    cell = 8
    apart = distance(cell // 4, cell // 4)
    assert distance(0, 0) < 0.8 * apart
    for further in (distance(cell // 2, 0), distance(cell // 2, cell // 2)):
        assert (further < 0.8 * apart) == (most == MOST)


def test_a_picture_becomes_more_like_pieces_of_the_painting(tiny: EncoderSpec) -> None:
    values: list[float] = []

    def observe(step: Step) -> None:
        values.append(step.terms["match"])

    settings = SETTINGS.replace(steps=(12,), match_weight=2.0, content_weight=0.001)
    Stylizer(waves(64, 64, 2), settings, encoders=[tiny])(waves(48, 64, 1), on_step=observe)
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("changes", [{}, {"content_loss": "self-similarity", "content_weight": 0.01}])
def test_blends_masks_and_regions_are_matched_as_well(tiny: EncoderSpec, changes: dict[str, Any]) -> None:
    styles = [waves(64, 64, 2), waves(40, 64, 3)]
    stylizer = Stylizer(styles, SETTINGS, encoders=[tiny], style_weights=(1, 2), **changes)
    mask = torch.zeros(48, 64)
    mask[:, 20:] = 1
    photo = waves(48, 64, 1)
    made = stylizer(photo, mask=mask.numpy(), regions=[Region(mask.flip(1).numpy(), waves(64, 64, 5))])
    assert torch.equal(made.rgb[..., :16], photo[..., :16])
    assert not torch.allclose(made.rgb[..., 24:], photo[..., 24:], atol=0.02)


def test_the_same_settings_paint_the_same_picture_twice(tiny: EncoderSpec) -> None:
    stylizer = Stylizer(waves(64, 64, 2), SETTINGS, encoders=[tiny])
    assert torch.equal(stylizer(waves(48, 64, 1)).rgb, stylizer(waves(48, 64, 1)).rgb)
