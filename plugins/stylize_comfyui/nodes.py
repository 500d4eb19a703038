"""The nodes, as ComfyUI loads them. Nothing here imports torch or ComfyUI before a node runs."""

from __future__ import annotations

from typing import Any

from stylize import PRESETS, Settings, preset
from stylize_comfyui import knobs

SETTINGS = "STYLIZE_SETTINGS"
CATEGORY = "image/stylize"
AS_SET = -1.0  # of a content weight: what the preset or the settings say
MAX_SIZE = 32768  # px

Inputs = dict[str, dict[str, Any]]

_SETTINGS_INPUT = (SETTINGS, {"tooltip": "From the node Stylize Settings; used instead of the preset."})
_STYLE = ("IMAGE", {"tooltip": "The picture to paint like; several in a batch are blended."})
_PRESETS = "; ".join(f"{name}: {text}" for name, (text, _) in PRESETS.items())
_SIZE_TIP = "Longest side of the result in pixels; 0: as the preset or the settings say."
_SIZE = ("INT", {"default": 0, "min": 0, "max": MAX_SIZE, "step": 16, "tooltip": _SIZE_TIP})
_WEIGHT_TIP = "At 0.014 the painting dominates, at 0.09 the photo; -1: as the preset or the settings say."
_WEIGHT = {"default": AS_SET, "min": AS_SET, "max": 1e6, "step": 0.001, "round": False, "tooltip": _WEIGHT_TIP}
_MASK_TIP = "Where to paint. The result has the content's own size, and its pixels elsewhere."


def _looks() -> dict[str, Any]:
    """The widgets for what a picture becomes."""
    color_tip = "Keep the colours of the content; auto: as the preset or the settings say."
    encoder_tip = "The network that compares pictures; auto: vgg19, or as the settings say."
    return {
        "preset": (list(PRESETS), {"tooltip": _PRESETS}),
        "size": _SIZE,
        "content_weight": ("FLOAT", _WEIGHT),
        "preserve_color": ([knobs.AUTO, *knobs.preserve_color()], {"tooltip": color_tip}),
        "encoder": (knobs.encoders(), {"tooltip": encoder_tip}),
    }


def _chosen(
    name: str, settings: Settings | None, size: int, content_weight: float, preserve_color: str, encoder: str
) -> Settings:
    """The settings, or those of the preset, with what the widgets of a node say."""
    changes: dict[str, Any] = {}
    if size:
        changes["size"] = size
    if content_weight >= 0:
        changes["content_weight"] = content_weight
    if preserve_color != knobs.AUTO:
        changes["preserve_color"] = preserve_color
    if encoder != knobs.AUTO:
        changes["encoder"] = encoder
    return (preset(name) if settings is None else settings).replace(**changes)


class Stylize:
    """Repaints the pictures of a batch in the style of another picture."""

    DESCRIPTION = "Repaints a picture in the style of another, by optimising its pixels. A batch is painted one by one."
    CATEGORY = CATEGORY
    FUNCTION = "paint"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "record")
    OUTPUT_TOOLTIPS = ("The pictures repainted.", "How they were made, as JSON.")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        content = ("IMAGE", {"tooltip": "The pictures to repaint."})
        init = ("IMAGE", {"tooltip": "The picture to start from, instead of the content."})
        mask = ("MASK", {"tooltip": _MASK_TIP})
        return {
            "required": {"content": content, "style": _STYLE, **_looks()},
            "optional": {"mask": mask, "init": init, "settings": _SETTINGS_INPUT},
        }

    def paint(
        self,
        content: Any,
        style: Any,
        preset: str,
        size: int,
        content_weight: float,
        preserve_color: str,
        encoder: str,
        mask: Any = None,
        init: Any = None,
        settings: Settings | None = None,
    ) -> tuple[Any, str]:
        from stylize_comfyui import painting

        chosen = _chosen(preset, settings, size, content_weight, preserve_color, encoder)
        with painting.gradients():
            photos = painting.pictures(content)
            where = None if mask is None else painting.masks(mask, len(photos), *photos[0].size)
            job = painting.BatchJob(photos, where, [] if init is None else painting.pictures(init))
            painting.paint(job, painting.pictures(style), chosen)
            return painting.batch([each for each in job.results if each is not None]), painting.as_text(job.records)


class StylizeClip:
    """Repaints a batch as the frames of a clip."""

    DESCRIPTION = (
        "Repaints a batch as the frames of a clip: each starts from the one before, carried along by optical flow, so "
        "that the style does not flicker."
    )
    CATEGORY = CATEGORY
    FUNCTION = "paint"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("frames",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        frames = ("IMAGE", {"tooltip": "The frames, in order."})
        return {
            "required": {"frames": frames, "style": _STYLE, **_looks(), **knobs.clip_widgets()},
            "optional": {"mask": ("MASK", {"tooltip": _MASK_TIP}), "settings": _SETTINGS_INPUT},
        }

    def paint(
        self,
        frames: Any,
        style: Any,
        preset: str,
        size: int,
        content_weight: float,
        preserve_color: str,
        encoder: str,
        mask: Any = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> tuple[Any]:
        from stylize_comfyui import painting

        chosen = _chosen(preset, settings, size, content_weight, preserve_color, encoder)
        with painting.gradients():
            photos = painting.pictures(frames)
            where = None if mask is None else painting.masks(mask, len(photos), *photos[0].size)
            return (painting.batch(painting.clip(photos, painting.pictures(style), chosen, where, options)),)


class StylizeSettings:
    """Every setting of stylize."""

    DESCRIPTION = "All settings of stylize, for the other nodes of stylize."
    CATEGORY = CATEGORY
    FUNCTION = "collect"
    RETURN_TYPES = (SETTINGS,)
    RETURN_NAMES = ("settings",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": dict(knobs.widgets())}

    def collect(self, **values: Any) -> tuple[Settings]:
        return (knobs.settings(values),)


class StylizeTexture:
    """Paints the style alone."""

    DESCRIPTION = "Paints the style of a picture without any content."
    CATEGORY = CATEGORY
    FUNCTION = "paint"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        seed = {"default": 0, "min": 0, "max": knobs.LARGEST, "control_after_generate": False}
        return {
            "required": {
                "style": _STYLE,
                "size": _SIZE,
                "seed": ("INT", {**seed, "tooltip": "Another seed gives another texture."}),
            },
            "optional": {"settings": (SETTINGS, {"tooltip": "From the node Stylize Settings."})},
        }

    def paint(self, style: Any, size: int = 0, seed: int = 0, settings: Settings | None = None) -> tuple[Any]:
        from stylize_comfyui import painting

        with painting.gradients():
            return (painting.texture(painting.pictures(style), settings, size, seed),)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "Stylize": Stylize,
    "StylizeClip": StylizeClip,
    "StylizeSettings": StylizeSettings,
    "StylizeTexture": StylizeTexture,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "Stylize": "Stylize",
    "StylizeClip": "Stylize Clip",
    "StylizeSettings": "Stylize Settings",
    "StylizeTexture": "Stylize Texture",
}
