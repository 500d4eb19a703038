"""What shows the progress in Python programs: a bar, or the picture itself."""

from __future__ import annotations

import base64
import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from stylize import Settings, Step, Stylizer, progress
from stylize.encoders import EncoderSpec
from tests.conftest import waves

SETTINGS = Settings(encoder="tiny", size=48, min_size=32, steps=(3,), tolerance=0.0, device="cpu")
PHOTO, STARRY = waves(36, 48, 1), waves(40, 40, 2)


def test_a_bar_on_standard_error_reaches_its_end(tiny: EncoderSpec, capsys: pytest.CaptureFixture[str]) -> None:
    stylizer = Stylizer(STARRY, SETTINGS, encoders=[tiny], progress=True)
    picture = stylizer(PHOTO)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err
    assert "48x36" in err
    stylizer(PHOTO, progress=False)
    assert capsys.readouterr() == ("", "")
    assert Stylizer(STARRY, SETTINGS, encoders=[tiny])(PHOTO, progress=True).rgb.equal(picture.rgb)
    assert "100%" in capsys.readouterr().err


def test_an_observer_sees_the_steps_beside_it(tiny: EncoderSpec, capsys: pytest.CaptureFixture[str]) -> None:
    steps: list[Step] = []
    Stylizer(STARRY, SETTINGS, encoders=[tiny])(PHOTO, progress=True, on_step=steps.append)
    assert len(steps) == 6
    assert capsys.readouterr().err


class Handle:
    def __init__(self, shown: list[Any]) -> None:
        self._shown = shown

    def update(self, bundle: Any, raw: bool) -> None:
        self._shown.append(bundle)


def test_in_a_notebook_the_picture_itself_is_shown(
    tiny: EncoderSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[dict[str, str]] = []

    def display(bundle: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append(bundle)
        return Handle(shown)

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr(progress, "PAUSE", 0)
    monkeypatch.setattr(progress, "SHARE", 0)
    assert progress.in_notebook()
    Stylizer(STARRY, SETTINGS, encoders=[tiny])(PHOTO, progress=True)
    assert capsys.readouterr() == ("", "")
    assert len(shown) == 7
    sizes = []
    for bundle in shown:
        data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', bundle["text/html"])
        assert data is not None
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data[1]))).size)
    assert sizes == [(32, 24)] * 3 + [(48, 36)] * 4
    assert "step 3 of 3 (100%)" in shown[5]["text/plain"]


def test_the_share_done_grows_to_one() -> None:
    def at(scale: int, number: int) -> float:
        return progress.share_done(Step(scale, 3, 9, 9, number, 10, 1.0, {}, 0, True, 0.0))

    places = [at(scale, number) for scale in (1, 2, 3) for number in range(1, 11)]
    assert places == sorted(places)
    assert places[0] > 0
    assert places[-1] == pytest.approx(1)
    assert at(3, 1) < 0.33  # the last scale takes most of the time
