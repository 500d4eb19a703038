"""Every setting as a widget, folded away; and labels that line up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, LineEdit, SpinBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea
from superqt import QCollapsible

from stylize import SettingField, Settings, setting_fields, setting_text, setting_value

LABELS = {"preserve_color": "keep colours"}
LARGEST = 2**31 - 1  # the largest number of a spin box
COLLAPSED, EXPANDED = "▸", "▾"
GAP = 8  # px between the longest label and its widget
LARGER = 1.25  # how much larger the letters may be in the window than they are before it is shown

Choices = Sequence[str] | Callable[[Any], Sequence[str]]


class SettingsForm:
    """Widgets for the fields of ``Settings``, some of which may be shown elsewhere than the others.

    Args:
        choices: of fields that are text, by name: what can be chosen.
    """

    def __init__(self, choices: Mapping[str, Choices]) -> None:
        self._widgets = {each.name: _widget(each, choices.get(each.name)) for each in setting_fields()}
        self._nullable = {each.name for each in setting_fields() if each.nullable}

    def __getitem__(self, name: str) -> Any:
        return self._widgets[name]

    def rest(self, shown: Sequence[str]) -> list[Any]:
        """The widgets of all fields but those."""
        return [widget for name, widget in self._widgets.items() if name not in shown]

    def show(self, settings: Settings) -> None:
        """Let the widgets hold these settings."""
        for name, widget in self._widgets.items():
            value = getattr(settings, name)
            widget.value = setting_text(value) if isinstance(widget, LineEdit) else 0 if value is None else value

    def settings(self) -> Settings:
        """What the widgets hold.

        Raises:
            SettingsError: it is out of range, or does not go together.
        """
        values = {name: self._value(name, widget) for name, widget in self._widgets.items()}
        return Settings(**values)

    def _value(self, name: str, widget: Any) -> Any:
        if isinstance(widget, LineEdit):
            return setting_value(name, widget.value)
        return None if name in self._nullable and not widget.value else widget.value


def _widget(field: SettingField, choices: Choices | None) -> Any:
    label = LABELS.get(field.name, field.name.replace("_", " "))
    unit = f", {field.unit}" if field.unit else ""
    tip = f"{field.help[0].upper()}{field.help[1:]}{unit}."
    common = {"name": field.name, "label": label, "tooltip": tip}
    offered = choices or field.choices
    if offered:
        return ComboBox(choices=offered, value=field.default, **common)
    if field.type == "boolean":
        return CheckBox(value=field.default, text=label, **{**common, "label": ""})
    if field.type == "integer":
        low, high = 0 if field.nullable else int(field.minimum or 0), min(int(field.maximum or LARGEST), LARGEST)
        return SpinBox(value=field.default or 0, min=low, max=high, **common)
    if field.type == "number":
        step = 0.005 if field.default < 1 else 0.1
        least = 0.001 if field.exclusive else field.minimum or 0.0
        return FloatSpinBox(value=field.default, min=least, max=field.maximum or 1e6, step=step, **common)
    return LineEdit(value=setting_text(field.default), **common)


def folded(title: str, widgets: Sequence[Any]) -> QCollapsible:
    """Widgets that a click on a title unfolds."""
    box = Container(widgets=widgets)
    box.margins = (0, 0, 0, 0)
    align(box)
    made = QCollapsible(title, expandedIcon=EXPANDED, collapsedIcon=COLLAPSED)
    made.layout().setContentsMargins(0, 0, 0, 0)
    made.setDuration(0)
    scroll = QScrollArea()  # more settings than a small window has room for
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(box.native)
    made.setContent(scroll)
    made.box = box  # which would be deleted with its widgets
    made.collapse(animate=False)
    return made


def align(*boxes: Container) -> None:
    """Give all labels the width of the longest. magicgui measures them without the style sheet of the window."""
    rows = [widget._labeled_widget() for box in boxes for widget in box]
    labels = [row._label_widget.native for row in rows if row is not None]
    width = max((label.fontMetrics().horizontalAdvance(label.text()) for label in labels), default=0)
    for label in labels:
        label.setFixedWidth(round(LARGER * width) + GAP)
