"""Grain is noise of the strength asked for; the detail term knows the photo's edges."""

import pytest
import torch
from stylize_grain import edges, stylize_finish, stylize_terms

from stylize import Frame, Picture, Settings


@pytest.fixture
def photo():
    return Picture(torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0)))


def test_grain_changes_the_picture_by_its_strength_and_alike_every_time(photo):
    grey = Picture(torch.full((1, 3, 64, 64), 0.5))
    result = stylize_finish(grey, Settings(), {"grain": 0.5})
    assert torch.equal(result.rgb, stylize_finish(grey, Settings(), {"grain": 0.5}).rgb)
    assert float((result.rgb - grey.rgb).std()) == pytest.approx(0.1, rel=0.1)
    assert stylize_finish(grey, Settings(), {"grain": 0.0}) is None


def test_the_detail_term_is_zero_at_the_photo_and_one_without_edges(photo):
    (term,) = stylize_terms(Frame("photo", photo), {"detail": 0.1})
    assert term.weight == 0.1
    assert float(term.function(photo.rgb, {})) == 0
    assert float(term.function(torch.full_like(photo.rgb, 0.5), {})) == pytest.approx(1)
    assert stylize_terms(Frame("photo", photo), {"detail": 0.0}) == []


def test_the_detail_term_pulls_a_picture_towards_the_edges(photo, stylizer):
    terms = stylize_terms(Frame("photo", photo), {"detail": 1.0})
    wanted = edges(photo.rgb)
    grey = torch.full_like(photo.rgb, 0.5)
    plain, held = (stylizer(photo, init=grey, terms=lambda scale, terms=terms: terms) for terms in ([], terms))
    assert (edges(held.rgb) - wanted).square().mean() < (edges(plain.rgb) - wanted).square().mean()
