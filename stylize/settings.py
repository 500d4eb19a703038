"""Settings: every knob of a run, with its default, range, unit and source; named presets; TOML.

The dataclass is the only place where a knob is declared: the command line, ``stylize presets`` and the
validation messages are all derived from the field metadata here.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylize.errors import SettingsError

STYLE_LAYERS = {"relu1_1": 4.0, "relu2_1": 4.0, "relu3_1": 2.0, "relu4_1": 1.0, "relu5_1": 0.25}
LONGEST_FILE = 2**20  # bytes of settings
INITS = ("content", "noise", "style")  # or the path of a picture
PROFILES = ("srgb", "keep")  # of results: sRGB, or the photo's own


@dataclass(frozen=True)
class Knob:
    """What a field of :class:`Settings` means; ``low``/``high`` are inclusive unless ``above`` is set."""

    help: str
    low: float | None = None
    high: float | None = None
    above: bool = False  # the value must be greater than low, not equal to it
    choices: tuple[str, ...] = ()
    unit: str = ""
    source: str = ""
    metavar: str = ""  # what stands for the value in --help
    suggestions: tuple[str, ...] = ()  # some values of a text that may also have others

    @property
    def range(self) -> str:
        if self.choices:
            return " | ".join(self.choices)
        if self.low is None:
            return ""
        if self.high is None:
            return f"> {self.low:g}" if self.above else f">= {self.low:g}"
        high = "2^63 - 1" if self.high == 2**63 - 1 else f"{self.high:g}"
        return f"{'above ' if self.above else ''}{self.low:g} to {high}"

    def check(self, name: str, value: object) -> None:
        if self.choices and value not in self.choices:
            raise SettingsError(f"{name} is {value!r}; it must be one of {', '.join(self.choices)}")
        for number in value if isinstance(value, tuple) else (value,):
            if self.low is None or isinstance(number, str) or number is None:
                continue
            assert isinstance(number, (int, float))
            low = number > self.low if self.above else number >= self.low
            if not (low and (number <= self.high if self.high is not None else number < math.inf)):  # NaN is neither
                unit = f" {self.unit}" if self.unit else ""
                shown = f"{number:g}" if isinstance(number, float) else f"{number}"
                raise SettingsError(f"{name} is {shown}; it must be {self.range}{unit}")


GATYS = "Gatys, Ecker, Bethge 2016"


def _knob(default: Any, help: str, **knob: Any) -> Any:
    metadata = {"knob": Knob(help, **knob)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a picture becomes. One per run; validated when made.

    Raises:
        SettingsError: names the field, its value and its range.
    """

    size: int = _knob(512, "longest side of the result", low=16, high=32768, unit="px", metavar="PX")
    upscale: bool = _knob(False, "allow a result larger than the content")
    min_size: int = _knob(
        64, "longest side of the coarsest scale, at least", low=16, high=32768, unit="px", metavar="PX"
    )
    scales: int | None = _knob(
        None,
        "number of scales, each half the size of the next; default: as brush and min-size ask for",
        low=1,
        high=16,
        metavar="N",
    )
    steps: tuple[int, ...] = _knob(
        (20, 20, 28, 15, 12), "gradient steps per scale, coarse to fine; the last number repeats", low=1, high=100000
    )
    brush: float = _knob(
        1.0,
        "width of the strokes as a share of the picture; 1: as in a result of 256 px, 0.5: half as wide",
        low=0,
        above=True,
        high=10,
        metavar="X",
    )
    content_weight: float = _knob(
        0.037, "weight of the content term", low=0, high=1e6, source=f"{GATYS}, eq. 7", metavar="X"
    )
    style_weight: float = _knob(1.0, "weight of the style term", low=0, high=1e6, source=f"{GATYS}, eq. 7", metavar="X")
    tv_weight: float = _knob(
        0.0,
        "weight of the total variation: makes the result smoother",
        low=0,
        high=1e6,
        source="Rudin, Osher, Fatemi 1992",
        metavar="X",
    )
    content_layer: str = _knob(
        "auto",
        "encoder layer of the content term; auto: those that the encoder recommends",
        source=f"{GATYS}, eq. 1",
        metavar="LAYER",
    )
    content_loss: str = _knob(
        "features",
        "how the content is compared: its features, or how like each other its parts are, which may then become "
        "other things",
        choices=("features", "self-similarity"),
        source=f"{GATYS}, eq. 1; Kolkin, Salavon, Shakhnarovich 2019",
    )
    min_outlines: float = _knob(
        0.75,
        "how much of the photo's outlines must be left, for content-loss self-similarity; with less its features are "
        "held more firmly; 0: never",
        low=0,
        high=1,
        metavar="X",
    )
    style_layers: Mapping[str, float] = _knob(
        STYLE_LAYERS, "encoder layers of the style term, with weights", low=0, high=1e6, source=f"{GATYS}, eq. 5"
    )
    style_loss: str = _knob(
        "wasserstein",
        "how the style is compared: Wasserstein distance between Gaussians of the features, or Gram matrices; match: "
        "Wasserstein, and each small piece of the picture with the piece of the painting most like it",
        choices=("wasserstein", "gram", "match"),
        source=f"{GATYS}, eq. 4 and 5; Kolkin, Salavon, Shakhnarovich 2019",
    )
    match_weight: float = _knob(
        0.2, "weight of the matched pieces relative to the style, for style-loss match", low=0, high=1e6, metavar="X"
    )
    normalize: str = _knob(
        "target",
        "scale of the losses: relative to their targets, or as in the paper (eq. 1 and 4)",
        choices=("target", "paper"),
    )
    optimizer: str = _knob(
        "lbfgs", "optimisation method", choices=("lbfgs", "adam"), source="Nocedal 1980; Kingma, Ba 2015"
    )
    history: int = _knob(10, "number of curvature pairs that L-BFGS keeps", low=1, high=200, metavar="N")
    learning_rate: float = _knob(0.02, "learning rate of Adam", low=0, above=True, high=1, metavar="X")
    tolerance: float = _knob(
        1e-3,
        "stop a scale when ten steps improve the loss by less than this fraction; 0: never",
        low=0,
        high=1,
        metavar="X",
    )
    pooling: str = _knob("max", "pooling of the encoder", choices=("max", "average"), source=f"{GATYS}, sect. 2")
    init: str = _knob(
        "content",
        "where the optimisation starts: content, noise, style, or the path of a picture",
        metavar="START",
        suggestions=INITS,
    )
    style_scale: float = _knob(
        1.0, "size of the style picture relative to the result", low=0, above=True, high=10, metavar="X"
    )
    style_weights: tuple[float, ...] = _knob(
        (), "weights of several styles in a blend, one each; default: equal", low=0, high=1e6
    )
    style_margins: str = _knob(
        "cut",
        "plain margins of style pictures, such as a mat, the white of a scan or black bars: left out, or part of the "
        "style",
        choices=("cut", "keep"),
    )
    preserve_color: str = _knob(
        "none",
        "keep the colours of the content; luminance: only the brightness is painted; match: the style is given the "
        "colours of the content first",
        source="Gatys, Bethge, Hertzmann, Shechtman 2016",
        metavar="MODE",
        suggestions=("none", "luminance", "match"),
    )
    palette: str = _knob(
        "style",
        "colours of the start and of the result: moved to those of the style, or left to the optimisation; without "
        "effect where preserve-color is not none",
        choices=("style", "free"),
        source="Pitie, Kokaram, Dahyot 2007",
    )
    seed: int = _knob(0, "seed of random numbers", low=0, high=2**63 - 1, metavar="N")
    device: str = _knob(
        "auto",
        "device to compute on: auto, cpu, cuda, cuda:N or mps",
        metavar="DEVICE",
        suggestions=("auto", "cpu", "cuda", "mps"),
    )
    precision: str = _knob(
        "auto",
        "precision of the encoder; auto: bfloat16 on CPUs that are fast at it; float32: TF32 on GPUs that have it; "
        "losses are always float32",
        choices=("auto", "float32", "bfloat16"),
    )
    memory: str = _knob(
        "auto",
        "most memory to use, such as 8GiB or 500MB; auto: what is free, less a margin",
        metavar="SIZE",
        suggestions=("auto",),
    )
    encoder: str = _knob(
        "auto",
        "encoder, by name; auto: vgg19, or mini if its weights cannot be found or downloaded",
        metavar="NAME",
        suggestions=("auto", "vgg19", "vgg16", "mini"),
    )

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = _coerce(spec.name, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)
            checked = tuple(value.values()) if isinstance(value, dict) else value
            knob_of(spec.name).check(spec.name, checked)
        if not self.steps:
            raise SettingsError("steps is empty; give at least one number of steps")
        if not any(self.style_layers.values()) and self.style_weight > 0:
            raise SettingsError("style_layers is empty or all zero; give at least one layer a positive weight")
        if self.style_weights and not any(self.style_weights):
            raise SettingsError("style_weights are all zero; at least one must be positive")
        if self.content_weight == 0 and self.style_weight == 0:
            raise SettingsError("content_weight and style_weight are both 0; nothing would be optimised")
        _ = self.memory_bytes

    @property
    def memory_bytes(self) -> int | None:
        """What ``memory`` allows; None: what is free."""
        if self.memory == "auto":
            return None
        size = r"(\d{1,12}(?:\.\d{1,12})?) *([kmgt])(i?)b?"
        found = re.fullmatch(size, self.memory.strip(), re.ASCII | re.IGNORECASE)
        if found is None:
            raise SettingsError(f"memory is {self.memory!r}; it must be auto, or a size such as 8GiB or 500MB")
        power = "kmgt".index(found[2].lower()) + 1
        return int(float(found[1]) * (1024 if found[3] else 1000) ** power)

    @property
    def start_file(self) -> Path | None:
        """The picture that ``init`` names, if it names one."""
        return None if self.init in INITS else Path(self.init)

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed, validated anew."""
        _known(changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a TOML file; fields that are None are left out."""
        pairs = ((spec.name, getattr(self, spec.name)) for spec in dataclasses.fields(self))
        return {name: _plain(value) for name, value in pairs if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: Settings | None = None) -> Settings:
        """Settings from plain values over ``base``; those of the preset that ``preset`` names go between."""
        values = dict(values)
        if "preset" in values:
            base = preset(str(values.pop("preset")), base)
        return (base or cls()).replace(**values)

    @classmethod
    def of(
        cls, given: Settings | str | Mapping[str, Any] | None = None, base: Settings | None = None, /, **changes: Any
    ) -> Settings:
        """Settings as Python programs name them, with ``changes``: an object of this class; or, over ``base``, the name
        of a preset, a mapping as :meth:`from_dict` takes it, or None."""
        if isinstance(given, str):
            given = preset(given, base)
        elif given is None or isinstance(given, Mapping):
            given = cls.from_dict(given or {}, base)
        elif not isinstance(given, Settings):
            kind = type(given).__name__
            raise SettingsError(f"settings are a stylize.Settings, the name of a preset or a mapping, not {kind}")
        return given.replace(**changes)

    @classmethod
    def from_toml(cls, path: str | Path, base: Settings | None = None) -> Settings:
        """Settings from a TOML file of ``field = value`` lines and perhaps ``preset = "name"``, over ``base``.

        Raises:
            SettingsError: the file is missing, not TOML, or holds a bad field; the message names the file.
        """
        try:
            values = tomllib.loads(_text(Path(path)))
        except OSError as error:
            raise SettingsError(f"cannot read settings file {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:  # also text that is not UTF-8, and numbers of 5000 digits
            raise SettingsError(f"settings file {path} is not valid TOML: {error}") from error
        try:
            return cls.from_dict(values, base)
        except SettingsError as error:
            raise SettingsError(f"settings file {path}: {error}") from error

    def to_toml(self) -> str:
        """The text of a TOML file that :meth:`from_toml` reads back to equal settings."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def knob_of(name: str) -> Knob:
    """The :class:`Knob` of one field."""
    knob = Settings.__dataclass_fields__[name].metadata["knob"]
    assert isinstance(knob, Knob)
    return knob


@dataclass(frozen=True)
class SettingField:
    """One field of :class:`Settings`, in JSON values, for programs that draw a form.

    ``type`` is ``integer``, ``number``, ``boolean``, ``string``, ``array`` of ``items``, or ``object``, from names to
    numbers. ``minimum`` and ``maximum`` are those of a number, or of each in an array or object; the minimum itself is
    not allowed if it is ``exclusive``. ``nullable`` means that null is allowed. A text is one of ``choices``, if there
    are any; ``suggestions`` are some of the values of one that may have others, too.
    """

    name: str
    option: str
    type: str
    items: str | None
    default: Any
    nullable: bool
    minimum: float | None
    maximum: float | None
    exclusive: bool
    unit: str
    choices: tuple[str, ...]
    suggestions: tuple[str, ...]
    help: str
    source: str


def setting_fields(base: Settings | None = None) -> list[SettingField]:
    """Every field of :class:`Settings`, in order; the defaults are the values of ``base``."""
    values = {each.name: _plain(getattr(base or Settings(), each.name)) for each in dataclasses.fields(Settings)}
    return [_described(name, value) for name, value in values.items()]


_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _described(name: str, default: Any) -> SettingField:
    knob, kind = knob_of(name), type_of(name)
    parts = typing.get_args(kind)
    items = None
    if typing.get_origin(kind) is tuple:
        described, items = "array", _JSON_TYPES[parts[0]]
    elif kind == Mapping[str, float]:
        described, items = "object", "number"
    else:
        described = _JSON_TYPES[next(part for part in (*parts, kind) if part is not type(None))]
    return SettingField(
        name=name,
        option="--" + name.replace("_", "-"),
        type=described,
        items=items,
        default=default,
        nullable=type(None) in parts,
        minimum=knob.low,
        maximum=knob.high,
        exclusive=knob.above,
        unit=knob.unit,
        choices=knob.choices,
        suggestions=knob.suggestions,
        help=knob.help,
        source=knob.source,
    )


_TYPES: dict[str, Any] = {}


def type_of(name: str) -> Any:
    """The resolved type of one field, as ``typing.get_type_hints`` gives it."""
    if not _TYPES:
        _TYPES.update(typing.get_type_hints(Settings))
    return _TYPES[name]


def _text(path: Path) -> str:
    """The text of a settings file: of a device or a pipe it might have no end."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    with path.open("rb") as file:
        data = file.read(LONGEST_FILE + 1)
    if len(data) > LONGEST_FILE:
        raise OSError(f"it is longer than {LONGEST_FILE // 2**20} MiB")
    return data.decode("utf-8")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, dict) else value


def _known(names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in Settings.__dataclass_fields__:
            raise SettingsError(f"unknown setting {name!r}; known: {', '.join(sorted(Settings.__dataclass_fields__))}")


def _coerce(name: str, value: object) -> object:
    """Lists and single numbers to tuples, ints to floats, mappings to dicts, numbers of NumPy to those of Python.

    Anything else of the wrong type is an error.
    """
    kind = type_of(name)
    if value is None and type(None) in typing.get_args(kind):
        return None
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(_scalar(name, item, inner) for item in value)
        if isinstance(value, numbers.Real):  # one for all
            return (_scalar(name, value, inner),)
    elif kind == Mapping[str, float]:
        if isinstance(value, Mapping):
            return {str(key): _scalar(name, item, float) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return {str(layer): 1.0 for layer in value}  # a bare list of layers: equal weights
    else:
        return _scalar(name, value, next(k for k in (*typing.get_args(kind), kind) if k is not type(None)))
    raise SettingsError(f"{name} is {value!r}; it must be a list or table of numbers")


def _scalar(name: str, value: object, kind: type) -> object:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):  # NumPy's, too
        value = int(value)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf * (1 if value > 0 else -1)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    raise SettingsError(f"{name} is {value!r}; it must be {wanted}")


# What texture() and reconstruct() start from. Below 128 px a texture would take over the layout of the style.
TEXTURE = Settings(min_size=128, steps=(100, 60))
RECONSTRUCTION = Settings(size=256, min_size=128, steps=(300,), palette="free")

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("balanced; coarse to fine", {}),
    "strong": (
        "more style, less content",
        # half the weight of the deep layers, which paint things of the painting where the photo hints at them
        {
            "content_weight": 0.014,
            "style_layers": {"relu1_1": 4.0, "relu2_1": 4.0, "relu3_1": 2.0, "relu4_1": 0.5, "relu5_1": 0.1},
        },
    ),
    "subtle": ("the photograph stays close", {"content_weight": 0.09}),
    "draft": ("small and quick, to choose a style by", {"size": 256, "steps": (12, 12, 16)}),
    "match": (
        "strokes that stay whole: each piece of the picture is like a piece of the painting",
        {"style_loss": "match", "content_weight": 0.025},
    ),
    "collage": (
        "the photograph made of the things in the painting, such as owls of flowers, as far as it stays there",
        {
            "style_loss": "match",
            "match_weight": 0.3,
            "content_loss": "self-similarity",
            "content_weight": 0.022,
            "steps": (40, 40, 36, 16, 12),
        },
    ),
    "gatys2015": (
        "the paper's own method: white noise, average pooling, Gram matrices, one scale",
        {
            "scales": 1,
            "steps": (500,),
            "init": "noise",
            "pooling": "average",
            "style_loss": "gram",
            "normalize": "paper",
            "content_layer": "relu4_2",
            "style_layers": {f"relu{block}_1": 0.2 for block in range(1, 6)},
            "content_weight": 1e-3,
            "style_weight": 1.0,
            "history": 100,
            "tolerance": 0.0,
            "palette": "free",
            "style_margins": "keep",
            "encoder": "vgg19",
        },
    ),
}


def preset(name: str, base: Settings | None = None) -> Settings:
    """The settings of a named preset, over ``base``.

    Raises:
        SettingsError: there is no such preset; the message lists those there are.
    """
    if name not in PRESETS:
        raise SettingsError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return (base or Settings()).replace(**PRESETS[name][1])
