"""The weights: where they are looked for, what is refused, and the download against a server of our own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from stylize.encoders import weights
from stylize.errors import WeightsError
from tests import preloaded
from tests.conftest import PATIENCE

TINY = {"tiny": (4, None, 6, 6), "other": (4, 8)}
REAL = Path(__file__).resolve().parents[2] / "shared" / "weights" / "vgg19-features.safetensors"


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two tiny architectures, no user's cache, no proxy and no long pauses."""
    with pytest.MonkeyPatch.context() as patch:
        for name, widths in TINY.items():
            patch.setitem(weights.ARCHITECTURES, name, widths)
        for variable in ("STYLIZE_WEIGHTS", "STYLIZE_WEIGHTS_URL"):
            patch.delenv(variable, raising=False)
        patch.setenv("STYLIZE_CACHE", str(tmp_path_factory.mktemp("nowhere")))
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setattr(weights, "PAUSES", (0.01, 0.02))
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLIZE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tensors(name: str = "tiny") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) for key, shape in weights.expected(name).items()}


def pth(content: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


# Architectures


@pytest.mark.parametrize("use", ["", "weights.url('vgg19')"], ids=["imported", "asked for an address"])
def test_it_needs_no_torch(use: str) -> None:
    code = f"import sys; from stylize.encoders import weights; {use}\nprint(*sys.modules)"
    package = Path(weights.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    loaded = set(done.stdout.split())
    assert "stylize.encoders.weights" in loaded
    assert not {"torch", "torchvision", "triton", "safetensors", "filelock", "numpy"} & loaded


def test_expected_follows_the_architecture() -> None:
    vgg19, vgg16 = weights.expected("vgg19"), weights.expected("vgg16")
    assert len(vgg19) == 32
    assert len(vgg16) == 26
    assert vgg19["features.0.weight"] == (64, 3, 3, 3)
    assert vgg19["features.5.weight"] == (128, 64, 3, 3)
    assert list(vgg19.items())[-1] == ("features.34.bias", (512,))
    assert list(vgg16.items())[-2] == ("features.28.weight", (512, 512, 3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_expected_and_address_agree_with_torchvision(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        features = models.get_model(name, weights=None, init_weights=False).features
    assert weights.expected(name) == {f"features.{key}": tuple(v.shape) for key, v in features.state_dict().items()}
    address = models.get_model_weights(name).IMAGENET1K_V1.url
    assert weights.url(name) == address
    assert weights.url(name, "http://mirror/models/") == "http://mirror/models/" + address.rsplit("/", 1)[1]


def test_a_torchvision_without_the_address_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision" / "models").mkdir(parents=True)
    (tmp_path / "torchvision" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in ("no such file", "another one"):
        with pytest.raises(WeightsError, match=r"vgg\.py does not name the address of vgg19"):
            weights.url("vgg19")
        (tmp_path / "torchvision" / "models" / "vgg.py").write_text('url="https://host/vgg19_bn-c79401a0.pth"')


def test_the_source_of_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLIZE_WEIGHTS_URL", "http://mirror/exactly.pth")
    assert weights.url("vgg19") == "http://mirror/exactly.pth"
    assert weights.url("vgg19", "http://mirror/this.pth") == "http://mirror/this.pth"
    with pytest.raises(WeightsError, match="not an http or https address"):
        weights.url("vgg19", "file:///etc/passwd")
    with pytest.raises(WeightsError, match="no weights are known for 'vgg20'; known: other, tiny, vgg16, vgg19"):
        weights.url("vgg20")


# Finding


def test_order_of_search(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.find("tiny") == weights.Found("tiny", None, "download")
    cached = weights.cache_file("tiny")
    assert cached == cache / "tiny-features.safetensors"
    cache.mkdir()
    cached.touch()
    assert weights.find("tiny") == weights.Found("tiny", cached, "cache")

    file = tmp_path / "some.pth"
    file.touch()
    monkeypatch.setenv("STYLIZE_WEIGHTS", str(file))
    assert weights.find("tiny") == weights.Found("tiny", file, "STYLIZE_WEIGHTS")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tiny-features.safetensors").touch()
    monkeypatch.setenv("STYLIZE_WEIGHTS", str(folder))
    assert weights.find("tiny") == weights.Found("tiny", folder / "tiny-features.safetensors", "STYLIZE_WEIGHTS")
    assert weights.find("tiny", file) == weights.Found("tiny", file, "--weights")
    monkeypatch.setenv("STYLIZE_WEIGHTS", "")
    assert weights.find("tiny").origin == "cache"


def test_a_path_that_is_given_must_be_there(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    weights.cache_file("tiny").touch()
    with pytest.raises(WeightsError, match=r"^--weights .*none\.pth: No such file or directory$"):
        weights.find("tiny", tmp_path / "none.pth")
    monkeypatch.setenv("STYLIZE_WEIGHTS", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"^STYLIZE_WEIGHTS .*tiny-features\.safetensors: No such file or directory$"
    ):
        weights.find("tiny")
    with pytest.raises(WeightsError, match="no weights are known for 'huge'"):
        weights.find("huge")


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("STYLIZE_CACHE")
    assert weights.cache_file("vgg19") == Path(platformdirs.user_cache_dir("stylize"), "vgg19-features.safetensors")


# Reading


@pytest.mark.parametrize(
    "encode",
    [save, pth, lambda content: pth(content, _use_new_zipfile_serialization=False)],
    ids=["safetensors", "zip", "pickle"],
)
def test_read_every_format_whatever_its_name(tmp_path: Path, encode: Any) -> None:
    expected = tensors()
    path = tmp_path / "weights.jpg"
    path.write_bytes(encode({"classifier.0.weight": torch.zeros(3), **expected}))
    found = weights.read(path, "tiny")
    assert same(found, expected)
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in found.values())
    path.write_bytes(bytes(path.stat().st_size))  # what was read does not lie in the file any more
    assert same(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_read_gives_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {key: tensor.to(dtype) for key, tensor in tensors().items()}
    (tmp_path / "w").write_bytes(save(stored))
    assert same(weights.read(tmp_path / "w", "tiny"), {key: tensor.float() for key, tensor in stored.items()})


def test_read_takes_parameters_and_odd_strides(tmp_path: Path) -> None:
    stored = {
        key: torch.nn.Parameter(v.to(memory_format=torch.channels_last) if v.ndim == 4 else v)
        for key, v in tensors().items()
    }
    (tmp_path / "w").write_bytes(pth(stored))
    found = weights.read(tmp_path / "w", "tiny")
    assert same(found, tensors())
    assert not any(tensor.requires_grad for tensor in found.values())
    assert all(tensor.is_contiguous() for tensor in found.values())


def test_the_deepest_convolutions_may_be_missing(tmp_path: Path) -> None:
    cut = dict(list(tensors().items())[:4])
    (tmp_path / "w").write_bytes(save(cut))
    assert same(weights.read(tmp_path / "w", "tiny"), cut)


def without(*keys: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors().items() if key not in keys}


def changed(key: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**tensors(), key: tensor}


WRONG: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "not a safetensors or torch file": lambda: b"GIF89a, a picture",
    "truncated: 700 of 3120 bytes": lambda: save(tensors())[:700],
    "truncated or damaged torch file": lambda: pth(tensors())[:3000],
    "damaged safetensors file": lambda: (20).to_bytes(8, "little") + b'{"a": nonsense     }',
    "holds a list, not a state dict": lambda: pth([torch.zeros(3)]),
    "holds no VGG convolutions": lambda: save({"0.weight": torch.zeros(3)}),
    "holds weights of other, not tiny": lambda: save(tensors("other")),
    "features.3.weight is (6, 5, 3, 3), tiny needs (6, 4, 3, 3)": lambda: save(
        changed("features.3.weight", torch.zeros(6, 5, 3, 3))
    ),
    "features.3.bias is missing": lambda: save(without("features.3.bias")),
    "features.5.bias is missing": lambda: save(without("features.5.bias")),
    "'features.9.weight' is not part of tiny": lambda: save(changed("features.9.weight", torch.zeros(1))),
    "batch normalisation, not tiny": lambda: save(
        {**tensors(), "features.1.running_mean": torch.zeros(4), "features.1.num_batches_tracked": torch.tensor(0)}
    ),
    "features.0.bias contains NaN": lambda: save(changed("features.0.bias", torch.full((4,), torch.nan))),
    "features.3.bias contains NaN or infinity": lambda: save(
        changed("features.3.bias", torch.full((6,), 1e300, dtype=torch.float64))
    ),
    "features.5.bias does not hold plain floating-point": lambda: save(
        changed("features.5.bias", torch.zeros(6, dtype=torch.int8))
    ),
    "features.0.bias does not hold plain floating-point": lambda: pth(
        changed("features.0.bias", torch.zeros(4).to_sparse())
    ),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_file_is_named_and_explained(tmp_path: Path, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(WRONG[message]())
    with pytest.raises(WeightsError) as raised:
        weights.read(path, "tiny")
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a folder, not a file$"):
        weights.read(tmp_path, "tiny")
    with pytest.raises(WeightsError, match="none: cannot be read: No such file"):
        weights.read(tmp_path / "none", "tiny")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match=r"is not a regular file$"):
            weights.read(tmp_path / "pipe", "tiny")


class Code:
    """Makes a marker folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["zip", "pickle", "bare"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "w.pth", tmp_path / "marker"
    content = {**tensors(), "extra": Code(marker)}
    if how == "bare":
        path.write_bytes(pickle.dumps(Code(marker), protocol=2))
    else:
        path.write_bytes(pth(content, _use_new_zipfile_serialization=how == "zip"))
    with pytest.raises(WeightsError, match=r"w\.pth: refused: .* \(\w+\.mkdir\), not only tensors$") as raised:
        weights.read(path, "tiny")
    assert "\n" not in str(raised.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Code(marker)))
    assert marker.exists()  # the trap itself works


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_but_the_error_is_said_of_a_bare_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"features.0.weight": [1]}, protocol=protocol))
    with warnings.catch_warnings(record=True) as said, pytest.raises(WeightsError):
        weights.read(path, "tiny")
    assert not said


def test_a_whole_encoder_in_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pth(torch.nn.Sequential(torch.nn.ReLU())))
    with pytest.raises(WeightsError, match=r"refused: .* \(torch\.nn\.modules\.container\.Sequential\)"):
        weights.read(tmp_path / "w.pth", "tiny")


def refusal(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    try:
        weights.read(path, "tiny")
    except WeightsError as error:
        return str(error)
    return None


def one_line(path: Path, message: str | None) -> bool:
    return message is not None and message.startswith(f"{path}: ") and "\n" not in message


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "w"


@settings(max_examples=60)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(scratch: Path, fraction: float) -> None:
    for whole in (save(tensors()), pth(tensors()), pth(tensors(), _use_new_zipfile_serialization=False)):
        assert one_line(scratch, refusal(scratch, whole[: int(len(whole) * fraction)]))


@settings(max_examples=100)
@given(body=st.binary(max_size=300), head=st.sampled_from([b"", b"PK\3\4", b"\x80\2", b"\x40" + bytes(7) + b"{"]))
def test_random_bytes(scratch: Path, head: bytes, body: bytes) -> None:
    assert one_line(scratch, refusal(scratch, head + body))


@pytest.mark.slow
@settings(max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_flipped_byte_is_read_or_refused(scratch: Path, where: float, value: int) -> None:
    for whole in (save(tensors()), pth(tensors()), pth(tensors(), _use_new_zipfile_serialization=False)):
        damaged = bytearray(whole)
        damaged[int(len(whole) * where)] = value
        message = refusal(scratch, bytes(damaged))
        assert message is None or one_line(scratch, message)


def test_fingerprint_is_of_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(save(tensors()))
    (tmp_path / "b").write_bytes(pth(dict(reversed(tensors().items()))))
    fingerprint = weights.fingerprint(weights.read(tmp_path / "a", "tiny"))
    assert len(fingerprint) == 64
    assert fingerprint == weights.fingerprint(weights.read(tmp_path / "b", "tiny"))
    assert fingerprint != weights.fingerprint(changed("features.0.bias", torch.zeros(4)))


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real weights are not there")
def test_the_real_file() -> None:
    found, where = weights.load("vgg19", REAL)
    assert where == weights.Found("vgg19", REAL, "--weights")
    assert list(found) == list(weights.expected("vgg19"))
    with pytest.raises(WeightsError, match="holds weights of vgg19, not vgg16"):
        weights.read(REAL, "vgg16")


# Fetching


class Server(ThreadingHTTPServer):
    """Serves one file; the attributes say how badly. ``ranges`` and ``sent`` record what was asked and given."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        self.ranges: list[str | None] = []
        self.sent = 0
        self.cuts: list[int] = []  # after how many bytes to hang up, one per request
        self.statuses: list[int] = []  # errors to answer with, one per request
        self.resumes = True
        self.says_length = True
        self.delay = 0.0  # seconds
        self.lies_about_start = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{self.name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.ranges.append(asked)
        time.sleep(server.delay)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.resumes else 0
        size = len(server.content)
        if server.statuses or start >= size:
            self.send_response(server.statuses.pop(0) if server.statuses else 416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + server.lies_about_start}-{size - 1}/{size}")
        if server.says_length:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        body = server.content[start:][: server.cuts.pop(0) if server.cuts else None]
        server.sent += len(body)  # before the client can have it
        with contextlib.suppress(ConnectionError):  # the client may have given up
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    padding = torch.arange(400_000, dtype=torch.float32)  # as the classifier pads the real one
    with Server(pth({**tensors(), "classifier.0.weight": padding})) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def fetch_fails(server: Server, message: str, source: str | None = None) -> None:
    with pytest.raises(WeightsError, match=message) as raised:
        weights.fetch("tiny", source=source or server.url)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith(weights.ADVICE)
    assert not weights.cache_file("tiny").exists()


def parts(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.part"))


def test_fetch_keeps_the_convolutions(server: Server, cache: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    path = weights.fetch("tiny", source=server.url, progress=lambda done, total: reports.append((done, total)))
    assert path == weights.cache_file("tiny")
    assert same(weights.read(path, "tiny"), tensors())
    with safe_open(path, framework="pt") as file:
        digest = hashlib.sha256(server.content).hexdigest()
        assert file.metadata() == {"origin": server.url, "sha256": digest, "architecture": "tiny"}
        assert set(file.keys()) == set(tensors())
    size = len(server.content)
    assert reports[0] == (0, size)
    assert reports[-1] == (size, size)
    assert len(reports) > 3
    assert {file.name for file in cache.iterdir()} <= {path.name, path.name + ".lock"}


def test_fetch_uses_the_cache_unless_forced(server: Server, cache: Path) -> None:
    weights.fetch("tiny", source=server.url)
    weights.fetch("tiny", source=server.url)
    assert len(server.ranges) == 1
    weights.cache_file("tiny").write_bytes(b"spoilt")
    weights.fetch("tiny", source=server.url, force=True)
    assert len(server.ranges) == 2
    assert same(weights.read(weights.cache_file("tiny"), "tiny"), tensors())


def test_load_fetches_what_is_nowhere(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLIZE_WEIGHTS_URL", server.url)
    found, where = weights.load("tiny")
    assert same(found, tensors())
    assert where == weights.Found("tiny", weights.cache_file("tiny"), "download")
    assert weights.load("tiny")[1].origin == "cache"
    weights.cache_file("tiny").write_bytes(b"spoilt")
    with pytest.raises(WeightsError, match=r"not a safetensors or torch file; .*`stylize weights fetch --force`$"):
        weights.load("tiny")
    assert len(server.ranges) == 1


def test_an_interrupted_transfer_is_resumed(server: Server, cache: Path) -> None:
    reports: list[int] = []
    size = len(server.content)
    server.cuts = [size // 2]
    weights.fetch("tiny", source=server.url, progress=lambda done, total: reports.append(done))
    assert server.ranges == [None, f"bytes={size // 2}-"]
    assert server.sent == size
    assert reports == sorted(set(reports))
    assert reports[-1] == size


def test_it_is_resumed_by_a_later_call(server: Server, cache: Path) -> None:
    size = len(server.content)
    server.cuts = [1000, 2000, 3000]
    fetch_fails(server, f"^cannot get the tiny weights from {server.url}: connection lost after 6000 of {size} bytes; ")
    assert [part.stat().st_size for part in parts(cache)] == [6000]
    weights.fetch("tiny", source=server.url)
    assert server.ranges == [None, "bytes=1000-", "bytes=3000-", "bytes=6000-"]
    assert server.sent == size
    assert parts(cache) == []


def test_a_part_that_is_already_whole(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_checked", interrupt)
        with pytest.raises(KeyboardInterrupt):
            weights.fetch("tiny", source=server.url)
    weights.fetch("tiny", source=server.url)
    assert server.ranges == [None, f"bytes={len(server.content)}-"]
    assert server.sent == len(server.content)


def test_a_part_longer_than_the_file_starts_over(server: Server, cache: Path) -> None:
    server.cuts = [1000, 0, 0]
    fetch_fails(server, "connection lost")
    parts(cache)[0].write_bytes(bytes(len(server.content) + 1))
    weights.fetch("tiny", source=server.url)
    assert server.ranges[-1] is None


def test_a_server_that_cannot_resume(server: Server, cache: Path) -> None:
    reports: list[int] = []
    server.resumes = False
    server.cuts = [700_000, 300_000]
    weights.fetch("tiny", source=server.url, progress=lambda done, total: reports.append(done))
    assert server.ranges == [None, "bytes=700000-", "bytes=300000-"]
    assert reports == sorted(set(reports))


def test_a_server_that_resumes_elsewhere(server: Server, cache: Path) -> None:
    server.lies_about_start = True
    server.cuts = [1000]
    weights.fetch("tiny", source=server.url)
    assert server.ranges == [None, "bytes=1000-", None]


def test_a_server_that_tells_no_length(server: Server, cache: Path) -> None:
    totals: set[int | None] = set()
    server.says_length = False
    weights.fetch("tiny", source=server.url, progress=lambda done, total: totals.add(total))
    assert totals == {None}
    server.cuts = [1000]
    weights.cache_file("tiny").unlink()
    fetch_fails(server, "its SHA-256 begins with")


def test_a_wrong_hash_is_deleted(server: Server, cache: Path) -> None:
    server.name = "tiny-0123abcd.pth"
    digest = hashlib.sha256(server.content).hexdigest()[:8]
    told = f"its SHA-256 begins with {digest}, not 0123abcd; deleted, try again; "
    fetch_fails(server, f"^cannot get the tiny weights from {server.url}: {told}")
    assert parts(cache) == []


def test_a_name_without_hash_is_never_resumed_later(server: Server, cache: Path) -> None:
    server.name = "features.safetensors?key=secret"
    server.content = save(tensors())
    server.cuts = [300, 300, 300]
    fetch_fails(server, "connection lost after 900 of 3120 bytes")
    path = weights.fetch("tiny", source=server.url)
    assert server.ranges[-1] is None
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["origin"].endswith("/features.safetensors")


def test_a_download_of_something_else(server: Server, cache: Path) -> None:
    server.name = "weights.pth"
    server.content = save(tensors("other"))
    fetch_fails(server, f"^cannot get the tiny weights from {server.url}: holds weights of other, not tiny; ")
    assert parts(cache) == []


def test_errors_of_the_server(server: Server, cache: Path) -> None:
    server.statuses = [404]
    fetch_fails(server, f"^cannot get the tiny weights from {server.url}: HTTP 404 Not Found; ")
    assert len(server.ranges) == 1  # asking again would not help
    server.statuses = [503, 429]
    weights.fetch("tiny", source=server.url)
    assert len(server.ranges) == 4


def test_a_name_nobody_knows_is_not_asked_for_again(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def urlopen(request: object, timeout: float) -> None:
        asked.append(request)
        raise URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    monkeypatch.setattr(weights, "urlopen", urlopen)
    fetch_fails(server, f"^cannot get the tiny weights from {server.url}: Name or service not known; ")
    assert len(asked) == 1


def test_no_server(server: Server, cache: Path) -> None:
    with Server(b"") as closed:
        pass
    fetch_fails(server, f"^cannot get the tiny weights from {closed.url}: Connection refused; ", source=closed.url)
    fetch_fails(server, "http://127.0.0.1:port/w.pth: ", source="http://127.0.0.1:port/w.pth")
    fetch_fails(server, "/grün.pth: ", source=server.url.replace(server.name, "grün.pth"))


@pytest.mark.slow
def test_a_server_that_falls_silent(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TIMEOUT", 0.1)
    server.delay = 0.3
    fetch_fails(server, "timed out")
    assert len(server.ranges) == 3


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLIZE_CACHE", str(tmp_path / "file" / "cache"))
    fetch_fails(server, "^cannot write .*file.*: Not a directory; ")
    assert server.ranges == []


def test_a_full_disk(server: Server, cache: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        fetch_fails(server, "^cannot write .*: File too large; ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert server.ranges == [None]  # the disk's failure is not the network's: no second try
    kept = parts(cache)[0].stat().st_size
    assert kept > 200_000
    weights.fetch("tiny", source=server.url)
    assert server.ranges == [None, f"bytes={kept}-"]


@pytest.mark.slow
def test_two_processes_download_once(server: Server, cache: Path, tmp_path: Path) -> None:
    server.delay = 1.0
    (tmp_path / "program.py").write_text(
        "from stylize.encoders import weights\n"
        f"weights.ARCHITECTURES.update({TINY!r})\n"
        f"print(weights.fetch('tiny', source={server.url!r}))"
    )
    command = [sys.executable, str(tmp_path / "program.py")]
    running = [preloaded.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[0].strip() for process in running]
    assert said == [str(weights.cache_file("tiny"))] * 2
    assert [process.returncode for process in running] == [0, 0]
    assert server.ranges == [None]
