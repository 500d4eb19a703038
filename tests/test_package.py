"""What is shipped, and who may import whom."""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import re
import subprocess
import sys
import tomllib
import typing
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import stylize
from stylize.encoders import mini
from stylize_web.pictures import PAINTINGS, PHOTOS
from tests.conftest import PATIENCE, ROOT, SAMPLES

# The rooms of the design, from the top down: a module imports from its own line and from those below.
FLOORS = (
    ("__main__",),
    ("cli",),
    (
        *(
            "host",
            "registry",
            "discovery",
            "plugin_options",
            "hookspecs",
            "display",
            "builtin",
            "options",
            "contracts",
            "executors",
            "processes",
            "jobs",
            "sequences",
        ),
        *("paper", "stylizer", "records", "testing", "iteration", "progress", "shortcuts", "estimate"),
    ),
    ("painting", "prepared", "schedules"),
    ("terms", "objective", "regions"),
    ("features",),
    ("reports",),
    ("graphs", "memory", "observing", "pyramid"),
    ("optimizer", "tiles", "grain", "holding", "margins", "matching", "palette", "cost"),
    ("encoders", "losses", "colors", "images", "arrays", "claims", "masks"),
    ("devices", "gradients"),
    ("allocator", "linalg", "streams", "forms", "runfiles"),
    ("cuda",),
    ("kernels",),
    ("settings", "errors", "checks", "forks", "machines", "page", "stores", "text"),
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
PUBLIC_MODULES = {"arrays", "page", "text"}  # of which plugins may import everything without an underscore
PRINTING = {
    ROOT / "stylize" / "cli",
    ROOT / "stylize" / "__main__.py",
    ROOT / "plugins" / "stylize_batch" / "commands.py",
}
PRINTING |= {ROOT / "video" / "stylize_video" / "commands.py"}
PRINTING |= {ROOT / "plugins" / name / "commands.py" for name in ("stylize_comfyui", "stylize_gimp", "stylize_web")}
PLUGINS = {
    "stylize_batch": ROOT / "plugins" / "stylize_batch",
    "stylize_comfyui": ROOT / "plugins" / "stylize_comfyui",
    "stylize_gimp": ROOT / "plugins" / "stylize_gimp",
    "stylize_dask": ROOT / "plugins" / "stylize_dask",
    "stylize_napari": ROOT / "plugins" / "stylize_napari",
    "stylize_video": ROOT / "video" / "stylize_video",
    "stylize_web": ROOT / "plugins" / "stylize_web",
}


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def in_info(wheel: zipfile.ZipFile, name: str) -> str:
    (member,) = [member for member in wheel.namelist() if re.fullmatch(rf"[^/]+\.dist-info/{name}", member)]
    return wheel.read(member).decode()


def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_string(in_info(wheel, "METADATA"))


def test_the_wheel_installs_its_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"stylize", *PLUGINS}
    assert len(tops) == len(PLUGINS) + 2
    assert not [name for name in wheel.namelist() if "__pycache__" in name or "/tests/" in name]


def test_every_package_of_the_wheel_is_typed_and_whole(wheel: zipfile.ZipFile) -> None:
    for package, folder in {"stylize": ROOT / "stylize", **PLUGINS}.items():
        assert f"{package}/py.typed" in wheel.namelist()
        modules = {f"{package}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}
        assert modules <= set(wheel.namelist())
        assert f"{package}/__init__.py" in modules


def test_no_chapter_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    pages = [name for name in wheel.namelist() if name.endswith(".md")]
    assert pages == ["stylize/samples/CREDITS.md"]


def test_the_embedded_encoder_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("stylize/encoders/mini.safetensors") == mini.FILE.read_bytes()


def test_the_plugin_of_napari_is_in_the_wheel_with_its_samples_but_napari_is_an_extra(wheel: zipfile.ZipFile) -> None:
    assert "[napari.manifest]\nstylize-host = stylize_napari:napari.yaml\n" in in_info(wheel, r"entry_points\.txt")
    assert {"stylize_napari/napari.yaml", "stylize_napari/icon.svg"} <= set(wheel.namelist())
    assert "Framework :: napari" in metadata(wheel).get_all("Classifier", [])  # by which napari finds its plugins
    named = re.findall(r'"([\w-]+\.jpg)"', (PLUGINS["stylize_napari"] / "samples.py").read_text(encoding="utf-8"))
    assert len(named) == 4
    for name in (*named, "CREDITS.md"):
        assert wheel.read(f"stylize/samples/{name}") == (SAMPLES / name).read_bytes()
    needed = [line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not re.search("napari|magicgui|superqt|qt", " ".join(needed), re.IGNORECASE)


def test_the_page_is_in_the_wheel_with_its_samples_but_its_server_is_an_extra(wheel: zipfile.ZipFile) -> None:
    for file in (PLUGINS["stylize_web"] / "static").iterdir():
        assert wheel.read(f"stylize_web/static/{file.name}") == file.read_bytes()
    for name in (*PHOTOS, *PAINTINGS):
        assert wheel.read(f"stylize/samples/{name}.jpg") == (SAMPLES / f"{name}.jpg").read_bytes()
    needed = [line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not re.search("starlette|uvicorn|playwright", " ".join(needed), re.IGNORECASE)


def test_the_example_workflow_of_comfyui_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert "stylize_comfyui/example_workflows/stylize.json" in wheel.namelist()


def test_the_command_and_the_licence_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert "[console_scripts]\nstylize = stylize.__main__:main\n" in in_info(wheel, r"entry_points\.txt")
    assert in_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert metadata(wheel)["License-Expression"] == "MIT"


def test_name_version_and_description_come_from_their_only_source(wheel: zipfile.ZipFile) -> None:
    found = metadata(wheel)
    assert found["Name"] == "stylize-host"
    assert found["Version"] == stylize.__version__
    assert found.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    assert project()["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", stylize.__version__)


def project() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


# The public names


def test_the_public_names_are_sorted_and_unique() -> None:
    def kind(name: str) -> int:
        return 0 if name.isupper() else 1 if name[0].isupper() else 2

    assert list(stylize.__all__) == sorted(set(stylize.__all__), key=lambda name: (kind(name), name))
    assert dir(stylize) == sorted(stylize.__all__)


@pytest.mark.parametrize("name", stylize.__all__)
def test_a_public_name_can_be_imported_and_is_what_its_home_holds(name: str) -> None:
    value = getattr(stylize, name)
    assert value is getattr(importlib.import_module(stylize._HOME[name]), name)
    assert typing.get_origin(value) or value.__doc__, name  # the alias of a type can have no docstring


def test_the_lazy_table_the_types_and_all_agree() -> None:
    assert set(stylize._HOME) == set(stylize.__all__)
    assert len(stylize._HOME) == sum(map(len, stylize._HOMES.values()))  # no name with two homes
    typed = {
        alias.name: node.module
        for node in ast.walk(parsed(ROOT / "stylize" / "__init__.py"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stylize.")
        for alias in node.names
    }
    wanted = {name: home for name, home in stylize._HOME.items() if home != "stylize.host"}
    assert {name: home for name, home in typed.items() if home != "stylize.host"} == wanted


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'stylize' has no attribute 'nonsense'"):
        _ = stylize.nonsense


def annotated(function: ast.FunctionDef) -> Iterator[str]:
    """The names in the signature of a function."""
    parts = [argument.annotation for argument in [*function.args.args, *function.args.kwonlyargs]]
    for part in [*parts, function.returns]:
        yield from (node.id for node in ast.walk(part or ast.Constant(None)) if isinstance(node, ast.Name))


def test_a_plugin_can_name_every_type_of_a_hook_by_public_names() -> None:
    tree = parsed(ROOT / "stylize" / "hookspecs.py")
    homes = {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    types = {name for node in tree.body if isinstance(node, ast.FunctionDef) for name in annotated(node)}
    ours = {name for name in types if homes.get(name, "").startswith("stylize")}
    assert {"Display", "EncoderSpec", "Job", "Term"} <= ours
    assert ours <= set(stylize.__all__)


@pytest.mark.parametrize("made", ["EncoderSpec", "Term", "ColorMode", "Frame"])
def test_the_fields_of_what_a_plugin_makes_are_of_public_types(made: str) -> None:
    home = importlib.import_module(stylize._HOME[made])
    tree = parsed(Path(str(home.__file__)))
    (kind,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == made]
    fields = [node.annotation for node in kind.body if isinstance(node, ast.AnnAssign)]
    names = {node.id for field in fields for node in ast.walk(field) if isinstance(node, ast.Name)}
    aliases = {name for name in names if typing.get_origin(getattr(home, name, None))}  # such as a Callable
    ours = {name for name in names - aliases if is_ours(name, tree)}
    assert names
    assert ours <= set(stylize.__all__)


def is_ours(name: str, tree: ast.Module) -> bool:
    """Whether a name is defined in a module, or imported into it from stylize."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return str(node.module).startswith("stylize")
    return name not in vars(builtins)


# Who may import whom


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


def room_of(module: str) -> str:
    """The room of ``stylize.encoders.weights`` is encoders."""
    return module.split(".")[1]


def imported(path: Path, package: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Full names of all that a file imports, also in functions and for types, with their lines."""
    inside = [package, *path.relative_to(folder).parts[:-1]]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) + 1 - node.level] if node.level else []
            start = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{start}.{alias.name}", node.lineno


def is_room(name: str) -> bool:
    parts = name.split(".")
    folder = ROOT / "stylize"
    return (
        len(parts) > 1 and parts[0] == "stylize" and any((folder / f"{parts[1]}{end}").exists() for end in (".py", ""))
    )


def test_every_room_has_its_floor() -> None:
    rooms = {path.stem for path in (ROOT / "stylize").glob("*.py")} - {"__init__"}
    rooms |= {path.parent.name for path in (ROOT / "stylize").glob("*/__init__.py")}
    assert rooms <= set(FLOOR), "say on which floor a new room lies, and add it to the design"


def test_imports_go_down() -> None:
    folder = ROOT / "stylize"
    arrows = 0
    for path in modules(folder):
        # the shop window, what uses it, and what names the types of all
        if path in {folder / "__init__.py", folder / "hookspecs.py"}:
            continue
        room = path.relative_to(folder).with_suffix("").parts[0]
        for name, line in imported(path, "stylize", folder):
            if not is_room(name):
                continue
            arrows += 1
            assert FLOOR[room_of(name)] >= FLOOR[room], f"{path.name}:{line} imports {name}, which lies above it"
            assert room_of(name) != "testing", f"{path.name}:{line} imports what is only for tests"
    assert arrows > 20


@pytest.mark.slow
def test_core_works_where_no_plugin_can_be_imported(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    code = f"""
import pkgutil, sys
sys.modules |= dict.fromkeys({[*PLUGINS]})  # to import one of them is an ImportError
import stylize
for module in pkgutil.walk_packages(stylize.__path__, "stylize."):
    if module.name != "stylize.kernels":  # needs Triton
        __import__(module.name)
from stylize.cli.main import main
main(["photo.png", "starry.png", "-q", "--encoder", "mini", "--size", "16", "--steps", "1"])
"""
    environment = {**os.environ, "STYLIZE_PLUGINS": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "photo-stylized.png").exists()


@pytest.mark.parametrize("package", PLUGINS)
def test_a_plugin_imports_public_names_and_no_other_plugin(package: str) -> None:
    folder = PLUGINS[package]
    for path in modules(folder):
        for name, line in imported(path, package, folder):
            top, *rest = name.split(".")
            assert top == package or top not in PLUGINS, f"{path}:{line} imports another plugin"
            if top == "stylize" and rest:
                public = {*stylize.__all__, "__version__"} if len(rest) == 1 else PUBLIC_MODULES
                assert rest[0] in public, f"{path}:{line} imports {name}, which is not public"
                assert not any(part.startswith("_") for part in rest if part != "__version__"), f"{path}:{line}"
                assert len(rest) <= 2, f"{path}:{line} imports {name}, which is not public"


@pytest.mark.slow
@pytest.mark.parametrize("folder", [ROOT / "stylize", *PLUGINS.values()], ids=lambda folder: folder.name)
def test_classes_have_at_most_250_lines(folder: Path) -> None:
    for path in modules(folder):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 250, f"{path}:{node.lineno}: split {node.name} by subject"


@pytest.mark.slow
@pytest.mark.parametrize("folder", [ROOT / "stylize", *PLUGINS.values()], ids=lambda folder: folder.name)
def test_new_tensors_have_a_dtype_of_their_own(folder: Path) -> None:
    """Else they would have the default one, which programs that use the package may have set."""
    makers = {"zeros", "ones", "empty", "full", "linspace", "tensor", "rand", "randn", "eye"}
    for path in modules(folder):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in makers:
                of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
                named = any(each.arg in ("dtype", None) for each in node.keywords)
                assert named or not of_torch, f"{path}:{node.lineno}: torch.{node.func.attr} needs a dtype"


def test_the_file_of_the_loop_is_short() -> None:
    assert len((ROOT / "stylize" / "painting.py").read_text(encoding="utf-8").splitlines()) <= 250


def test_hooks_import_for_types_only() -> None:
    tree = parsed(ROOT / "stylize" / "hookspecs.py")
    outside = {
        name
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert outside == {"__future__", "typing", "pluggy"}
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and list(imports_in(node))]


def imports_in(node: ast.AST) -> Iterator[ast.AST]:
    return (inner for inner in ast.walk(node) if isinstance(inner, (ast.Import, ast.ImportFrom)))


@pytest.mark.slow
def test_only_the_command_line_prints_or_exits() -> None:
    speech = re.compile(r"print|input|breakpoint|exit|quit|sys\.(exit|stdout|stderr)|os\._exit|click\.(echo|secho)")
    for path in [path for folder in (ROOT / "stylize", *PLUGINS.values()) for path in modules(folder)]:
        if {path, path.parent} & PRINTING:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                assert not speech.fullmatch(ast.unparse(node)), f"{path}:{node.lineno}: {ast.unparse(node)}"


# Beside the code


def test_constraints_pin_names_to_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for line in lines:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.+!]*", line), line
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_constraints_pin_every_dependency() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    wanted = [*project()["dependencies"], *(name for extra in extras.values() for name in extra)]
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in wanted}
    assert names <= pinned


def test_every_sample_is_small_and_credited() -> None:
    code = {".py", ".md", ".toml", ".ipynb", ".service", ".slurm", ".yaml"}
    pictures = [path for path in SAMPLES.rglob("*") if path.is_file() and path.suffix not in code | {".pyc"}]
    credits = (SAMPLES / "CREDITS.md").read_text(encoding="utf-8")
    assert len(pictures) >= 8
    for path in pictures:
        assert f"`{path.name}`" in credits, path
        assert path.stat().st_size < 200_000, path


def test_no_credit_is_for_a_sample_that_is_gone() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (SAMPLES / "CREDITS.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 8
    assert [name for name in rows if not (SAMPLES / name).exists()] == []
