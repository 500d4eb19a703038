"""Settings: ranges and types named in the message, presets, TOML."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylize import colors, encoders
from stylize.errors import SettingsError
from stylize.settings import PRESETS, Settings, knob_of, preset, setting_fields

FIELDS = tuple(spec.name for spec in dataclasses.fields(Settings))
RANGED = tuple(name for name in FIELDS if knob_of(name).low is not None)
CHOSEN = tuple(name for name in FIELDS if knob_of(name).choices)
FLOATS = (
    "content_weight",
    "style_weight",
    "tv_weight",
    "learning_rate",
    "tolerance",
    "style_scale",
    "brush",
    "match_weight",
    "min_outlines",
)
WRONG_TYPES: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("size", "min_size", "history", "seed"), ("8", 64.0, True, None, [64])),
    "scales": ("2", 2.0, True, [2]),
    **dict.fromkeys(FLOATS, ("0.5", True, None, [0.5])),
    "steps": ("40", (40, 2.5), ("40",), (True,), {"a": 1}, None),
    "style_weights": ("1", ("1",), (True,), {"a": 1}, None),
    "style_layers": ("relu1_1", 3, {"relu1_1": "1"}, {"relu1_1": True}, None),
    "upscale": (1, "yes", None),
    **dict.fromkeys(
        (
            *("style_loss", "content_loss", "normalize", "optimizer", "pooling", "preserve_color", "palette"),
            "style_margins",
            "precision",
        ),
        (1, None, []),
    ),
    **dict.fromkeys(("content_layer", "init", "device", "encoder", "memory"), (1, None, True, ["vgg19"])),
}


def held(name: str, value: object) -> Any:
    """A value in the shape that its field wants."""
    if name == "style_layers":
        return {"relu1_1": value}
    return (value,) if isinstance(getattr(Settings(), name), tuple) else value


def whole(name: str) -> bool:
    return name not in (*FLOATS, "style_layers", "style_weights")


def outside() -> list[tuple[str, float]]:
    """Every ranged field with a value just below and one just above its range."""
    found: list[tuple[str, float]] = []
    for name in RANGED:
        knob = knob_of(name)
        assert knob.low is not None
        found.append((name, int(knob.low) - 1 if whole(name) else knob.low - 0.5))
        if knob.above:
            found.append((name, float(knob.low)))
        if knob.high is not None:
            found.append((name, int(knob.high) + 1 if whole(name) else knob.high * 1.5))
    return found


def edges() -> list[tuple[str, float]]:
    """Every ranged field with its smallest and its largest value."""
    found: list[tuple[str, float]] = []
    for name in RANGED:
        knob, kind = knob_of(name), int if whole(name) else float
        assert knob.low is not None
        zero_alone = knob.low == 0 and name in ("style_layers", "style_weights")  # all zero is refused elsewhere
        if not zero_alone:
            found.append((name, math.ulp(0) if knob.above else kind(knob.low)))
        if knob.high is not None:
            found.append((name, kind(knob.high)))
    return found


# --- values ----------------------------------------------------------------------------------------------------


def test_every_field_says_what_it_means() -> None:
    for name in FIELDS:
        assert knob_of(name).help, name
        default = getattr(Settings(), name)
        if not isinstance(default, str | bool):
            assert knob_of(name).range, name


@pytest.mark.parametrize(("name", "value"), outside())
def test_a_value_outside_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: held(name, value)})
    message = str(caught.value)
    assert message.startswith(f"{name} is ")
    assert (f"{value:g}" if isinstance(value, float) else f"{value}") in message
    assert knob_of(name).range in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value"), edges())
def test_the_ends_of_a_range_are_taken(name: str, value: float) -> None:
    assert getattr(Settings(**{name: held(name, value)}), name) == held(name, value)


def test_a_message_gives_value_range_and_unit() -> None:
    with pytest.raises(SettingsError, match=r"^size is 8; it must be 16 to 32768 px$"):
        Settings(size=8)
    with pytest.raises(SettingsError, match=r"^learning_rate is 0; it must be above 0 to 1$"):
        Settings(learning_rate=0)
    with pytest.raises(SettingsError, match=r"^steps is 0; it must be 1 to 100000$"):
        Settings(steps=(40, 0))


@pytest.mark.parametrize("name", [*FLOATS, "style_layers", "style_weights"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is "):
        Settings(**{name: held(name, value)})


@pytest.mark.parametrize("name", ["size", "steps", "style_weight", "style_layers"])
@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["positive", "negative"])
def test_a_number_beyond_all_floats_is_refused_like_any_other(name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is "):
        Settings(**{name: held(name, value)})


@pytest.mark.parametrize("name", CHOSEN)
def test_a_choice_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: "none such"})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name} is 'none such'")
    assert all(choice in str(caught.value) for choice in knob_of(name).choices)


@pytest.mark.parametrize(("name", "choice"), [(name, choice) for name in CHOSEN for choice in knob_of(name).choices])
def test_every_choice_is_taken(name: str, choice: str) -> None:
    assert getattr(Settings(**{name: choice}), name) == choice  # type: ignore[arg-type]


def test_every_field_has_wrong_types_to_try() -> None:
    assert set(WRONG_TYPES) == set(FIELDS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_TYPES.items() for value in values])
def test_a_value_of_the_wrong_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is ") as caught:
        Settings(**{name: value})
    assert "\n" not in str(caught.value)


def test_whole_numbers_become_floats_and_lists_tuples() -> None:
    settings = Settings(style_weight=2, steps=[3, 4], style_weights=[1, 2], style_layers={"relu1_1": 3})  # type: ignore[arg-type]
    assert isinstance(settings.style_weight, float)
    assert settings.steps == (3, 4)
    assert settings.style_weights == (1.0, 2.0)
    assert isinstance(settings.style_layers["relu1_1"], float)


def test_a_bare_list_of_layers_means_equal_weights() -> None:
    settings = Settings(style_layers=["relu1_1", "relu3_1"])  # type: ignore[arg-type]
    assert settings.style_layers == {"relu1_1": 1.0, "relu3_1": 1.0}


@pytest.mark.parametrize(
    "values",
    [
        {"steps": ()},
        {"style_layers": {}},
        {"style_layers": {"relu1_1": 0}},
        {"style_weights": (0, 0)},
        {"content_weight": 0, "style_weight": 0},
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    assert next(iter(values)) in str(caught.value)


def test_no_style_layer_is_needed_without_style() -> None:
    assert Settings(style_layers={}, style_weight=0).style_layers == {}


# --- frozen ----------------------------------------------------------------------------------------------------


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().size = 64  # type: ignore[misc]


def test_settings_keep_nothing_of_the_callers() -> None:
    layers, steps = {"relu1_1": 1.0}, [1, 2]
    settings = Settings(style_layers=layers, steps=steps)  # type: ignore[arg-type]
    layers["relu1_1"] = -5
    steps[0] = -5
    assert settings.style_layers == {"relu1_1": 1.0}
    assert settings.steps == (1, 2)


def test_settings_hand_out_nothing_of_their_own() -> None:
    settings = Settings()
    for value in settings.to_dict().values():
        if isinstance(value, dict | list):
            value.clear()
    assert settings == Settings()


def test_replace_changes_a_copy() -> None:
    before = Settings()
    after = before.replace(size=100, steps=(5,))
    assert (after.size, after.steps) == (100, (5,))
    assert before == Settings()
    assert after.replace(size=before.size, steps=before.steps) == before


def test_replace_validates_anew() -> None:
    with pytest.raises(SettingsError, match=r"^size is 1;"):
        Settings().replace(size=1)
    with pytest.raises(SettingsError, match="unknown setting 'sizes'"):
        Settings().replace(sizes=100)


# --- presets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_described(name: str) -> None:
    assert isinstance(preset(name), Settings)
    assert PRESETS[name][0]


def test_the_default_preset_is_the_defaults() -> None:
    assert preset("default") == Settings()


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(SettingsError) as caught:
        preset("gatys")
    assert "'gatys'" in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)


def test_gatys2015_is_what_the_paper_says() -> None:
    paper = preset("gatys2015")
    assert paper.pooling == "average"
    assert paper.style_loss == "gram"
    assert paper.normalize == "paper"
    assert paper.init == "noise"
    assert paper.optimizer == "lbfgs"
    assert paper.scales == 1
    assert paper.content_layer == "relu4_2"
    assert paper.encoder == "vgg19"
    assert paper.style_layers == {f"relu{block}_1": 1 / 5 for block in (1, 2, 3, 4, 5)}
    assert paper.content_weight / paper.style_weight == pytest.approx(1e-3)
    assert paper.tv_weight == 0
    assert paper.preserve_color == "none"


# --- TOML --------------------------------------------------------------------------------------------------------


def floats(name: str) -> st.SearchStrategy[float]:
    knob = knob_of(name)
    return st.floats(knob.low, knob.high, exclude_min=knob.above)


def whole_numbers(name: str) -> st.SearchStrategy[int]:
    knob = knob_of(name)
    assert knob.low is not None
    assert knob.high is not None
    return st.integers(int(knob.low), int(knob.high))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
some_settings = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from(knob_of(name).choices) for name in CHOSEN},
        **{name: floats(name) for name in FLOATS if name != "style_weight"},
        **{name: whole_numbers(name) for name in ("size", "min_size", "history", "seed")},
        **dict.fromkeys(("init", "device", "encoder", "content_layer"), text),
        "style_weight": st.floats(0.1, 10),
        "scales": st.none() | whole_numbers("scales"),
        "upscale": st.booleans(),
        "steps": st.lists(whole_numbers("steps"), min_size=1, max_size=5).map(tuple),
        "style_weights": st.lists(st.floats(0.1, 1e6), max_size=4).map(tuple),
        "style_layers": st.dictionaries(text, st.floats(0.1, 1e6), min_size=1, max_size=4),
    },
).map(lambda values: Settings().replace(**values))


@pytest.mark.slow
@given(settings=some_settings)
def test_settings_survive_toml(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_text(settings.to_toml(), encoding="utf-8", newline="")
    again = Settings.from_toml(path)
    assert again == settings
    assert list(again.style_layers) == list(settings.style_layers)


@given(settings=some_settings)
def test_settings_survive_plain_values(settings: Settings) -> None:
    assert Settings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_toml(name: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(preset(name).to_toml())
    assert Settings.from_toml(tmp_path / "settings.toml") == preset(name)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    path = written(tmp_path, "size = 300\nsteps = [1, 2]\nstyle_layers = ['relu1_1']\n")
    base = Settings(content_weight=0.5, size=100)
    found = Settings.from_toml(path, base)
    assert found == base.replace(size=300, steps=(1, 2), style_layers={"relu1_1": 1.0})
    assert Settings.from_toml(path) == Settings(size=300, steps=(1, 2), style_layers={"relu1_1": 1.0})


def test_a_file_may_start_from_a_preset(tmp_path: Path) -> None:
    path = written(tmp_path, "preset = 'gatys2015'\nhistory = 7\n")
    assert Settings.from_toml(path) == preset("gatys2015").replace(history=7)
    assert Settings.from_toml(path, Settings(size=100)) == preset("gatys2015").replace(history=7, size=100)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("size = 8", "size is 8"),
        ("size = '300'", "size is '300'"),
        ("sizes = 300", "unknown setting 'sizes'"),
        ("preset = 'none such'", "unknown preset 'none such'"),
        ("preset = 7", "preset"),
        ("preset = ['default']", "preset"),
        ("preset = {name = 'default'}", "preset"),
        ("[settings]\nsize = 300", "unknown setting 'settings'"),
        ("size = 300\nsize = 400", "not valid TOML"),
        ("size 300", "not valid TOML"),
        ("content_weight = nan", "content_weight is nan"),
        ("style_weight = 1979-05-27", "style_weight is"),
        (b"size = \xff", "not valid TOML"),
    ],
)
def test_a_bad_file_is_one_line_naming_file_and_fault(content: str | bytes, named: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SettingsError) as caught:
        Settings.from_toml(path)
    message = str(caught.value)
    assert str(path) in message
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_toml(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict({"sizes": 3})
    assert all(name in str(caught.value) for name in FIELDS)


def test_from_dict_leaves_its_argument_alone() -> None:
    values = {"preset": "strong", "size": 100}
    assert Settings.from_dict(values).size == 100
    assert values == {"preset": "strong", "size": 100}


def test_toml_is_plain_fields(tmp_path: Path) -> None:
    values = tomllib.loads(Settings(scales=3).to_toml())
    assert values["scales"] == 3
    assert values["style_layers"]["relu1_1"] == Settings().style_layers["relu1_1"]
    assert "scales" not in tomllib.loads(Settings().to_toml())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("auto", None), ("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("1.5 g", 1_500_000_000), ("64kib", 65536)],
)
def test_memory_is_a_size(text: str, wanted: int | None) -> None:
    assert Settings(memory=text).memory_bytes == wanted


@pytest.mark.parametrize("text", ["", "8", "GiB", "-1GB", "8 apples", "1e3MB", "8GiB 1", "9" * 400 + "TB"])
def test_memory_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^memory is "):
        Settings(memory=text)


def test_what_is_suggested_is_allowed_and_all_that_comes_with_stylize() -> None:
    known = {field.name: set(field.suggestions) for field in setting_fields()}
    assert known["preserve_color"] == {mode.name for mode in colors.builtin()}
    assert known["encoder"] == {"auto", *(spec.name for spec in encoders.builtin())}
    for name, values in known.items():
        for value in values:
            assert getattr(Settings().replace(**{name: value}), name) == value


def test_a_settings_file_without_an_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "long.toml").write_text("size = 32 # " + "x" * 2**20)
    for path, words in (
        ("/dev/zero", "not a regular file"),
        (tmp_path / "pipe.toml", "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "long.toml", "longer than 1 MiB"),
    ):
        with pytest.raises(SettingsError, match=words):
            Settings.from_toml(path)


def test_numbers_as_people_write_them() -> None:
    assert Settings(steps=300).steps == (300,)  # type: ignore[arg-type]
    made = Settings(size=np.int64(64), content_weight=np.float32(0.5), steps=[np.int32(3), 4])  # type: ignore[arg-type]
    assert (made.size, made.content_weight, made.steps) == (64, 0.5, (3, 4))
    assert {type(made.size), type(made.content_weight), type(made.steps[0])} == {int, float}
    for steps in (True, 2.5, "3"):
        with pytest.raises(SettingsError, match="steps"):
            Settings(steps=steps)  # type: ignore[arg-type]
