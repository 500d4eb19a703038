"""Everything stylize raises on purpose; each message is one line: what, which file, what to do.

StylizeError                what a caller may catch
├── SettingsError           a value outside its range, an unknown preset or layer, a bad settings file
├── ImageError              a picture that cannot be read or written
│   └── TargetError         a target that cannot be meant; also a SettingsError
├── WeightsError            encoder weights missing, wrong, truncated or not downloadable
├── DeviceError             a device or precision this machine does not have
├── OptimizationError       the optimisation produced NaN or inf and could not recover
├── PluginError             a plugin that cannot be loaded or broke its contract
└── ClaimLostError          what was painted here has been taken over by another run
"""


class StylizeError(Exception):
    """Base of all expected errors; ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class SettingsError(StylizeError, ValueError):
    """A setting is unknown or out of range: a mistake in how the program was called."""

    exit_code = 2


class ImageError(StylizeError):
    """A picture could not be read or written."""


class TargetError(SettingsError, ImageError):
    """No result can have this path: its extension, the options it was given, a source of the same path, a folder that
    is not there. A mistake in how the program was called."""


class WeightsError(StylizeError):
    """Encoder weights are missing, wrong or could not be fetched."""


class DeviceError(StylizeError):
    """The device or precision asked for is not there."""


class OptimizationError(StylizeError):
    """The optimisation diverged (NaN or infinity), or does not fit the memory."""


class PluginError(StylizeError):
    """A plugin could not be loaded or broke its contract."""


class ClaimLostError(StylizeError):
    """Another run took over what this one was painting, because it seemed to be gone."""
