"""The weights of VGG-19 and VGG-16, convolutions only: found, fetched, checked, loaded.

They are looked for in this order; the first place that is given or has a file is used:

1. ``--weights FILE`` (``explicit`` here),
2. ``STYLIZE_WEIGHTS``: a file, or a folder that holds ``<name>-features.safetensors``,
3. the user's cache folder, or ``STYLIZE_CACHE`` instead,
4. torchvision's download, or the mirror named by ``STYLIZE_WEIGHTS_URL``, which then fills the cache.

Torch and torchvision are imported inside functions: finding weights needs neither.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import platformdirs

from stylize.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# The width of each 3x3 convolution, None for a pooling (Simonyan, Zisserman 2014, table 1, D and E).
ARCHITECTURES: Mapping[str, tuple[int | None, ...]] = {
    "vgg16": (64, 64, None, 128, 128, None, *(256,) * 3, None, *(512,) * 3, None, *(512,) * 3, None),
    "vgg19": (64, 64, None, 128, 128, None, *(256,) * 4, None, *(512,) * 4, None, *(512,) * 4, None),
}
DOWNLOAD_SIZES = {"vgg16": "528 MB", "vgg19": "548 MB"}  # of torchvision's files, classifier included
ADVICE = "set STYLIZE_WEIGHTS or use --weights FILE, or run `stylize weights fetch` with network"
TIMEOUT = 30.0  # seconds to connect, and to wait for the next bytes
PAUSES = (0.5, 2.0)  # seconds before the second and the third try
CHUNK = 1 << 18  # bytes between reports of progress

Progress = Callable[[int, "int | None"], None]  # (bytes done, bytes in all if the server says)


@dataclass(frozen=True)
class Found:
    """Where the weights of an encoder are; ``path`` is None when they must be downloaded first."""

    name: str
    path: Path | None
    origin: str  # "--weights", "STYLIZE_WEIGHTS", "cache" or "download"


class _TransferError(WeightsError):
    """The transfer was interrupted; another try may resume it."""


class _UnknownServerError(_TransferError):
    """The server's name cannot be resolved, probably for lack of network: not tried again."""


def expected(name: str) -> dict[str, tuple[int, ...]]:
    """Torchvision's key and shape of every weight and bias, from the first convolution to the deepest."""
    if name not in ARCHITECTURES:
        raise WeightsError(f"no weights are known for {name!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    shapes: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for width in ARCHITECTURES[name]:
        if width is None:
            index += 1
            continue
        shapes[f"features.{index}.weight"] = (width, channels, 3, 3)
        shapes[f"features.{index}.bias"] = (width,)
        index, channels = index + 2, width  # the ReLU has an index of its own
    return shapes


def cache_file(name: str) -> Path:
    """Where :func:`fetch` leaves the weights, whether they are there or not."""
    folder = os.environ.get("STYLIZE_CACHE") or platformdirs.user_cache_dir("stylize")
    return Path(folder) / f"{name}-features.safetensors"


def find(name: str, explicit: str | Path | None = None) -> Found:
    """Where the weights are, without opening them and without network.

    Raises:
        WeightsError: the name is unknown, or a path was given, by option or environment, that is not there.
    """
    expected(name)
    given = os.environ.get("STYLIZE_WEIGHTS") or None
    for origin, place in (("--weights", explicit), ("STYLIZE_WEIGHTS", given), ("cache", cache_file(name))):
        if place is None:
            continue
        path = Path(place)
        try:
            if path.is_dir():
                path /= f"{name}-features.safetensors"
            path.stat()
            return Found(name, path, origin)
        except (OSError, ValueError) as error:  # ValueError: a null character
            if origin != "cache":
                raise WeightsError(f"{origin} {path}: {_reason(error)}") from error
    return Found(name, None, "download")


def load(
    name: str, explicit: str | Path | None = None, *, progress: Progress | None = None
) -> tuple[dict[str, Tensor], Found]:
    """The weights of an encoder, downloaded if they are nowhere, and where they came from.

    Raises:
        WeightsError: they cannot be found, fetched or read.
    """
    found = find(name, explicit)
    path = found.path or fetch(name, progress=progress)
    try:
        return read(path, name), Found(name, path, found.origin)
    except WeightsError as error:
        if found.origin != "cache":
            raise
        raise WeightsError(f"{error}; replace it with `stylize weights fetch --force`") from error


def read(path: str | Path, name: str) -> dict[str, Tensor]:
    """The convolutions of a safetensors file or a torch state dict, told apart by content, as float32 on the CPU.

    The deepest convolutions may be missing, as in a file cut for an encoder that ends early; other keys are ignored.

    Raises:
        WeightsError: the file is not readable, or not what ``name`` needs; the message says which.
    """
    try:
        return _checked(_open(Path(path)), name)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same weights give the same whatever file they came from."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _open(path: Path) -> Mapping[Any, Any]:
    """Whatever mapping the file holds; the messages leave the path to the caller."""
    try:
        if path.exists() and not path.is_file():
            raise WeightsError("is a folder, not a file" if path.is_dir() else "is not a regular file")
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"cannot be read: {_reason(error)}") from error
    if not head:
        raise WeightsError("empty file")
    if head[8:] == b"{":
        return _open_safetensors(path)
    if head.startswith((b"PK\3\4", b"\x80")):
        return _open_torch(path, mapped=head.startswith(b"PK"))
    raise WeightsError("not a safetensors or torch file")


def _open_safetensors(path: Path) -> Mapping[Any, Any]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except ImportError:
        raise
    except Exception as error:  # its own class, OSError, and torch's for types it does not have
        size, whole = path.stat().st_size, _announced_size(path)
        if size < whole:
            raise WeightsError(f"truncated: {size} of {whole} bytes") from error
        raise WeightsError(f"damaged safetensors file ({_reason(error)})") from error


def _announced_size(path: Path) -> int:
    """How many bytes a safetensors file should have, as far as its header tells; 0 if that is no header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:  # the format's own limit
            return 0
        ends = re.findall(rb'"data_offsets":\s*\[\s*\d+\s*,\s*(\d{1,18})', file.read(length))
    return 8 + length + max(map(int, ends), default=0)


def _open_torch(path: Path, *, mapped: bool) -> Mapping[Any, Any]:
    import torch

    try:
        with warnings.catch_warnings():  # torch's about what is refused here, or read right
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle can raise anything
        code = re.search(r"unsupported global:?(?: global)? ([\w.]+)", str(error), re.IGNORECASE)
        if code:
            raise WeightsError(f"refused: it holds Python objects or code ({code[1]}), not only tensors") from error
        raise WeightsError("truncated or damaged torch file, or not a state dict") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"holds a {type(content).__name__}, not a state dict")
    return content


def _checked(content: Mapping[Any, Any], name: str) -> dict[str, Tensor]:
    """Float32 copies of the expected tensors, in order of depth.

    Copies, because the tensors of a mapped file would take the process down if the file were overwritten under it.
    """
    import torch

    tensors = {
        key: value.detach()
        for key, value in content.items()
        if isinstance(value, torch.Tensor) and str(key).startswith("features.")
    }
    difference = _difference({key: tuple(tensor.shape) for key, tensor in tensors.items()}, name)
    if difference:
        raise WeightsError(difference)
    weights = {}
    for key in islice(expected(name), len(tensors)):
        tensor = tensors[key]
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            raise WeightsError(f"{key} does not hold plain floating-point numbers")
        weights[key] = torch.empty(tensor.shape, dtype=torch.float32).copy_(tensor)
        if not torch.isfinite(weights[key]).all():
            raise WeightsError(f"{key} contains NaN or infinity")
    return weights


def _difference(shapes: Mapping[str, tuple[int, ...]], name: str) -> str | None:
    """Why tensors of these shapes cannot be the weights of ``name``; None if they can."""
    wanted = expected(name)
    fits = [known for known in ARCHITECTURES if shapes == dict(islice(expected(known).items(), len(shapes)))]
    if not shapes:
        return "holds no VGG convolutions (features.N.weight, features.N.bias)"
    if any(key.endswith("running_mean") for key in shapes):
        return f"holds a VGG with batch normalisation, not {name}"
    if fits and name not in fits:
        return f"holds weights of {fits[0]}, not {name}"
    if fits and len(shapes) % 2 == 0:  # every weight has its bias
        return None
    for key, shape in wanted.items():
        if key not in shapes:
            return f"{key} is missing"
        if shapes[key] != shape:
            return f"{key} is {shapes[key]}, {name} needs {shape}"
    return f"{next(key for key in shapes if key not in wanted)!r} is not part of {name}"


def url(name: str, source: str | None = None) -> str:
    """Where the weights are downloaded from: ``source``, else ``STYLIZE_WEIGHTS_URL``, else torchvision's address.

    A source that ends in a slash is a mirror's folder, to which torchvision's file name is appended.
    """
    expected(name)
    base = source or os.environ.get("STYLIZE_WEIGHTS_URL") or ""
    if base and not re.match("https?://", base):
        raise WeightsError(f"{base}: not an http or https address")
    if base and not base.endswith("/"):
        return base
    original = _address(name)
    return base + original.rsplit("/", 1)[1] if base else original


def _address(name: str) -> str:
    """The address in torchvision's source, which is read instead of imported: importing it takes seconds and loads
    triton, whose LLVM crashes processes in which Mesa, with an LLVM of its own, draws windows."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        raise WeightsError(f"torchvision, which knows the address of {name}, is not installed")
    source = Path(package.origin).parent / "models" / "vgg.py"
    text = source.read_text(encoding="utf-8") if source.is_file() else ""
    found = re.search(rf'"(https://[^"]+/{name}-[0-9a-f]{{8}}\.pth)"', text)
    if found is None:
        raise WeightsError(f"{source} does not name the address of {name}; {ADVICE}")
    return found[1]


def fetch(name: str, *, source: str | None = None, force: bool = False, progress: Progress | None = None) -> Path:
    """Download weights into the cache, unless they are there, and keep the convolutions as float32 safetensors.

    A transfer that broke off is taken up where it ended, in this call or a later one. Processes that start
    together download once: the others wait. ``force`` downloads even if the file is there.

    Raises:
        WeightsError: no network, a wrong file, a full disk...; the message says what to do instead.
    """
    expected(name)
    from filelock import FileLock

    target = cache_file(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if force or not target.exists():
                _fetch(name, url(name, source), target, progress)
    except OSError as error:
        raise WeightsError(f"cannot write {error.filename or target}: {_reason(error)}; {ADVICE}") from error
    return target


def _fetch(name: str, address: str, target: Path, progress: Progress | None) -> None:
    from safetensors.torch import save

    shown = re.split("[?#]", address)[0]  # a query may hold a key
    part = target.with_name(f"{name}-{hashlib.sha256(shown.encode()).hexdigest()[:8]}.part")
    promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", shown)  # torchvision's names end in the start of their SHA-256
    if not promised:
        part.unlink(missing_ok=True)  # there would be no way to tell whether old and new bytes belong together
    try:
        _download(address, part, progress)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if promised and not digest.startswith(promised[1]):
            raise WeightsError(f"its SHA-256 begins with {digest[:8]}, not {promised[1]}; deleted, try again")
        weights = _checked(_open(part), name)
    except WeightsError as error:
        if not isinstance(error, _TransferError):
            part.unlink(missing_ok=True)
        raise WeightsError(f"cannot get the {name} weights from {shown}: {error}; {ADVICE}") from error
    unfinished = target.with_suffix(".tmp")
    unfinished.write_bytes(save(weights, {"origin": shown, "sha256": digest, "architecture": name}))
    unfinished.replace(target)
    for old in target.parent.glob(f"{name}-*.part"):
        old.unlink()


def _download(address: str, part: Path, progress: Progress | None) -> None:
    best = -1

    def report(done: int, total: int | None) -> None:
        nonlocal best
        if progress and done > best:  # never back, as it would go when a server starts over
            best = done
            progress(done, total)

    for pause in PAUSES:
        try:
            return _transfer(address, part, report)
        except _UnknownServerError:
            raise
        except _TransferError:
            time.sleep(pause)
    return _transfer(address, part, report)


def _transfer(address: str, part: Path, report: Progress) -> None:
    """One request: for what ``part`` lacks, or for everything if the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    response = _request(address, part, have)
    if response is None:
        return
    with response:
        resumed = response.status == 206
        if resumed and not (response.headers["Content-Range"] or "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _TransferError("the server resumed at the wrong place")
        done = have if resumed else 0
        total = None if response.length is None else done + response.length
        with part.open("ab" if resumed else "wb") as file:
            report(done, total)
            while chunk := _receive(response):
                file.write(chunk)
                done += len(chunk)
                report(done, total)
    if total is not None and done < total:
        raise _TransferError(f"connection lost after {done} of {total} bytes")


def _request(address: str, part: Path, have: int) -> HTTPResponse | None:
    """The answer to a request for everything after ``have`` bytes; None if the server says there is no more."""
    headers = {"User-Agent": "stylize", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = Request(address, headers=headers)  # noqa: S310 (url() lets only http and https pass)
        response: HTTPResponse = urlopen(request, timeout=TIMEOUT)  # noqa: S310
        return response
    except HTTPError as error:
        error.close()
        if error.code == 416 and error.headers["Content-Range"] == f"bytes */{have}":
            return None
        if error.code == 416:
            part.unlink()
        again = error.code >= 500 or error.code in (408, 416, 429)
        raise (_TransferError if again else WeightsError)(f"HTTP {error.code} {_reason(error)}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: letters no address can hold
        cause = getattr(error, "reason", None)
        unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
        raise (_UnknownServerError if unknown else _TransferError)(_reason(error)) from error


def _receive(response: HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, HTTPException) as error:  # told apart here from those of writing, which are the disk's
        raise _TransferError(_reason(error)) from error


def _reason(error: object) -> str:
    """The essential message of an exception, on one line."""
    inner = getattr(error, "reason", None) or error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(str(text).split())
