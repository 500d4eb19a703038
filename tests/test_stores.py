"""Object stores: a real S3 server on this machine, and fsspec's file system in memory."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec")

import stylize
from stylize import Claims, ImageError, Origin, Picture, SettingsError, StorePath, as_path, is_folder
from stylize.testing import small_photos
from tests.conftest import Call, waves
from tests.moments import wait_for
from tests.test_claims import takers_at_once

FAST = ("--encoder", "tiny", "--size", "16", "--steps", "2")
QUICK = 0.05  # seconds between refreshes


# Paths


@pytest.mark.parametrize("given", ["s3://bucket/a/b.png", "s3:/bucket/a/b.png", "s3://bucket/a/../a/b.png"])
def test_an_address_is_a_path_in_a_store(given: str) -> None:
    path = as_path(Path(given))
    assert isinstance(path, StorePath)
    assert str(path) == os.fspath(path) == path.as_posix() == "s3://bucket/a/b.png"
    assert (path.name, path.suffix, str(path.parent)) == ("b.png", ".png", "s3://bucket/a")
    assert str(path.with_name("c.jpg")) == "s3://bucket/a/c.jpg"
    assert path == as_path("s3://bucket/a") / "b.png" == pickle.loads(pickle.dumps(path)) == as_path(path)
    assert path.absolute() == path.resolve() == path


def test_what_is_no_address_is_a_path_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("photos/a.png", "a:b.png", "C:/photos", "unheard-of://bucket/a.png"):
        assert not isinstance(as_path(given), StorePath)
    assert as_path("file:///photos/a.png") == Path("/photos/a.png")
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    assert as_path("s3:/bucket/a.png") == Path("s3:/bucket/a.png")  # a folder of that name


@pytest.fixture
def memory() -> Iterator[StorePath]:
    """An empty folder in a store in memory."""
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    root = as_path("memory://root")
    assert isinstance(root, StorePath)
    yield root
    MemoryFileSystem.store.clear()


def put(path: Path, picture: Path) -> None:
    path.write_bytes(picture.read_bytes())


def test_files_of_a_store_are_read_and_written(memory: StorePath) -> None:
    path = memory / "folder" / "a.txt"
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        path.stat()
    path.write_bytes(b"one")
    version = path.version()
    assert (path.read_bytes(), path.read_text(), path.stat().st_size) == (b"one", "one", 3)
    with path.open("rb") as file:
        assert file.read() == b"one"
    with path.open(encoding="utf-8") as file:
        assert file.read() == "one"
    with pytest.raises(OSError, match="in one go"):
        path.open("ab")
    assert (path.is_file(), path.is_dir(), path.parent.is_dir(), is_folder(memory)) == (True, False, True, True)
    assert [each.name for each in memory.iterdir()] == ["folder"]
    assert {str(place): str(each) for place, each in memory.below().items()} == {"folder/a.txt": str(path)}
    path.write_bytes(b"other")
    assert path.version() != version
    path.unlink()
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.unlink()


def test_a_file_is_created_once(memory: StorePath) -> None:
    path = memory / "claim"
    assert path.create(b"mine")
    assert not path.create(b"theirs")
    assert path.read_bytes() == b"mine"
    assert [each.name for each in memory.iterdir()] == ["claim"]


def test_parts_of_a_file_are_read_where_they_are(memory: StorePath) -> None:
    (memory / "a").write_bytes(bytes(range(100)))
    with (memory / "a").parts_of() as file:
        assert file.seek(90) == 90
        assert file.read(5) == bytes(range(90, 95))
        assert file.seek(-2, io.SEEK_END) == 98
        assert file.read() == bytes((98, 99))
        assert file.read(1) == b""


# Pictures


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_a_picture_is_saved_into_a_store_and_loaded_from_it(memory: StorePath, name: str) -> None:
    made = Picture(waves(40, 60), record={"settings": {}, "content": None})
    made.save(str(memory / name))
    assert [each.name for each in memory.iterdir()] == [name]
    again = stylize.load(str(memory / name))
    assert again.size == (40, 60)
    assert again.origin == Origin(memory / name, stylize.digest(memory / name), (memory / name).version())
    assert stylize.read_record(memory / name) == made.record
    assert stylize.saved_state(memory / name) is stylize.Saved.INTACT


def test_only_the_beginning_of_a_picture_is_fetched_for_its_record(
    memory: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from fsspec.implementations.memory import MemoryFileSystem

    Picture(torch.rand(1, 3, 700, 700), record={"settings": {}}).save(memory / "a.png")
    fetched = []
    real = MemoryFileSystem.cat_file

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        data = real(self, *arguments, **options)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    assert stylize.read_record(memory / "a.png")
    assert (memory / "a.png").stat().st_size > 2**20
    assert sum(fetched) < 2**19 + 100


def test_paths_in_records_lead_back_to_what_was_used(memory: StorePath, pictures: tuple[Path, Path]) -> None:
    photo, style = pictures
    put(memory / "photos" / "a.png", photo)
    stylizer = stylize.Stylizer(str(style), encoder="mini", size=16, steps=(1,), device="cpu")
    made = stylizer(str(memory / "photos" / "a.png"))
    made.save(memory / "out" / "a.png")
    made.save(photo.with_name("out.png"))
    stored, kept = (stylize.read_record(each) or {} for each in (memory / "out" / "a.png", photo.with_name("out.png")))
    assert stored["content"]["path"] == "../photos/a.png"
    assert stored["content"]["version"] == (memory / "photos" / "a.png").version()
    assert stored["styles"][0]["path"] == "starry.png"  # where it lies is nobody else's business
    assert (kept["content"]["path"], kept["styles"][0]["path"]) == ("memory://root/photos/a.png", "starry.png")


def test_what_is_not_there_is_one_clear_line(memory: StorePath) -> None:
    with pytest.raises(ImageError, match=r"cannot read memory://root/a\.png: No such file or directory"):
        stylize.load("memory://root/a.png")
    with pytest.raises(ImageError, match="unknown extension"):
        stylize.check_target(memory / "a.xyz")


def test_a_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(SettingsError, match=r"s3:// needs a package .*pip install 'stylize-host\[stores\]'"):
        as_path("s3://bucket/a.png").read_bytes()


# Jobs


@pytest.fixture
def stored(memory: StorePath, folder: Path) -> StorePath:
    """A folder of four photos in a store, and a style on this machine."""
    small_photos(folder)
    for photo in (folder / "photos").iterdir():
        put(memory / "photos" / photo.name, photo)
    return memory


def names(folder: StorePath) -> set[str]:
    return {place.as_posix() for place in folder.below()}


@pytest.mark.slow
def test_a_picture_from_a_store_into_a_store(stored: StorePath, call: Call, folder: Path) -> None:
    put(stored / "style.png", folder / "style.png")
    done = call("memory://root/photos/0.png", "memory://root/style.png", "-o", "memory://root/new/one.png", *FAST)
    assert done.code == 0, done.err
    assert "memory://root/new/one.png" in done.err + done.out
    done = call(folder / "photos" / "0.png", "style.png", "-o", "one.png", *FAST)
    assert (stylize.load("one.png").rgb == stylize.load(stored / "new" / "one.png").rgb).all()
    assert names(stored / "new") == {"one.png"}


@pytest.mark.slow
def test_a_folder_from_a_store_into_a_store_and_again_for_nothing(
    stored: StorePath, call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("memory://root/photos/", "style.png", "-o", "memory://root/out/", *FAST)
    done = call(*command)
    assert done.code == 0, done.err
    assert "4 painted" in done.err
    assert names(stored / "out") == {"0.png", "1.png", "2.png", "3.png"}  # no claims, nothing unfinished
    call("photos", "style.png", "-o", "out", *FAST)
    for name in names(stored / "out"):
        assert (stylize.load(stored / "out" / name).rgb == stylize.load(folder / "out" / name).rgb).all()
    fetched = []
    monkeypatch.setattr(StorePath, "open", lambda self, *_: fetched.append(self))  # whole files
    assert "4 unchanged" in call(*command).err
    assert fetched == []


@pytest.mark.slow
def test_a_photo_that_has_changed_is_painted_again(stored: StorePath, call: Call, folder: Path) -> None:
    command = ("memory://root/photos", "style.png", "-o", "memory://root/out", *FAST)
    call(*command)
    put(stored / "photos" / "0.png", folder / "photos" / "1.png")
    put(stored / "photos" / "2.png", folder / "photos" / "2.png")  # the same again
    put(stored / "photos" / "deep" / "new.png", folder / "photos" / "2.png")
    done = call(*command)
    assert "2 painted, 3 unchanged" in done.err
    assert "deep/new.png" in names(stored / "out")


@pytest.mark.slow
def test_a_replay_fetches_nothing_that_a_record_names(stored: StorePath, call: Call, folder: Path) -> None:
    call("memory://root/photos/0.png", "style.png", "-o", "one.png", *FAST)
    done = call("replay", "one.png")
    assert done.code == 1
    assert done.err == (
        "stylize: memory://root/photos/0.png, which one.png was made of, is in a store: copy it, and name its "
        "folder by --sources\n"
    )
    assert "the same picture" in call("replay", "one.png", "--sources", folder).err


@pytest.mark.slow
def test_between_disks_and_stores(stored: StorePath, call: Call, folder: Path) -> None:
    assert "4 painted" in call("memory://root/photos", "style.png", "-o", "out", "--format", "jpg", *FAST).err
    assert {path.name for path in (folder / "out").iterdir()} == {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}
    assert "4 painted" in call("photos", "style.png", "-o", "memory://root/from-disk", *FAST).err
    assert "4 unchanged" in call("photos", "style.png", "-o", "memory://root/from-disk", *FAST).err
    assert "1 painted" in call("memory://root/photos/[1]*", "style.png", "-o", "memory://root/part", *FAST).err


@pytest.mark.slow
def test_options_of_folders(stored: StorePath, call: Call, folder: Path) -> None:
    put(stored / "styles" / "a.png", folder / "style.png")
    put(stored / "styles" / "b.png", folder / "photos" / "0.png")
    put(stored / "masks" / "0.png", folder / "photos" / "0.png")
    options = ("--mask-folder", "memory://root/masks", "--sidecar", "--report", "page.html", "--exclude", "3*")
    command = ("memory://root/photos", "memory://root/styles", "-o", "memory://root/out", *options, *FAST)
    done = call(*command)
    assert done.code == 0, done.err
    assert names(stored / "out") == {"0-a.png", "0-a.png.json", "0-b.png", "0-b.png.json"}
    record = json.loads((stored / "out" / "0-a.png.json").read_text())
    assert record == stylize.read_record(stored / "out" / "0-a.png")
    page = (folder / "page.html").read_text()
    assert "memory://root/photos" in page
    assert not re.search("<a href=(?!.#)", page)  # no browser opens what is in a store
    assert "2 unchanged" in call(*command).err
    assert "2 painted" in call(*command, "--force").err
    assert names(stored / "out") == {"0-a.png", "0-a.png.json", "0-b.png", "0-b.png.json"}


def test_what_was_not_made_by_stylize_is_not_painted_over(stored: StorePath, call: Call, folder: Path) -> None:
    put(stored / "out" / "0.png", folder / "photos" / "0.png")
    done = call("memory://root/photos", "style.png", "-o", "memory://root/out", *FAST)
    assert "3 painted, 1 skipped" in done.err
    assert "memory://root/out/0.png is left as it is: there is a file without a record" in done.err


def test_what_cannot_be_is_refused(stored: StorePath, call: Call, folder: Path) -> None:
    (stored / "clip.mp4").write_bytes(b"clip")
    for command, said in {
        ("memory://root/clip.mp4", "style.png", "-o", "out.mp4"): "memory://root/clip.mp4 is in a store",
        ("memory://root/photos", "style.png", "-o", "out.mp4"): "memory://root/photos is in a store",
        ("photos", "style.png", "-o", "memory://root/out.mp4"): "memory://root/out.mp4 is in a store",
        ("memory://root/photos", "style.png", "-o", "memory://root/photos"): "is the folder of the photos",
        ("memory://root/photos", "style.png", "-o", "out", "--watch"): "--watch looks at folders of this machine",
    }.items():
        done = call(*command, *FAST)
        assert done.code == 2, done.err
        assert said in done.err
        assert len(done.err.splitlines()) == 1
    done = call("memory://root/nothing", "style.png", "-o", "out", *FAST)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert done.err.startswith("stylize: cannot read memory://root/nothing: No such file")


# Claims


def test_claims_in_a_store_are_held_against_others(memory: StorePath) -> None:
    one, other = Claims(memory / "claims", refresh=QUICK), Claims(memory / "claims", refresh=QUICK)
    one.tell(total=2)
    assert one.take("a")
    assert not other.take("a")
    assert other.take("b")
    one.note_done("a")
    assert other.is_done("a")
    assert not other.is_done("b")
    other.watch_done()
    one.note_done("c", "so", at_once=False)
    other.look_done()
    assert not other.is_known_done("c", "otherwise")
    wait_for(lambda: other.is_known_done("c", "so"))
    assert one.holds("a")
    one.release("a")
    assert other.take("a")
    one.close()
    other.close()
    assert names(memory) == set()


def test_claims_in_a_store_that_are_not_refreshed_are_taken_over_by_one(memory: StorePath) -> None:
    Claims(memory / "claims", refresh=3600).take("a")
    (claim,) = (memory / "claims").iterdir()
    text = claim.read_text()
    claim.write_bytes(text.replace(text.split('"')[3], "elsewhere").encode())
    runs = [Claims(memory / "claims", refresh=0.01) for _ in range(4)]
    got = list[Claims]()

    def taken() -> list[Claims]:
        got.extend(run for run in runs if run.take("a"))
        return got

    wait_for(taken)
    assert len(got) == 1
    for run in runs:
        run.close()
    assert names(memory) == set()


def test_a_store_without_conditional_writes_is_for_one_run(
    memory: StorePath, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stylize.stores.EXCLUSIVE", set())
    monkeypatch.setattr("stylize.stores._creates_exclusively", stylize.stores._creates_exclusively.__wrapped__)
    claims = Claims(memory / "claims")
    assert all(claims.take(key) for key in ("a", "b", "c"))
    assert claims.holds("a")
    claims.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        "no claims in memory://root/claims (the store has no conditional writes): other runs may paint the same"
    )


def test_a_claim_whose_answer_was_lost_is_held(memory: StorePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylize.stores._creates_exclusively", stylize.stores._creates_exclusively.__wrapped__)
    from fsspec.implementations.memory import MemoryFileSystem

    pipe = MemoryFileSystem.pipe_file

    def twice(self: Any, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        pipe(self, path, value, mode=mode, **options)
        if mode == "create":
            pipe(self, path, value, mode=mode, **options)  # by a library that has waited for an answer in vain

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", twice)
    one, other = Claims(memory / "claims"), Claims(memory / "claims")
    assert one.take("a")
    assert not other.take("a")
    assert other.take("b")
    for claims in (one, other):
        claims.close()
    assert names(memory) == set()


def test_status_of_a_folder_in_a_store(memory: StorePath, call: Call) -> None:
    claims = Claims(memory / "out" / ".stylize-claims")
    claims.tell(total=3, before=1)
    claims.take("2.png")
    said = call("status", "memory://root/out").out
    assert said.startswith("memory://root/out: 1 of 3 pictures done; 1 process at work\n")
    claims.close()
    assert call("status", "memory://root/none").code == 1


# S3


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    for name in ("werkzeug", "botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StorePath:
    """An empty bucket, and the environment to reach it."""
    import boto3

    environment = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",  # of a server that takes any
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name = f"test-{secrets.token_hex(8)}"
    boto3.client("s3").create_bucket(Bucket=name)
    made = as_path(f"s3://{name}")
    assert isinstance(made, StorePath)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    return made


@pytest.mark.slow
def test_files_of_a_bucket(bucket: StorePath) -> None:
    path = bucket / "a" / "b.txt"
    assert (bucket.is_dir(), path.parent.is_dir(), path.exists()) == (True, False, False)
    assert path.create(b"mine")
    assert not path.create(b"theirs")
    (listed,) = path.parent.iterdir()
    assert listed.version() == path.version()
    assert path.parts_of().read(2) == b"mi"
    path.write_bytes(b"more")
    assert path.version() != listed.version()
    assert list(bucket.below()) == [Path("a/b.txt")]
    assert not (bucket / "none").exists()


@pytest.mark.slow
def test_a_folder_of_a_bucket_is_painted_once(bucket: StorePath, call: Call, folder: Path) -> None:
    small_photos(folder)
    for number in range(2):
        put(bucket / "photos" / "deep" / f"{number}.png", folder / "photos" / f"{number}.png")
    command = (f"{bucket}/photos/", "style.png", "-o", f"{bucket}/out/", *FAST)
    assert "2 painted" in call(*command).err
    assert names(bucket / "out") == {"deep/0.png", "deep/1.png"}
    (bucket / "out" / "deep" / "1.png").unlink()
    assert "1 painted, 1 unchanged" in call(*command).err


@pytest.mark.slow
def test_runs_share_a_bucket(bucket: StorePath) -> None:
    runs = [Claims(bucket / "claims", refresh=QUICK) for _ in range(3)]
    assert len(takers_at_once(runs)) == 1
    for run in runs:
        run.close()
    assert names(bucket) == set()


@pytest.mark.slow
def test_what_is_wrong_with_a_bucket_is_one_clear_line(
    bucket: StorePath, call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    small_photos(folder)

    def said(*command: object) -> str:
        done = call(*command, *FAST)
        assert done.code == 1, done.err
        assert len(done.err.splitlines()) == 1, done.err
        return done.err

    missing = "s3://no-such-bucket"
    assert "there is no bucket no-such-bucket" in said(f"{missing}/a.png", "style.png", "-o", "a.png")
    assert "there is no bucket no-such-bucket" in said("photos", "style.png", "-o", f"{missing}/out")
    assert "there is no bucket no-such-bucket" in said("photos/0.png", "style.png", "-o", f"{missing}/out.png")
    assert "No such file" in said(f"{bucket}/a.png", "style.png", "-o", "a.png")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no valid credentials" in said("photos", "style.png", "-o", f"{bucket}/out")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    assert "the store cannot be reached" in said("photos", "style.png", "-o", f"{bucket}/out")
