"""Claims and results on a network file system, of which a machine remembers what was in a folder a while ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stylize
from stylize import Chain, Claims, Job, Request, Settings, claims_inside
from stylize.testing import small_photos
from tests.views import View

HOUR = 3600.0  # between two refreshes: none comes by itself


@pytest.fixture
def view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> View:
    monkeypatch.setenv("STYLIZE_REFRESH", str(HOUR))
    small_photos(tmp_path)
    return View(tmp_path, monkeypatch)


@pytest.fixture
def two(view: View, tmp_path: Path) -> Iterator[tuple[Claims, Claims]]:
    """The claims of this machine, and of another."""
    claims = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    yield claims
    with view.elsewhere():
        for each in claims:
            each.close()


def test_what_another_machine_takes_and_releases_is_seen(two: tuple[Claims, Claims], view: View) -> None:
    here, there = two
    assert here.take("mine")
    with view.elsewhere():
        assert there.take("a")
    assert not here.take("a")
    with view.elsewhere():
        there.release("a")
        assert not there.take("mine")
    assert here.take("a")
    with view.elsewhere():
        assert not there.take("a")
    here.release("a")
    with view.elsewhere():
        assert there.take("a")


def test_of_two_that_take_a_claim_over_one_gets_it_whatever_is_remembered(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.claims.claims.has_died", lambda content: b"dead" in content)
    folder = tmp_path / "claims"
    with view.elsewhere():
        dead, there = Claims(folder), Claims(folder)
        assert dead.take("a")
        (first,) = folder.iterdir()
    here = Claims(folder)
    assert not here.take("a")  # remembers that the first claim alone is there
    with view.elsewhere():
        first.write_bytes(first.read_bytes().replace(b"process", b"dead   "))
        assert there.take("a")
        (second,) = set(folder.iterdir()) - {first}
        second.rename(second.with_suffix(".2"))  # its holder was late, and has made a third
    assert not here.take("a")
    with view.elsewhere():
        assert second.with_suffix(".2").exists()
        assert not second.exists()
        for claims in (dead, there, here):
            claims.close()


def job(folder: Path, source: str, target: str) -> tuple[Job, list[Chain]]:
    """A job that has begun, and its chains."""
    settings = Settings(encoder="mini", size=32, steps=(2,), device="cpu")
    host = stylize.plugin_manager()
    made = Request(folder / source, (folder / "style.png",), folder / target, settings).open(host)
    made.begin(stylize.Stylizer(folder / "style.png", settings, encoders=host.encoders()))
    return made, list(made.chains())


def painted_elsewhere(folder: Path, source: str, target: str, stop: Callable[[], bool] | None = None) -> None:
    settings = Settings(encoder="mini", size=32, steps=(2,), device="cpu")
    host = stylize.plugin_manager()
    request = Request(folder / source, (folder / "style.png",), folder / target, settings)
    other = request.open(host)
    stylize.run(other, request.stylizer(other, host), host=host, stop=stop)


@pytest.mark.slow
def test_a_picture_that_another_machine_has_painted_is_not_painted_again(view: View, tmp_path: Path) -> None:
    here, chains = job(tmp_path, "photos", "out")
    assert len(chains) == 4
    with view.elsewhere():
        painted_elsewhere(tmp_path, "photos", "out")
        assert len(list((tmp_path / "out").glob("*.png"))) == 4
    assert here.claims is not None
    for chain in chains:
        assert here.claims.take(chain.key)
        assert list(here.frames(chain)) == []
        here.claims.release(chain.key)
    here.claims.close()
    assert here.finish() == tmp_path / "out"
    with view.elsewhere():
        assert not claims_inside(tmp_path / "out").exists()


@pytest.mark.slow
def test_frames_of_a_clip_that_another_machine_has_painted_are_not_painted_again(view: View, tmp_path: Path) -> None:
    from tests.test_video import clip, moving

    with view.elsewhere():
        clip(tmp_path / "in.mkv", [*moving(6, 0), *moving(6, 1)])
    here, chains = job(tmp_path, "in.mkv", "out.mkv")
    assert [chain.key for chain in chains] == ["00000000", "00000006"]
    with view.elsewhere():
        work = tmp_path / ".out.mkv.work"
        painted_elsewhere(tmp_path, "in.mkv", "out.mkv", lambda: len(list(work.glob("0*.png"))) == 12)
        assert not (tmp_path / "out.mkv").exists()
    assert here.claims is not None
    for chain in chains:
        assert here.claims.take(chain.key)
        assert [frame for frame in here.frames(chain) if not frame.copied] == []
        here.claims.release(chain.key)
    assert here.finish() == tmp_path / "out.mkv"
    here.claims.close()
    assert not list(tmp_path.glob(".out.mkv*"))
